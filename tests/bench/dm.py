# SPDX-License-Identifier: GPL-2.0-only
"""Device-mapper's ioctls: no process is started where time is taken."""

import fcntl
import struct

_HEADER = struct.Struct("=3I I I I i I I I Q 128s 129s 7x")
_TARGET = struct.Struct("=QQiI16s")
_CREATE, _REMOVE, _SUSPEND, _LOAD, _STATUS, _MESSAGE = 3, 4, 6, 9, 12, 14
_SUSPEND_FLAG, _TABLE_FLAG, _NOFLUSH_FLAG = 1 << 1, 1 << 4, 1 << 11


def _ioctl(number, name, data=b"", flags=0, targets=0, room=0):
    size = max(_HEADER.size + len(data), room)
    buffer = bytearray(size)
    _HEADER.pack_into(buffer, 0, 4, 0, 0, size, _HEADER.size, targets, 0, flags, 0, 0, 0, name.encode(), b"")
    buffer[_HEADER.size:_HEADER.size + len(data)] = data
    with open("/dev/mapper/control", "rb+", buffering=0) as control:
        fcntl.ioctl(control, 3 << 30 | _HEADER.size << 16 | 0xfd << 8 | number, buffer)
    return buffer


class Device:
    """A mapped device of one target; a context manager that removes it."""

    def __init__(self, name, sectors, target, arguments):
        self.name, self.sectors = name, sectors
        number = _HEADER.unpack_from(_ioctl(_CREATE, name))[10]
        # as the kernel packs a device number for userspace
        self.kernel_name = f"dm-{(number & 0xff) | (number >> 12 & ~0xff)}"
        self.path = f"/dev/{self.kernel_name}"
        try:
            self.load(target, arguments)
            self.resume()
        except BaseException:
            self.remove()
            raise

    def load(self, target, arguments):
        text = arguments.encode() + b"\0"
        text += b"\0" * (-(_TARGET.size + len(text)) % 8)
        spec = _TARGET.pack(0, self.sectors, 0, _TARGET.size + len(text), target.encode())
        _ioctl(_LOAD, self.name, spec + text, targets=1)

    def suspend(self):
        _ioctl(_SUSPEND, self.name, flags=_SUSPEND_FLAG)

    def resume(self):
        _ioctl(_SUSPEND, self.name)

    def message(self, text):
        _ioctl(_MESSAGE, self.name, struct.pack("=Q", 0) + text.encode() + b"\0")

    def status(self):
        """The words of the target's status."""
        answer = _ioctl(_STATUS, self.name, flags=_NOFLUSH_FLAG, room=4096)
        start = _HEADER.unpack_from(answer)[4] + _TARGET.size
        return bytes(answer[start:]).split(b"\0", 1)[0].decode().split()

    def exceptions(self, chunk_kib):
        """Of a snapshot: how many there are."""
        used, metadata = self.status()
        return (int(used.split("/")[0]) - int(metadata)) // (chunk_kib * 2)

    def remove(self):
        _ioctl(_REMOVE, self.name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.remove()

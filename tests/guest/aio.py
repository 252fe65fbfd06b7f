# SPDX-License-Identifier: GPL-2.0-only
"""Many writes in flight at once, from one thread: the kernel's asynchronous I/O."""

import ctypes
import mmap
import os
import struct

# x86-64's, arm64's
IO_SETUP, IO_DESTROY, IO_GETEVENTS, IO_SUBMIT = (206, 207, 208, 209) if os.uname().machine == "x86_64" else (0, 1, 4, 2)
PWRITE = 1
IOCB = struct.Struct("=Q I i H h I Q Q q Q I I")
EVENT = struct.Struct("=Q Q q q")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _syscall(number, *arguments):
    result = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


class Writer:
    """Writes up to `depth` blocks of `size` bytes at a time."""

    def __init__(self, depth, size):
        self.depth, self.size = depth, size
        self.context = ctypes.c_ulong(0)
        _syscall(IO_SETUP, ctypes.c_uint(depth), ctypes.byref(self.context))
        self.buffer = mmap.mmap(-1, depth * size)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.buffer))
        self.iocbs = bytearray(IOCB.size * depth)
        iocbs = ctypes.addressof(ctypes.c_char.from_buffer(self.iocbs))
        self.pointers = (ctypes.c_void_p * depth)(*(iocbs + IOCB.size * n for n in range(depth)))
        self.events = bytearray(EVENT.size * depth)
        self.event_buffer = (ctypes.c_char * len(self.events)).from_buffer(self.events)
        self.files = {}

    def _file(self, path):
        if path not in self.files:
            self.files[path] = os.open(path, os.O_WRONLY | os.O_DIRECT)
        return self.files[path]

    def submit(self, writes):
        """Starts writes (path, offset, data) at the same time; they must not overlap."""
        assert len(writes) <= self.depth
        for n, (path, offset, data) in enumerate(writes):
            at = n * self.size
            self.buffer[at:at + len(data)] = data
            IOCB.pack_into(self.iocbs, n * IOCB.size, n, 0, 0, PWRITE, 0, self._file(path),
                           self.address + at, len(data), offset, 0, 0, 0)
        done = 0
        while done < len(writes):
            rest = (ctypes.c_void_p * (len(writes) - done))(*self.pointers[done:len(writes)])
            done += _syscall(IO_SUBMIT, self.context, ctypes.c_long(len(rest)), rest)

    def wait(self, count):
        """What each of `count` writes returned, in the order they were started: bytes or minus an error number."""
        results = [None] * count
        left = count
        while left:
            got = _syscall(IO_GETEVENTS, self.context, ctypes.c_long(left), ctypes.c_long(left), self.event_buffer,
                           None)
            for n in range(got):
                data, _, result, _ = EVENT.unpack_from(self.events, n * EVENT.size)
                results[data] = result
            left -= got
        return results

    def write(self, writes):
        """Writes all and returns what each returned."""
        self.submit(writes)
        return self.wait(len(writes))

    def release(self):
        """Closes the devices, so that they can be removed; the next write opens them again."""
        for fd in self.files.values():
            os.close(fd)
        self.files.clear()

    def close(self):
        self.release()
        _syscall(IO_DESTROY, self.context)

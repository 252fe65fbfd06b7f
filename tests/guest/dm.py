# SPDX-License-Identifier: GPL-2.0-only
"""device-mapper through its ioctls.

A process for every step would cost more than all the rest of a test does in an emulated machine, and dmsetup hides the
error number. The tests that are about what dmsetup prints run dmsetup.
"""

import ctypes
import errno
import os
import struct
import time

CREATE, REMOVE, RENAME, SUSPEND, DEV_STATUS, LOAD, CLEAR, TABLE_STATUS, MESSAGE, LIST = (
    3, 4, 5, 6, 7, 9, 10, 12, 14, 2)
STATUS_TABLE, SUSPENDED, INACTIVE_PRESENT, SKIP_LOCKFS, NOFLUSH, QUERY_INACTIVE, DATA_OUT = (
    1 << 4, 1 << 1, 1 << 6, 1 << 10, 1 << 11, 1 << 12, 1 << 16)

HEADER = struct.Struct("=3I I I I i I I I Q 128s 129s 7x")
SPEC = struct.Struct("=Q Q i I 16s")
BUFFER = 16384
RETRY_SECONDS = 5

# fcntl.ioctl() keeps all other threads from running with a buffer this large; one of them may serve the disk that the
# kernel waits for
_libc = ctypes.CDLL(None, use_errno=True)


class Answer:
    def __init__(self, buffer):
        fields = HEADER.unpack_from(buffer)
        self.start, self.targets, self.opened, self.flags = fields[4], fields[5], fields[6], fields[7]
        self.event = fields[8]
        self.minor = (fields[10] & 0xff) | (fields[10] >> 12 & ~0xff)
        self.buffer = buffer


def ioctl(command, name="", flags=0, targets=0, payload=b"", event=0):
    buffer = bytearray(BUFFER)
    HEADER.pack_into(buffer, 0, 4, 0, 0, BUFFER, HEADER.size, targets, 0, flags, event, 0, 0, name.encode(), b"")
    buffer[HEADER.size:HEADER.size + len(payload)] = payload
    control = os.open("/dev/mapper/control", os.O_RDWR)
    try:
        request = ctypes.c_ulong(3 << 30 | HEADER.size << 16 | 0xfd << 8 | command)
        if _libc.ioctl(control, request, (ctypes.c_char * BUFFER).from_buffer(buffer)) < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
    finally:
        os.close(control)
    return Answer(buffer)


def names():
    """The names of all devices."""
    answer = ioctl(LIST)
    found, at = [], answer.start
    while True:
        device, following = struct.unpack_from("=Q I", answer.buffer, at)
        if not device:
            return found
        name = answer.buffer[at + 12:]
        found.append(name[:name.index(0)].decode())
        if not following:
            return found
        at += following


def remove(name):
    """As `dmsetup remove --retry`: asynchronous I/O holds its device for a moment after it was reported."""
    deadline = time.monotonic() + RETRY_SECONDS
    while True:
        try:
            ioctl(REMOVE, name)
            return
        except OSError as e:
            if e.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


class Device:
    """A mapped device; `table` is a list of (start, length, target, parameters), in sectors."""

    def __init__(self, name, table=None):
        self.name = name
        self.minor = ioctl(CREATE, name).minor
        self.path = f"/dev/dm-{self.minor}"
        if table is not None:
            try:
                self.load(table)
                self.resume()
            except OSError:
                remove(name)
                raise

    def load(self, table):
        payload = b""
        for start, length, target, parameters in table:
            text = parameters.encode() + b"\0"
            text += bytes(-len(text) % 8)
            payload += SPEC.pack(start, length, 0, SPEC.size + len(text), target.encode()) + text
        ioctl(LOAD, self.name, targets=len(table), payload=payload)

    def clear(self):
        ioctl(CLEAR, self.name)

    def suspend(self, flags=SKIP_LOCKFS):
        ioctl(SUSPEND, self.name, SUSPENDED | flags)

    def resume(self):
        ioctl(SUSPEND, self.name)

    def reload(self, table, flags=SKIP_LOCKFS):
        """What `dmsetup reload` and `dmsetup resume` do."""
        self.load(table)
        self.suspend(flags)
        self.resume()

    def rename(self, name):
        ioctl(RENAME, self.name, payload=name.encode() + b"\0")
        self.name = name

    def remove(self):
        remove(self.name)

    def message(self, text):
        """Returns the answer, which is empty if there is none."""
        answer = ioctl(MESSAGE, self.name, payload=struct.pack("=Q", 0) + text.encode() + b"\0")
        if not answer.flags & DATA_OUT:
            return ""
        out = answer.buffer[answer.start:]
        return out[:out.index(0)].decode()

    def _targets(self, flags):
        answer = ioctl(TABLE_STATUS, self.name, flags)
        found, at = [], answer.start
        for _ in range(answer.targets):
            start, length, _, following, target = SPEC.unpack_from(answer.buffer, at)
            text = answer.buffer[at + SPEC.size:]
            found.append((start, length, target.rstrip(b"\0").decode(), text[:text.index(0)].decode().strip()))
            at = answer.start + following
        return found

    def table(self, inactive=False):
        return self._targets(STATUS_TABLE | (QUERY_INACTIVE if inactive else 0))

    def status(self):
        """The parameters of the only target's status line."""
        (only,) = self._targets(NOFLUSH)
        return only[3]

    def usage(self):
        """(allocated, total, metadata) of a snapshot's status, in sectors."""
        used, metadata = self.status().split()
        allocated, total = used.split("/")
        return int(allocated), int(total), int(metadata)

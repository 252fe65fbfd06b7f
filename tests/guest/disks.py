# SPDX-License-Identifier: GPL-2.0-only
"""Block devices to test with: loop devices on files in memory, whose bytes a test can see and change."""

import fcntl
import hashlib
import mmap
import os
import struct

import dm

DIRECTORY = "/dev/shm/disks"
LOOP_CONFIGURE, LOOP_CLR_FD, LOOP_SET_CAPACITY, LOOP_GET_FREE = 0x4c0a, 0x4c01, 0x4c07, 0x4c82
BLKGETSIZE64, BLKFLSBUF = 0x80081272, 0x1261
IO_BYTES = 1 << 20
# a table is swapped without waiting for I/O that waits for something else: it is held and goes to the new one
MEND = dm.SKIP_LOCKFS | dm.NOFLUSH

_buffers = {}


def _buffer(size):
    """A page-aligned buffer, as O_DIRECT wants it; not for threads."""
    if size not in _buffers:
        _buffers[size] = mmap.mmap(-1, size)
    return _buffers[size]


def read(path, offset=0, size=None):
    """Reads a device, around the page cache."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        if size is None:
            size = os.lseek(fd, 0, os.SEEK_END) - offset
        out = bytearray(size)
        done = 0
        while done < size:
            want = min(IO_BYTES, size - done)
            buffer = _buffer(want)
            got = os.preadv(fd, [buffer], offset + done)
            if got == 0:
                raise EOFError(f"{path} ends at {offset + done}")
            out[done:done + got] = buffer[:got]
            done += got
        return out
    finally:
        os.close(fd)


def write(path, offset, data):
    """Writes a device, around the page cache."""
    fd = os.open(path, os.O_WRONLY | os.O_DIRECT)
    try:
        for start in range(0, len(data), IO_BYTES):
            piece = data[start:start + IO_BYTES]
            buffer = _buffer(len(piece))
            buffer[:] = bytes(piece)
            assert os.pwritev(fd, [buffer], offset + start) == len(piece)
        os.fdatasync(fd)
    finally:
        os.close(fd)


def put(path, offset, data, flags=0):
    """Writes a device by one request, around the page cache, and nothing else; for threads, too."""
    fd = os.open(path, os.O_WRONLY | os.O_DIRECT | flags)
    try:
        buffer = mmap.mmap(-1, len(data))
        buffer[:] = data
        assert os.pwritev(fd, [buffer], offset) == len(data)
    finally:
        os.close(fd)


def digest(path):
    """Of a device, around the page cache, or of a file."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return hashlib.file_digest(file, "sha256").hexdigest()


def first_difference(a, b, step=512):
    """Where two byte strings first differ, for a message that can be read."""
    if a == b:
        return None
    if len(a) != len(b):
        return f"lengths {len(a)} and {len(b)}"
    for at in range(0, len(a), step):
        if a[at:at + step] != b[at:at + step]:
            return f"byte {at}: {bytes(a[at:at + 16]).hex()} is not {bytes(b[at:at + 16]).hex()}"
    return "nowhere"


class Disk:
    """A device, and the file that holds its bytes.

    Read and change the bytes while no mapped device uses it. With `twin`, another device on that one's file.
    """

    count = 0

    def __init__(self, size, block=512, twin=None):
        os.makedirs(DIRECTORY, exist_ok=True)
        Disk.count += 1
        self.file = twin.file if twin else f"{DIRECTORY}/{Disk.count}"
        self.twin = twin
        self.size = size
        self.sectors = size // 512
        backing = os.open(self.file, os.O_RDWR | os.O_CREAT)
        os.ftruncate(backing, size)
        control = os.open("/dev/loop-control", os.O_RDWR)
        number = fcntl.ioctl(control, LOOP_GET_FREE)
        os.close(control)
        self.path = f"/dev/loop{number}"
        # struct loop_config: fd, block size, struct loop_info64, reserved
        config = struct.pack("=I I 296x", backing, block)
        self.fd = os.open(self.path, os.O_RDWR)
        fcntl.ioctl(self.fd, LOOP_CONFIGURE, bytearray(config))
        os.close(backing)
        device = os.stat(self.path).st_rdev
        self.number = f"{os.major(device)}:{os.minor(device)}"

    def flush(self):
        """Forgets what the block device's page cache holds."""
        fcntl.ioctl(self.fd, BLKFLSBUF, 0)

    def read(self, offset=0, size=None):
        self.flush()
        with open(self.file, "rb") as file:
            file.seek(offset)
            return file.read(self.size - offset if size is None else size)

    def write(self, offset, data):
        with open(self.file, "r+b") as file:
            file.seek(offset)
            file.write(data)
        self.flush()

    def resize(self, size):
        """What is beyond the new end is lost; what is new is zero."""
        if size != self.size:
            os.truncate(self.file, size)
            fcntl.ioctl(self.fd, LOOP_SET_CAPACITY, 0)
            self.size, self.sectors = size, size // 512

    def close(self):
        fcntl.ioctl(self.fd, LOOP_CLR_FD, 0)
        os.close(self.fd)
        if not self.twin:
            os.unlink(self.file)


class Mapped:
    """A disk behind a table of device-mapper's."""

    def __init__(self, disk, device):
        self.disk, self.device = disk, device
        self.size, self.sectors = disk.size, disk.sectors
        self.read, self.write = disk.read, disk.write
        device.load(self.linear())
        device.resume()
        self.path, self.number = device.path, None

    def linear(self):
        return [(0, self.sectors, "linear", f"{self.disk.path} 0")]

    def mend(self):
        self.device.reload(self.linear(), flags=MEND)

    def fail(self, first=0, sectors=None, target="error"):
        """Fails what reads or writes these sectors; target "flakey" fails writes only."""
        sectors = self.sectors - first if sectors is None else sectors
        end = first + sectors
        table = []
        if first:
            table.append((0, first, "linear", f"{self.disk.path} 0"))
        arguments = "" if target == "error" else f"{self.disk.path} {first} 0 3600 1 error_writes"
        table.append((first, sectors, target, arguments))
        if end < self.sectors:
            table.append((end, self.sectors - end, "linear", f"{self.disk.path} {end}"))
        self.device.reload(table, flags=MEND)

    def delay(self, read_ms=0, write_ms=0, flush_ms=0):
        what = " ".join(f"{self.disk.path} 0 {delay}" for delay in (read_ms, write_ms, flush_ms or write_ms))
        self.device.reload([(0, self.sectors, "delay", what)], flags=MEND)

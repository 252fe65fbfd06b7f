# SPDX-License-Identifier: GPL-2.0-only
"""The disk that the crash and fault tests stand on does what it says: keeps what is written, logs it in order, fails
the requests it was told to fail."""

import os

import disks
import nbd
import pytest
from disks import put

GUEST = "faults"
SIZE = 8 << 20

STORES = ["rust"]


@pytest.mark.parametrize("block", [512, 4096])
def test_content(recorder, block):
    disk = recorder(SIZE, block=block)
    content = os.urandom(SIZE)
    disks.write(disk.path, 0, content)
    assert disks.read(disk.path) == disk.read() == content
    disk.write(4096, b"\x11" * 4096)
    assert disks.read(disk.path, 4096, 4096) == b"\x11" * 4096


def test_order_across_disks(recorder):
    log = nbd.Log()
    a, b = recorder(SIZE, name="a", log=log), recorder(SIZE, name="b", log=log)
    for n in range(20):
        put((a, b)[n % 2].path, n * 4096, bytes([n]) * 4096)
        if n == 9:
            mark = log.mark()
    assert [(op.disk, op.offset, bytes(op.data[:1])) for op in log.ops] == \
        [((a, b)[n % 2], n * 4096, bytes([n])) for n in range(20)]
    assert all(op.arrived < op.replied < following.arrived for op, following in zip(log.ops, log.ops[1:]))
    assert log.ops[9].replied < mark < log.ops[10].arrived


def test_flush_and_fua(recorder):
    log = nbd.Log()
    disk = recorder(SIZE, log=log)
    disks.write(disk.path, 0, bytes(4096))
    put(disk.path, 4096, bytes(512), os.O_DSYNC)
    assert [(op.kind, op.fua) for op in log.ops[:3]] == [("write", False), ("flush", False), ("write", True)]


def test_zeroes_and_trim(recorder):
    log = nbd.Log()
    disk = recorder(SIZE, log=log)
    disks.write(disk.path, 0, b"\x11" * 65536)
    fd = os.open(disk.path, os.O_RDWR)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    # BLKZEROOUT, BLKDISCARD
    nbd.fcntl.ioctl(fd, 0x127f, nbd.struct.pack("QQ", 512, 512 * 31))
    nbd.fcntl.ioctl(fd, 0x1277, nbd.struct.pack("QQ", 32768, 8192))
    os.close(fd)
    assert [(op.kind, op.offset, op.length) for op in log.ops[-2:]] == [
        ("zeroes", 512, 512 * 31), ("trim", 32768, 8192)]
    assert disk.read(0, 65536) == b"\x11" * 512 + bytes(512 * 31) + b"\x11" * 16384 + bytes(8192) + b"\x11" * 24576


def failures(act, count):
    """Which of `count` calls fail."""
    failed = []
    for n in range(1, count + 1):
        try:
            act()
        except OSError as e:
            assert e.errno == nbd.EIO
            failed.append(n)
    return failed


@pytest.mark.parametrize("nth,times,expected", [(1, 1, [1]), (3, 1, [3]), (2, 3, [2, 3, 4]), (4, None, [4, 5, 6])])
@pytest.mark.parametrize("kind", ["read", "write", "flush"])
def test_faults(recorder, kind, nth, times, expected):
    disk = recorder(SIZE)
    disks.write(disk.path, 0, b"\x11" * 4096)
    disks.read(disk.path, 0, 4096)
    fd = os.open(disk.path, os.O_RDWR)

    def flush():
        # without anything dirty, fsync is still a flush of the device
        os.fsync(fd)

    act = {"read": lambda: disks.read(disk.path, 0, 4096), "write": lambda: put(disk.path, 0, b"\x22" * 4096),
           "flush": flush}[kind]
    before = disk.counts[kind]
    disk.fail(kind, nth, times)
    assert failures(act, 6) == expected
    assert disk.counts[kind] == before + 6
    disk.mend()
    assert failures(act, 3) == []
    os.close(fd)


def test_a_write_that_failed_changes_nothing(recorder):
    disk = recorder(SIZE)
    disks.write(disk.path, 0, b"\x11" * 4096)
    disk.fail("write")
    with pytest.raises(OSError):
        put(disk.path, 0, b"\x22" * 4096)
    assert disks.read(disk.path, 0, 4096) == b"\x11" * 4096

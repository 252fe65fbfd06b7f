# SPDX-License-Identifier: GPL-2.0-only
"""A snapshot as a device with a volatile cache: a write to it is over before its chunk is recorded, and a flush waits for
the record. Here a flush of the COW device takes so long that it shows what waits for one.

What a crash may leave is tests/vm/crash/test_crash.py's to see.
"""

import fcntl
import os
import struct
import threading
import time

import cow
import disks
import dm
import pytest

pytestmark = pytest.mark.rust_core
GUEST = "snapshots"
CHUNK = 16
BYTES = CHUNK * 512
FLUSH = 0.6  # seconds
BLKDISCARD = 0x1277


@pytest.fixture
def slow(snapshot, mapped):
    device = mapped("cow", 200 * BYTES)
    volume, snap = snapshot(64 * BYTES, 200 * BYTES, CHUNK, cow=device)
    device.delay(flush_ms=int(1000 * FLUSH))
    yield volume, snap
    device.delay()


class Opened:
    """A device to write to, each write with the time it takes."""

    def __init__(self, device, flags=0):
        self.fd = os.open(device.path, os.O_WRONLY | os.O_DIRECT | flags)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.fd)

    def write(self, offset, data):
        buffer = disks._buffer(len(data))
        buffer[:] = data
        began = time.monotonic()
        assert os.pwritev(self.fd, [buffer], offset) == len(data)
        return time.monotonic() - began

    def flush(self):
        began = time.monotonic()
        os.fdatasync(self.fd)
        return time.monotonic() - began


def records(snap):
    return len(cow.Cow(snap.cow.disk.read()).records())


@pytest.mark.parametrize("size", [BYTES, 512, 3 * BYTES, BYTES + 512])
def test_a_write_does_not_wait_for_its_record(slow, size):
    volume, snap = slow
    data = os.urandom(size)
    with Opened(snap) as opened:
        assert opened.write(8 * BYTES, data) < FLUSH
        # and can be read, and written again
        assert disks.read(snap.path, 8 * BYTES, size) == data
        assert opened.write(8 * BYTES, data[:512]) < FLUSH
        # its record, which needs a flush, and one for the data
        assert opened.flush() > FLUSH
        assert records(snap) == -(-size // BYTES)
        # nothing is owed any more: one flush
        assert opened.flush() < 2 * FLUSH
    assert disks.read(volume.path) == volume.content


@pytest.mark.parametrize("size", [BYTES, 512])
def test_one_that_is_to_last_waits_for_its_record(slow, size):
    volume, snap = slow
    with Opened(snap, os.O_DSYNC) as opened:
        assert opened.write(0, b"\x22" * size) > FLUSH
        assert records(snap) == 1


@pytest.mark.parametrize("size", [BYTES, 512])
def test_the_origin_is_not_overwritten_before(slow, size):
    """Who writes to the origin waits for the record of a write to the snapshot that was over long before."""
    volume, snap = slow
    with Opened(snap) as written, Opened(volume) as opened:
        assert written.write(0, b"\x22" * size) < FLUSH
        assert opened.write(0, b"\x33" * 512) > FLUSH / 2
        assert records(snap) == 1


def test_a_flush_waits_for_what_was_written_before_it_alone(slow):
    """New chunks are written all the while."""
    volume, snap = slow
    stop = threading.Event()

    def work():
        with Opened(snap) as opened:
            chunk = 1
            while not stop.is_set() and chunk < 60:
                opened.write(chunk * BYTES, b"\x22" * BYTES)
                chunk += 1
                time.sleep(0.1)

    with Opened(snap) as opened:
        opened.write(0, b"\x11" * BYTES)
        worker = threading.Thread(target=work)
        worker.start()
        took = [opened.flush() for _ in range(2)]
        assert worker.is_alive(), "there was nothing to wait for"
        stop.set()
        worker.join()
    assert max(took) < 5 * FLUSH, took


def test_what_is_suspended_is_recorded(slow):
    volume, snap = slow
    with Opened(snap) as opened:
        for chunk in range(5):
            assert opened.write(chunk * BYTES, b"\x22" * BYTES) < FLUSH
        snap.device.suspend()
        assert records(snap) == 5
        snap.device.resume()


@pytest.mark.parametrize("what", ["suspend", "remove"])
def test_a_busy_origin_does_not_keep_it(snapshot, mapped, what):
    """Who suspends or removes a snapshot waits for what was begun before, not for what others begin."""
    device = mapped("cow", 9000 * BYTES)
    volume, snap = snapshot(4000 * BYTES, 9000 * BYTES, CHUNK, cow=device)
    device.delay(flush_ms=100)
    stop, left = threading.Event(), list(range(4000))

    def work():
        with Opened(volume) as opened:
            while not stop.is_set() and left:
                opened.write(left.pop() * BYTES, b"\x11" * 512)
                time.sleep(0.1)

    workers = [threading.Thread(target=work) for _ in range(16)]
    for worker in workers:
        worker.start()
    time.sleep(0.5)
    began = time.monotonic()
    snap.device.suspend()
    if what == "remove":
        snap.device.remove()
    took = time.monotonic() - began
    stop.set()
    for worker in workers:
        worker.join()
    device.delay()
    assert left, "the origin was not busy"
    if what == "suspend":
        snap.device.resume()
    else:
        snap.device = None
    assert took < 3


def test_what_others_copy_does_not_keep_it(origin, mapped, disk):
    """Who suspends a snapshot that nobody wrote does not wait for copies for the origin's writers."""
    below = mapped("below", 64 * BYTES)
    volume = origin(64 * BYTES, target=below)
    snap = volume.snapshot(disk(200 * BYTES), CHUNK)
    below.device.suspend()

    def work(chunk):
        with Opened(volume) as opened:
            opened.write(chunk * BYTES, b"\x11" * 512)

    workers = [threading.Thread(target=work, args=(chunk,)) for chunk in range(4)]
    for worker in workers:
        worker.start()
    time.sleep(0.3)
    suspender = threading.Thread(target=snap.device.suspend)
    suspender.start()
    suspender.join(5)
    hung = suspender.is_alive()
    below.device.resume()
    suspender.join()
    snap.device.resume()
    for worker in workers:
        worker.join()
    assert not hung


@pytest.mark.parametrize("recorded", [False, True])
def test_a_discard_of_what_was_just_written(mapped, disk, recorded):
    """It zeroes the chunk, whether that is recorded or not."""
    below, device = disk(64 * BYTES), mapped("cow", 200 * BYTES)
    line = [(0, below.sectors, "snapshot", f"{below.path} {device.path} P {CHUNK} 1 discard_zeroes_cow")]
    snapshot = dm.Device("snapshot", line)
    device.delay(flush_ms=int(1000 * FLUSH))
    with Opened(snapshot) as opened:
        opened.write(8 * BYTES, b"\x55" * BYTES)
        if recorded:
            opened.flush()
        fcntl.ioctl(opened.fd, BLKDISCARD, struct.pack("=QQ", 8 * BYTES, BYTES))
    assert not any(disks.read(snapshot.path, 8 * BYTES, BYTES))
    snapshot.remove()
    device.delay()


def test_what_is_removed_is_recorded(slow):
    volume, snap = slow
    with Opened(snap) as opened:
        for chunk in range(5):
            opened.write(chunk * BYTES, b"\x22" * BYTES)
    volume.drop(snap)
    assert records(snap) == 5


def test_a_flush_fails_when_the_snapshot_is_lost(snapshot, mapped):
    device = mapped("cow", 200 * BYTES)
    volume, snap = snapshot(64 * BYTES, 200 * BYTES, CHUNK, cow=device)
    device.delay(flush_ms=int(1000 * FLUSH))
    with Opened(snap) as opened:
        opened.write(0, b"\x22" * BYTES)
        device.fail(target="flakey")
        with pytest.raises(OSError):
            opened.flush()
        assert snap.status() == "Invalid"
        with pytest.raises(OSError):
            opened.flush()
    device.mend()


def test_it_says_that_it_has_a_cache(snapshot):
    """Also on a COW device that has none: who writes would else not flush."""
    volume, snap = snapshot(64 * BYTES, 200 * BYTES, CHUNK)
    minor = dm.ioctl(dm.DEV_STATUS, snap.device.name).minor
    with open(f"/sys/block/dm-{minor}/queue/write_cache") as file:
        assert file.read().strip() == "write back"

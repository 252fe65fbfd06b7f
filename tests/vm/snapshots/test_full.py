# SPDX-License-Identifier: GPL-2.0-only
"""Userspace hears in time that a COW device becomes full, and the last of it lasts long enough to extend the device."""

import threading
import time

import disks
import dm
import module
import pytest

GUEST = "snapshots"
CORES = ["rust"]
CHUNK = 8
BYTES = CHUNK * 512
COW_CHUNKS = 400
CHUNKS = 2 * COW_CHUNKS


@pytest.fixture
def full(snapshot):
    volume, snap = snapshot(CHUNKS * BYTES, COW_CHUNKS * BYTES, CHUNK)
    yield volume, snap
    module.full_seconds(0)


def write(volume, chunks):
    for chunk in chunks:
        disks.write(volume.path, chunk * BYTES, b"\x11" * 512)


def nearly_fill(volume):
    """Up to the last 5 %; returns the next chunk."""
    done = COW_CHUNKS * 95 // 100 - 2
    write(volume, range(done))
    return done


def events(snap):
    return dm.ioctl(dm.DEV_STATUS, snap.device.name).event


def percent(snap):
    allocated, total, _ = snap.usage()
    return 100 * allocated / total


def wait_for_events(snap, count):
    deadline = time.monotonic() + 10
    while events(snap) < count:
        assert time.monotonic() < deadline, f"{events(snap)} events at {percent(snap)} %"
        time.sleep(0.01)
    time.sleep(0.05)
    assert events(snap) == count


def test_an_event_at_each_five_per_cent_from_the_middle_on(full):
    volume, snap = full
    began = events(snap)
    done = 0
    for step in range(50, 100, 5):
        below = COW_CHUNKS * step // 100 - 5
        write(volume, range(done, below))
        wait_for_events(snap, began + (step - 50) // 5)
        done = COW_CHUNKS * step // 100 + 1
        write(volume, range(below, done))
        assert percent(snap) >= step
        wait_for_events(snap, began + (step - 50) // 5 + 1)
    # covered: nothing is taken
    write(volume, range(done))
    wait_for_events(snap, began + 10)
    assert disks.read(snap.path) == volume.content


class Writer(threading.Thread):
    """Writes as fast as it can, until it has written all chunks; notes the longest that a write took."""

    def __init__(self, volume):
        super().__init__()
        self.volume, self.longest = volume, 0
        self.start()

    def run(self):
        for chunk in range(CHUNKS):
            began = time.monotonic()
            write(self.volume, [chunk])
            self.longest = max(self.longest, time.monotonic() - began)


def test_the_last_of_it_lasts_until_it_is_extended(full):
    volume, snap = full
    module.full_seconds(10)
    writer = Writer(volume)
    while percent(snap) < 95:
        time.sleep(0.001)
    # what lvextend takes at most
    time.sleep(4)
    assert writer.is_alive()
    assert percent(snap) < 100, "it is full before it could be extended"
    began = time.monotonic()
    volume.device.suspend()
    snap.device.suspend()
    assert time.monotonic() - began < 1.5, "a suspend waits for the writers"
    snap.cow.resize(2 * CHUNKS * BYTES)
    snap.device.load(snap.line())
    snap.device.resume()
    volume.device.resume()
    began = time.monotonic()
    writer.join()
    assert time.monotonic() - began < 10, "slow though there is room"
    assert writer.longest < 5, "a write waited too long"
    assert snap.usage()[0] > CHUNKS * CHUNK
    assert disks.read(snap.path) == volume.content


def test_reads_and_covered_writes_are_not_slow(full):
    volume, snap = full
    module.full_seconds(1000)
    nearly_fill(volume)
    slow = threading.Thread(target=write, args=(volume, range(COW_CHUNKS, COW_CHUNKS + 8)))
    slow.start()
    time.sleep(0.5)
    assert slow.is_alive(), "the last 5 % are not slow"
    began = time.monotonic()
    write(volume, range(64))
    disks.read(volume.path, 0, 64 * BYTES)
    disks.read(snap.path, 0, 64 * BYTES)
    assert time.monotonic() - began < 1
    module.full_seconds(0)
    slow.join()


def is_slow(volume, chunks):
    """Whether writes to two new chunks wait for each other; they are done afterwards."""
    began = time.monotonic()
    write(volume, chunks)
    return time.monotonic() - began > 1


def test_other_snapshots_do_not_pay_for_it(full, disk):
    """What only they need is copied at once, and what becomes of them does not end the waiting."""
    volume, snap = full
    next_chunk = nearly_fill(volume)
    others = [volume.snapshot(disk(2 * CHUNKS * BYTES), CHUNK) for _ in range(2)]
    module.full_seconds(30)
    assert is_slow(volume, range(next_chunk, next_chunk + 3))
    # the first one has these
    assert not is_slow(volume, range(16))
    disks.write(others[0].path, 0, b"\x22" * 64 * BYTES)
    assert is_slow(volume, range(next_chunk + 3, next_chunk + 5))
    for other in others:
        volume.drop(other)
        volume.snapshots.remove(other)
    assert is_slow(volume, range(next_chunk + 5, next_chunk + 7)), "a neighbour that goes away ended it"
    assert disks.read(snap.path) == volume.content


def test_many_writers_do_not_outrun_it(full):
    volume, snap = full
    next_chunk = nearly_fill(volume)
    module.full_seconds(6)
    began = time.monotonic()
    threads = [threading.Thread(target=write, args=(volume, [next_chunk + n])) for n in range(40)]
    for thread in threads:
        thread.start()
    while snap.status() != "Invalid":
        lasted = time.monotonic() - began
        time.sleep(0.01)
    assert lasted > 5.5, "more writers had it full sooner"
    for thread in threads:
        thread.join()
    # they waited as long as they would, not each after the other
    assert time.monotonic() - began < 40


def test_a_snapshot_that_is_lost_holds_nobody_up(full, disk):
    volume, snap = full
    next_chunk = nearly_fill(volume)
    other = volume.snapshot(disk(2 * CHUNKS * BYTES), CHUNK)
    module.full_seconds(2)
    write(volume, range(next_chunk, next_chunk + 25))
    assert snap.status() == "Invalid"
    began = time.monotonic()
    write(volume, range(next_chunk + 25, next_chunk + 60))
    # each would wait for two seconds
    assert time.monotonic() - began < 20
    assert disks.read(other.path, (next_chunk + 30) * BYTES, BYTES) == \
        volume.content[(next_chunk + 30) * BYTES:(next_chunk + 31) * BYTES]


def test_nobody_waits_if_that_is_turned_off(full):
    volume, snap = full
    began = time.monotonic()
    write(volume, range(COW_CHUNKS + 8))
    assert time.monotonic() - began < 20
    assert snap.status() == "Invalid"

# SPDX-License-Identifier: GPL-2.0-only
"""Chunks that are copied ahead of those who write to an origin in sequence."""

import os
import random
import threading
import time

import cow
import disks
import dm
import module
import pytest
from figures import stats

pytestmark = pytest.mark.rust_core
GUEST = "snapshots"
CHUNK = 32
BYTES = CHUNK * 512
MIB = 1 << 20
SIZE = 24 * MIB


@pytest.fixture
def ahead(snapshot):
    module.copy_ahead(True)
    yield lambda room=4 * SIZE, chunk=CHUNK: snapshot(SIZE, room, chunk)
    module.copy_ahead(False)


def write(volume, offsets, size):
    for offset in offsets:
        disks.write(volume.path, offset, b"\x11" * size)


def check(volume, snap):
    """The snapshot has what it had, and is sound; returns how many exceptions it has."""
    assert disks.first_difference(disks.read(snap.path), volume.content) is None
    volume.drop(snap)
    return len(cow.Cow(snap.cow.read()).check())


@pytest.mark.parametrize("chunk", [8, CHUNK, 512])
@pytest.mark.parametrize("size", [BYTES // 2, 256 << 10, MIB])
def test_of_one_who_writes_in_sequence(ahead, size, chunk):
    volume, snap = ahead(chunk=chunk)
    write(volume, range(MIB, MIB + 12 * MIB, size), size)
    found = stats(volume.device)
    assert found["origin_ahead_used"] > 6 * MIB // 512
    # what was not used yet is at most what may be copied ahead, and the rest of a chunk
    assert found["origin_ahead"] - found["origin_ahead_used"] <= 8 * MIB // 512 + chunk
    assert found["origin_writes_waited"] < 12 * MIB // size / 2 or size == MIB
    exceptions = check(volume, snap)
    assert 12 * MIB // 512 // chunk <= exceptions <= 20 * MIB // 512 // chunk + 1


def test_several_at_once(ahead):
    volume, snap = ahead()
    threads = [threading.Thread(target=write, args=(volume, range(n * 8 * MIB, (n * 8 + 6) * MIB, BYTES), BYTES))
               for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stats(volume.device)["origin_ahead_used"] > 12 * MIB // 512
    check(volume, snap)


@pytest.mark.parametrize("chunks", [(8, 16), (8, 128), (128, 8), (16, 2048)])
def test_snapshots_with_several_chunk_sizes(ahead, disk, chunks):
    """What is copied for the larger chunks alone is no waste of the writer's."""
    volume, _ = ahead(chunk=chunks[0])
    volume.snapshot(disk(4 * SIZE), chunks[1])
    for file in range(8):
        write(volume, range(file * 3 * MIB, (file * 3 + 2) * MIB, 32 << 10), 32 << 10)
    found = stats(volume.device)
    assert found["origin_ahead"] <= 1.3 * 16 * MIB // 512
    assert found["origin_ahead_used"] > 14 * MIB // 512
    assert found["origin_writes_waited"] < 8 * 64 / 3
    for snap in volume.snapshots:
        check(volume, snap)


def test_nothing_for_one_who_does_not(ahead):
    volume, snap = ahead()
    chunks = list(range(0, SIZE // BYTES, 2))
    random.Random(1).shuffle(chunks)
    write(volume, [chunk * BYTES for chunk in chunks[:300]], BYTES)
    assert stats(volume.device)["origin_ahead"] == 0
    assert check(volume, snap) == 300


def test_less_for_one_who_seldom_does(ahead):
    """Two writes in a row, somewhere else each time."""
    volume, snap = ahead()
    places = list(range(0, SIZE - MIB, 128 << 10))
    random.Random(1).shuffle(places)
    found = []
    for place in places:
        write(volume, [place, place + BYTES], BYTES)
        found.append(stats(volume.device)["origin_ahead"])
    assert found[10] > 0
    assert found[-1] == found[40], "it is not given up"
    check(volume, snap)


@pytest.mark.parametrize("size", [64 << 10, 256 << 10])
def test_little_for_files_of_a_megabyte(ahead, size):
    """Written in a few pieces each, here and there: what is copied behind their ends is of no use."""
    volume, snap = ahead()
    files = list(range(0, SIZE - MIB, 3 * MIB))
    random.Random(1).shuffle(files)
    for at in files:
        write(volume, range(at, at + MIB, size), size)
    exceptions = check(volume, snap)
    assert exceptions <= len(files) * MIB // BYTES * 1.3, "too much was copied in vain"


def test_a_bad_place_that_nobody_writes(ahead, origin, mapped, disk):
    """It cannot be copied ahead, and nobody needs that."""
    below = mapped("below", SIZE)
    volume = origin(SIZE, target=below)
    snap = volume.snapshot(disk(4 * SIZE), CHUNK)
    bad = 7 * MIB
    below.fail(bad // 512, 8)
    write(volume, range(0, 6 * MIB, 256 << 10), 256 << 10)
    deadline = time.monotonic() + 10
    while (found := stats(volume.device))["origin_chunks_under_way"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert found["origin_ahead"] >= (bad + BYTES - 6 * MIB) // 512, "the bad place was not met"
    # what comes later is recorded
    write(volume, [20 * MIB], BYTES)
    assert snap.usage(), "it was lost"
    volume.drop(snap)
    records = cow.Cow(snap.cow.read()).check()
    assert all(old != bad // BYTES for old, _ in records)
    snap.device = dm.Device(snap.name, snap.line())
    below.mend()
    assert disks.first_difference(disks.read(snap.path), volume.content) is None


def test_nothing_is_copied_while_devices_are_suspended(ahead, origin, mapped):
    """A snapshot can be removed while what is below it is suspended, too."""
    for order in ("origin", "snapshot"), ("snapshot", "origin"):
        below, device = mapped("below", SIZE), mapped("cow", 4 * SIZE)
        volume = origin(SIZE, target=below)
        snap = volume.snapshot(device, CHUNK)
        below.delay(read_ms=400)
        fd = os.open(volume.path, os.O_WRONLY | os.O_DIRECT)
        buffer = disks._buffer(256 << 10)
        for n in range(40):
            os.pwritev(fd, [buffer], n * (256 << 10))
            if n > 8 and stats(volume.device)["origin_chunks_under_way"]:
                break
        else:
            pytest.fail("nothing is copied ahead")
        os.close(fd)
        for which in order:
            (volume if which == "origin" else snap).device.suspend()
        device.device.suspend(dm.SKIP_LOCKFS)
        remover = threading.Thread(target=snap.device.remove)
        remover.start()
        remover.join(10)
        hung = remover.is_alive()
        device.device.resume()
        remover.join()
        volume.device.resume()
        assert not hung, f"{order}: it waits for a device that is suspended"
        snap.device = None
        below.delay()
        volume.deactivate()
        for one in (below, device):
            one.device.remove()


def test_not_if_more_than_half_of_the_room_is_used(ahead):
    volume, snap = ahead(room=SIZE)
    write(volume, range(0, 16 * MIB, 256 << 10), 256 << 10)
    allocated, total, _ = snap.usage()
    assert total * 0.6 < allocated < total * 0.9
    before = stats(volume.device)["origin_ahead"]
    assert 0 < before < 12 * MIB // 512 + 8 * MIB // 512
    write(volume, range(16 * MIB, 18 * MIB, BYTES), BYTES)
    assert stats(volume.device)["origin_ahead"] == before
    check(volume, snap)


def test_not_if_it_is_turned_off(ahead):
    volume, snap = ahead()
    module.copy_ahead(False)
    write(volume, range(0, 4 * MIB, BYTES), BYTES)
    assert stats(volume.device)["origin_ahead"] == 0
    assert check(volume, snap) == 4 * MIB // BYTES


def test_up_to_the_end_of_the_origin(ahead, origin, disk):
    """Which need not be that of a chunk."""
    size = 8 * MIB + 3 * 512
    volume = origin(size)
    snaps = [volume.snapshot(disk(4 * SIZE), chunk) for chunk in (CHUNK, 8)]
    module.copy_ahead(True)
    write(volume, range(4 * MIB, 8 * MIB, BYTES), BYTES)
    disks.write(volume.path, 8 * MIB, b"\x11" * (3 * 512))
    assert stats(volume.device)["origin_ahead_used"] > 0
    for snap in snaps:
        check(volume, snap)


def test_beside_reads_of_the_snapshot_and_a_reload(ahead):
    volume, snap = ahead()
    stop = threading.Event()
    wrong = []

    def read():
        while not stop.is_set():
            at = random.randrange(0, SIZE // BYTES) * BYTES
            if disks_read(snap.path, at, BYTES) != volume.content[at:at + BYTES]:
                wrong.append(at)

    def reload():
        while not stop.is_set():
            snap.device.reload(snap.line())

    threads = [threading.Thread(target=work) for work in (read, reload)]
    for thread in threads:
        thread.start()
    write(volume, range(0, 16 * MIB, 64 << 10), 64 << 10)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    check(volume, snap)


def disks_read(path, offset, size):
    """As disks.read(), whose buffers are not for threads, through the page cache, which is dropped."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, offset, size, os.POSIX_FADV_DONTNEED)
        return os.pread(fd, size, offset)
    finally:
        os.close(fd)

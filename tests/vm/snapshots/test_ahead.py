# SPDX-License-Identifier: GPL-2.0-only
"""Chunks that are copied ahead of those who write to an origin in sequence."""

import os
import random
import threading

import cow
import disks
import module
import pytest

pytestmark = pytest.mark.rust_core
GUEST = "snapshots"
CHUNK = 32
BYTES = CHUNK * 512
MIB = 1 << 20
SIZE = 24 * MIB


def stats(device):
    return {name: int(value) for name, value in (line.split(" ") for line in device.message("stats").splitlines())}


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
    assert found["origin_ahead_used"] > 8 * MIB // 512
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

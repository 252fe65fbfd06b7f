# SPDX-License-Identifier: GPL-2.0-only
"""COW devices of every size, filled to the last chunk and over: each holds as many exceptions as there is room for, not
one of them is lost, and the origin does not notice the end."""

import errno
import random

import cow
import disks
import pytest
from conftest import STORE

CPUS = 1
BYTES = 512
BLOCKS = 320
LAYOUT = cow.Layout(1)
BATCH = 64
PARTS = [range(2, 101), range(101, 201), range(201, 301)]


def room(chunks):
    """Exceptions that fit a COW device of so many chunks."""
    data = [chunk for chunk in range(2, chunks) if not LAYOUT.is_metadata(chunk)]
    if LAYOUT.is_metadata(chunks) and data:
        # the last one would fill an area, and there is no room for the next, in which the list would have to end
        data.pop()
    return len(data)


def sizes(part):
    # where the next area has no room, the C store loses the snapshot: test_overflow.py has these for ours
    return [chunks for chunks in part if STORE == "rust" or not LAYOUT.is_metadata(chunks)]


def fill(aio, path, rng, blocks):
    """Writes blocks, many at a time; returns what was written where."""
    written = []
    for start in range(0, len(blocks), BATCH):
        batch = [(path, block * BYTES, rng.randbytes(BYTES)) for block in blocks[start:start + BATCH]]
        assert aio.write(batch) == [BYTES] * len(batch)
        written += batch
    aio.release()
    return written


class Filled:
    """A snapshot on a COW device of `chunks`, filled by writes to one side."""

    def __init__(self, volume, device, aio, rng, chunks, side, options):
        device.resize(chunks * BYTES)
        device.write(0, bytes(device.size))
        self.volume, self.device, self.room = volume, device, room(chunks)
        self.now = disks.read(volume.path)
        self.then = bytearray(self.now)
        self.snap = volume.snapshot(device, 1, options)
        path, content = (volume.path, self.now) if side == "origin" else (self.snap.path, self.then)
        self.blocks = rng.sample(range(BLOCKS), self.room + 1)
        for _, at, data in fill(aio, path, rng, self.blocks[:-1]):
            content[at:at + BYTES] = data

    def check_full(self):
        following = self.room // LAYOUT.per_area + self.room + 2
        assert self.snap.usage()[0] == following, self.snap.status()
        self.check()

    def check(self):
        assert disks.first_difference(disks.read(self.snap.path), self.then) is None, "the snapshot"

    def check_origin(self):
        assert disks.first_difference(disks.read(self.volume.path), self.now) is None, "the origin"

    def records(self, valid):
        """Removes the snapshot; what it leaves holds all that there was room for."""
        self.volume.drop(self.snap)
        self.volume.snapshots.clear()
        left = cow.Cow(self.device.read())
        assert left.valid == valid
        assert {old for old, _ in left.check()} == set(self.blocks[:-1])


@pytest.fixture
def filled(origin, disk, writer):
    """filled(seed, ...) makes one after the other on the same devices."""
    volume, device, aio = origin(BLOCKS * BYTES), disk(512 * BYTES), writer(BATCH, BYTES)
    return lambda *arguments: Filled(volume, device, aio, *arguments)


def each(part):
    for chunks in sizes(part):
        yield chunks, random.Random(f"enospc {chunks}")


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_the_origin_is_written(filled, part):
    for chunks, rng in each(part):
        try:
            one = filled(rng, chunks, "origin", "P")
            one.check_full()
            at = one.blocks[-1] * BYTES
            disks.write(one.volume.path, at, b"\x22" * BYTES)
            one.now[at:at + BYTES] = b"\x22" * BYTES
            assert one.snap.status() == "Invalid"
            one.check_origin()
            one.records(valid=0)
        except Exception as e:
            raise AssertionError(f"a COW device of {chunks} chunks: {e}") from e


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_the_snapshot_is_written(filled, part):
    for chunks, rng in each(part):
        try:
            one = filled(rng, chunks, "snapshot", "PO")
            one.check_full()
            with pytest.raises(OSError) as refusal:
                disks.write(one.snap.path, one.blocks[-1] * BYTES, b"\x22" * BYTES)
            assert refusal.value.errno == errno.EIO
            assert one.snap.status() == "Overflow"
            one.check()
            one.check_origin()
            one.records(valid=1)
        except Exception as e:
            raise AssertionError(f"a COW device of {chunks} chunks: {e}") from e

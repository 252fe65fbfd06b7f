# SPDX-License-Identifier: GPL-2.0-only
"""A snapshot reads what its origin was when it was made, whatever is written to either of them, with every chunk size;
and still does after both were deactivated."""

import os
import random

import cow
import disks
import pytest

WRITES = 20_480
DEPTH = 64
BLOCK = 4096


class Model:
    """Random writes to both sides, many in flight, and what the two must then read."""

    def __init__(self, writer, volume, snapshot, seed):
        self.random = random.Random(seed)
        self.noise = os.urandom(1 << 20)
        self.writer = writer
        self.volume, self.snapshot = volume, snapshot
        self.origin_content = bytearray(volume.content)
        self.snapshot_content = bytearray(volume.content)
        self.writes = 0

    def batch(self):
        """Half of the writes go to the origin and half to the snapshot, at the same time; often to the same chunk."""
        blocks = len(self.origin_content) // BLOCK
        chosen = self.random.sample(range(blocks), DEPTH // 2)
        writes = []
        for path, content, which in ((self.volume.path, self.origin_content, chosen),
                                     (self.snapshot.path, self.snapshot_content, chosen)):
            for block in which:
                if self.random.random() < 0.5:
                    # another block than the other side's
                    block = self.random.randrange(blocks)
                size = self.random.choice((512, 1024, 4096))
                offset = block * BLOCK + self.random.randrange((BLOCK - size) // 512 + 1) * 512
                start = self.random.randrange(len(self.noise) - size)
                writes.append((path, content, offset, size, start))
        # two writes to one block of one side at the same time have no defined outcome
        once = {(path, offset // BLOCK): write for write in writes for path, offset in [(write[0], write[2])]}
        batch = []
        for path, content, offset, size, start in once.values():
            data = self.noise[start:start + size]
            content[offset:offset + size] = data
            batch.append((path, offset, data))
        for (_, _, data), result in zip(batch, self.writer.write(batch)):
            assert result == len(data)
        self.writes += len(batch)

    def verify(self):
        assert disks.first_difference(disks.read(self.volume.path), self.origin_content) is None, "the origin"
        assert disks.first_difference(disks.read(self.snapshot.path), self.snapshot_content) is None, "the snapshot"


@pytest.mark.parametrize("chunk,megabytes", [(8, 12), (32, 16), (1024, 32), (2048, 64)],
                         ids=["4KiB", "16KiB", "512KiB", "1MiB"])
def test_snapshot_keeps_content_under_random_writes_to_both_sides(snapshot, writer, chunk, megabytes):
    size = megabytes << 20
    volume, snap = snapshot(size, size * 5 // 4 + (8 << 20), chunk)
    model = Model(writer(DEPTH, BLOCK), volume, snap, chunk)
    while model.writes < WRITES:
        model.batch()
    model.verify()
    assert snap.usage()[0] > chunk * 2
    model.writer.release()
    volume.deactivate()

    # each chunk that was written is there once, and nothing else is
    found = cow.Cow(snap.cow.read())
    assert found.valid == 1 and found.sectors == chunk
    found.check()

    volume.activate()
    model.verify()
    for _ in range(10):
        model.batch()
    model.verify()


def test_last_chunk_of_an_origin_that_ends_within_it(snapshot):
    """The origin's size is no multiple of the chunk size."""
    volume, snap = snapshot((1 << 20) + 512 * 5, 4 << 20, 32)
    last = len(volume.content) - 512
    disks.write(volume.path, last, bytes(512))
    assert disks.read(snap.path) == volume.content
    disks.write(snap.path, last - 512, b"\x55" * 512)
    volume.deactivate()
    volume.activate()
    expected = bytearray(volume.content)
    expected[last - 512:last] = b"\x55" * 512
    assert disks.read(snap.path) == expected
    assert disks.read(volume.path) == volume.content[:last] + bytes(512)


def test_content_with_4096_byte_sectors(origin, disk):
    volume = origin(4 << 20, block=4096)
    snap = volume.snapshot(disk(8 << 20, block=4096), 8)
    expected = bytearray(volume.content)
    for block in range(0, 1024, 3):
        disks.write(volume.path, block * 4096, bytes(4096))
        expected[block * 4096:block * 4096 + 4096] = bytes(4096)
    assert disks.read(snap.path) == volume.content
    assert disks.read(volume.path) == expected
    volume.deactivate()
    assert len(cow.Cow(snap.cow.read()).check()) == 342

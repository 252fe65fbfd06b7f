# SPDX-License-Identifier: GPL-2.0-only
"""A COW device that the C store wrote goes on in this one, and the reverse, at any point of a fill; so does a merge."""

import random

import cow
import disks
import merge
import module
import pytest

GUEST = "snapshots"
STORES = ["rust"]
CHUNK = 8
BYTES = CHUNK * 512
PER_AREA = BYTES // 16
CHUNKS = 1024

pytestmark = pytest.mark.rust_only


@pytest.fixture(autouse=True)
def rust_again():
    yield
    module.use("rust")


class Swapped:
    """A volume that goes from store to store."""

    def __init__(self, volume, snap, writer):
        self.volume, self.snap, self.writer = volume, snap, writer
        self.olds = random.Random(9).sample(range(CHUNKS), CHUNKS)
        self.done = 0

    def fill(self, count, one_by_one=False):
        batch = [(self.volume.path, old * BYTES, b"\x11" * 512) for old in self.olds[self.done:count]]
        step = 1 if one_by_one else 64
        for start in range(0, len(batch), step):
            part = batch[start:start + step]
            assert self.writer.write(part) == [512] * len(part)
        self.writer.release()
        self.done = count

    def swap(self, store):
        """Deactivates, checks what is on disk, and activates with the other store."""
        self.volume.deactivate()
        records = cow.Cow(self.snap.cow.read()).check()
        assert len(records) == self.done
        module.use(store)
        self.volume.activate()
        assert module.serves() == (store == "rust"), "the snapshot is the other store's"

    def verify(self):
        assert disks.first_difference(disks.read(self.snap.path), self.volume.content) is None
        layout = cow.Layout(CHUNK)
        allocated, metadata = layout.usage(self.done)
        assert self.snap.usage() == (allocated, self.snap.cow.sectors, metadata)


@pytest.mark.parametrize("points", [
    [1, 2, 3], [100, 200, 300], [PER_AREA - 1, PER_AREA, PER_AREA + 1], [PER_AREA, 2 * PER_AREA, 3 * PER_AREA],
    [PER_AREA - 1, 2 * PER_AREA + 1, 3 * PER_AREA - 1, CHUNKS - 3]], ids=lambda points: "-".join(map(str, points)))
@pytest.mark.parametrize("first", ["rust", "c"])
def test_stores_take_turns_in_the_middle_of_a_fill(origin, disk, writer, first, points):
    stores = [first, "c" if first == "rust" else "rust"]
    module.use(first)
    volume = origin(CHUNKS * BYTES)
    device = disk((CHUNKS + 16) * BYTES)
    # what the device held before must not be taken for records by either
    device.write(512, b"\xa5" * (device.size - 512))
    swapped = Swapped(volume, volume.snapshot(device, CHUNK), writer(64, 512))
    for n, point in enumerate(points):
        swapped.fill(point, one_by_one=point - swapped.done < 40)
        swapped.verify()
        swapped.swap(stores[(n + 1) % 2])
        swapped.verify()
    swapped.fill(CHUNKS - 1)
    swapped.verify()
    volume.deactivate()


@pytest.mark.parametrize("chunk", [1, 64, 2048])
def test_other_chunk_sizes(origin, disk, writer, chunk):
    size = chunk * 512
    module.use("c")
    volume = origin(max(48 * size, 96 * 4096))
    snap = volume.snapshot(disk(64 * size + len(volume.content) * 2), chunk)
    expected = bytearray(volume.content)
    for n, store in enumerate(("rust", "c", "rust", "c")):
        for at in range(n, 40, 4):
            disks.write(volume.path, at * size, bytes(512))
            disks.write(snap.path, at * size, b"\x33" * 512)
            expected[at * size:at * size + 512] = b"\x33" * 512
        volume.deactivate()
        module.use(store)
        volume.activate()
        assert disks.first_difference(disks.read(snap.path), expected) is None
    volume.deactivate()


@pytest.mark.parametrize("first,then", [("rust", "c"), ("c", "rust")])
def test_one_stores_invalid_snapshot_is_the_others(origin, disk, first, then):
    module.use(first)
    volume = origin(64 * BYTES)
    snap = volume.snapshot(disk(8 * BYTES), CHUNK)
    for chunk in range(16):
        disks.write(volume.path, chunk * BYTES, b"\x11" * BYTES)
    assert snap.status() == "Invalid"
    volume.deactivate()
    module.use(then)
    volume.activate()
    assert snap.status() == "Invalid"
    volume.deactivate()


@pytest.mark.parametrize("first,then", [("rust", "c"), ("c", "rust")])
def test_one_store_finishes_the_others_merge(origin, disk, writer, first, then):
    module.use(first)
    volume = origin(CHUNKS * BYTES)
    snap = volume.snapshot(disk((CHUNKS + 16) * BYTES), CHUNK)
    aio = writer(64, 512)
    for start in range(0, CHUNKS, 64):
        chunks = range(CHUNKS - 1 - start, CHUNKS - 65 - start, -1)
        batch = [(volume.path, chunk * BYTES, b"\x11" * 512) for chunk in chunks]
        assert aio.write(batch) == [512] * 64
    aio.release()
    total = snap.usage()[0]
    volume.drop(snap)
    volume.merge(snap)
    merge.wait_below(volume, total * 3 // 4)
    volume.device.remove()
    volume.device = None
    left = len(cow.Cow(snap.cow.read()).check())
    assert 0 < left < CHUNKS, "the merge was not in the middle"
    module.use(then)
    merge.activate(volume, snap)
    assert disks.first_difference(disks.read(volume.path), volume.content) is None
    merge.wait_done(volume)
    volume.device.remove()
    volume.device = None
    assert cow.Cow(snap.cow.read()).check() == []
    assert snap.origin.read() == volume.content
    volume.snapshots.clear()

# SPDX-License-Identifier: GPL-2.0-only
"""What is on the COW device, byte for byte, after writes; and that a list with holes or out of order is understood."""

import random

import cow
import disks
import merge
import pytest

GUEST = "loading"
CPUS = 1
CHUNK = 8
BYTES = CHUNK * 512
PER_AREA = BYTES // 16
GARBAGE = 0xa5


@pytest.fixture
def garbage_cow(disk):
    """A COW device full of garbage behind a magic of zero."""
    def make(size):
        device = disk(size)
        device.write(0, bytes(4) + bytes([GARBAGE]) * (size - 4))
        return device
    return make


def check(volume, snap, olds):
    """The COW device records exactly `olds` in this order, with their old content."""
    found = cow.Cow(snap.cow.read())
    assert (found.valid, found.sectors) == (1, CHUNK)
    assert found.check() == list(zip(olds, found.layout.data_chunks(len(olds))))
    for old, new in found.records():
        assert found.chunk(new) == volume.content[old * BYTES:(old + 1) * BYTES], f"the copy of chunk {old}"
    return found


@pytest.mark.parametrize("count", [1, PER_AREA - 1, PER_AREA, PER_AREA + 1, 2 * PER_AREA, 3 * PER_AREA + 7])
def test_records_and_copies_are_where_the_format_says(snapshot, garbage_cow, count):
    chunks = 1024
    volume, snap = snapshot(chunks * BYTES, 0, CHUNK, cow=garbage_cow((chunks + 16) * BYTES))
    olds = random.Random(count).sample(range(chunks), count)
    for old in olds:
        # a part of a chunk has the whole chunk copied
        disks.write(volume.path, old * BYTES + 512, b"\x11" * 512)
    layout = cow.Layout(CHUNK)
    allocated, metadata = layout.usage(count)
    assert snap.usage() == (allocated, snap.cow.sectors, metadata)
    volume.deactivate()
    found = check(volume, snap, olds)
    # what no record leads to was not written
    last = found.layout.data_chunks(count + 2)[-1]
    assert found.data[(last + 1) * BYTES:] == bytes([GARBAGE]) * (len(found.data) - (last + 1) * BYTES)


def test_an_area_is_zero_before_the_one_before_it_is_full(snapshot, garbage_cow):
    volume, snap = snapshot(300 * BYTES, 0, CHUNK, cow=garbage_cow(600 * BYTES))
    for old in range(PER_AREA):
        disks.write(volume.path, old * BYTES, bytes(512))
    # while the snapshot is live, and without waiting for anything
    data = snap.cow.read()
    found = cow.Cow(data)
    assert found.area(1) == bytes(BYTES)
    assert len(found.records()) == PER_AREA


def test_a_write_is_recorded_before_it_returns(snapshot):
    """A crash right after must find the record; so each is on the COW device by then."""
    volume, snap = snapshot(64 * BYTES, 128 * BYTES, CHUNK)
    for count, old in enumerate((5, 3, 60, 0), 1):
        disks.write(volume.path, old * BYTES, bytes(512))
        found = cow.Cow(snap.cow.read())
        assert len(found.check()) == count and found.records()[-1][0] == old


def test_writes_to_the_snapshot_are_recorded_with_what_was_written(snapshot, garbage_cow):
    volume, snap = snapshot(64 * BYTES, 0, CHUNK, cow=garbage_cow(128 * BYTES))
    disks.write(snap.path, 7 * BYTES, b"\x22" * BYTES)
    disks.write(snap.path, 9 * BYTES + 1024, b"\x33" * 512)
    disks.write(snap.path, 7 * BYTES, b"\x44" * 512)
    volume.deactivate()
    found = cow.Cow(snap.cow.read())
    assert found.check() == [(7, 2), (9, 3)]
    assert found.chunk(2) == b"\x44" * 512 + b"\x22" * (BYTES - 512)
    expected = bytearray(volume.content[9 * BYTES:10 * BYTES])
    expected[1024:1536] = b"\x33" * 512
    assert found.chunk(3) == expected


def test_many_writes_in_flight_are_all_recorded(snapshot, garbage_cow, writer):
    chunks = 1024
    volume, snap = snapshot(chunks * BYTES, 0, CHUNK, cow=garbage_cow((chunks + 16) * BYTES))
    aio = writer(128, 512)
    olds = random.Random(1).sample(range(chunks), chunks)
    for start in range(0, chunks, 128):
        batch = [(volume.path, old * BYTES, b"\x11" * 512) for old in olds[start:start + 128]]
        assert aio.write(batch) == [512] * 128
    aio.release()
    assert disks.read(snap.path) == volume.content
    volume.deactivate()
    found = cow.Cow(snap.cow.read())
    records = found.check()
    assert sorted(old for old, _ in records) == list(range(chunks))
    assert sorted(new for _, new in records) == found.layout.data_chunks(chunks)
    for old, new in records:
        assert found.chunk(new) == volume.content[old * BYTES:(old + 1) * BYTES]


def image(pairs, chunks=1200):
    made = cow.Image(CHUNK, chunks * BYTES, fill=GARBAGE)
    made.records(pairs)
    for old, new in pairs:
        made.chunk(new, (b"%16d" % old) * (BYTES // 16))
    return made


def shuffled(count, skip=0):
    """Records as they stand after a crash: new chunks out of order, some never committed."""
    rng = random.Random(count)
    news = cow.Layout(CHUNK).data_chunks(count + skip)
    for start in range(0, len(news), 16):
        part = news[start:start + 16]
        rng.shuffle(part)
        news[start:start + 16] = part
    for _ in range(skip):
        news.pop(rng.randrange(len(news)))
    return list(zip(rng.sample(range(1024), count), news))


def between():
    """Records that come to lie between two others, which they make one run of."""
    return [(old + n, 2 + old + n) for old in range(0, 240, 3) for n in (0, 2, 1)]


@pytest.mark.parametrize("pairs", [
    [], [(5, 2)], [(5, 9)], [(1, 3), (2, 2)], [(9, 300), (8, 2), (7, 299)], shuffled(PER_AREA), shuffled(700),
    shuffled(600, skip=90), between()],
    ids=["empty", "one", "skipped", "swapped", "far", "full-area", "shuffled", "holes", "between"])
def test_a_list_in_any_order_is_loaded_continued_and_merged(snapshot, disk, pairs):
    device = disk(1200 * BYTES)
    made = image(pairs)
    device.write(0, made.data)
    volume, snap = snapshot(1024 * BYTES, 0, CHUNK, cow=device)
    expected = bytearray(volume.content)
    for old, new in pairs:
        expected[old * BYTES:(old + 1) * BYTES] = (b"%16d" % old) * (BYTES // 16)
    assert disks.first_difference(disks.read(snap.path), expected) is None
    highest = max((new for _, new in pairs), default=1)
    layout = cow.Layout(CHUNK)
    following = highest + 1 + layout.is_metadata(highest + 1)
    metadata = (len(pairs) // PER_AREA + 2) * CHUNK
    assert snap.usage() == (following * CHUNK, device.sectors, metadata)

    # more exceptions go above all that are there
    used = {old for old, _ in pairs}
    more = [old for old in range(1024) if old not in used][:40]
    for old in more:
        disks.write(volume.path, old * BYTES, b"\x11" * 512)
    assert disks.first_difference(disks.read(snap.path), expected) is None
    volume.deactivate()
    records = cow.Cow(device.read()).check()
    assert records[:len(pairs)] == pairs
    assert [old for old, _ in records[len(pairs):]] == more
    assert [new for _, new in records[len(pairs):]] == [
        chunk for chunk in range(following, following + 50) if not layout.is_metadata(chunk)][:40]
    volume.activate()
    assert disks.first_difference(disks.read(snap.path), expected) is None
    # dm-snapshot removes an exception from an end of its run only
    volume.drop(snap)
    volume.merge(snap)
    merge.wait_done(volume)
    assert disks.first_difference(disks.read(volume.path), expected) is None
    volume.deactivate()
    assert cow.Cow(device.read()).records() == []
    volume.snapshots.clear()


def test_a_cow_device_that_moves_to_a_disk_with_larger_blocks(snapshot, disk, devices):
    """As pvmove can have it: records and, in the end, the header are written in blocks of the new disk."""
    device = disks.Mapped(disk(32 * BYTES), devices("cow"))
    volume, snap = snapshot(64 * BYTES, 0, CHUNK, cow=device)
    disks.write(volume.path, 0, b"\x11" * 512)
    larger = disk(32 * BYTES, 4096, device.disk)
    device.device.reload([(0, device.sectors, "linear", f"{larger.path} 0")])
    for old in range(1, 20):
        disks.write(volume.path, old * BYTES, b"\x11" * 512)
    assert disks.first_difference(disks.read(snap.path), volume.content) is None
    assert [old for old, _ in cow.Cow(larger.read()).check()] == list(range(20))
    for old in range(20, 40):
        disks.write(volume.path, old * BYTES, b"\x11" * 512)
    assert snap.status() == "Invalid"
    volume.deactivate()
    assert cow.Cow(larger.read()).valid == 0


@pytest.mark.rust_only
@pytest.mark.parametrize("count", [0, 3, 31, 32, 200, PER_AREA - 2])
def test_what_stands_after_the_end_of_the_list_never_comes_to_life(snapshot, disk, count):
    """A torn write may leave records behind the end; adding one more must not join the two."""
    pairs = list(zip(range(count), cow.Layout(CHUNK).data_chunks(count)))
    made = image(pairs)
    for number in range(count + 1, PER_AREA):
        made.record(number, 900, 700 + number)
    device = disk(1200 * BYTES)
    device.write(0, made.data)
    volume, snap = snapshot(1024 * BYTES, 0, CHUNK, cow=device)
    expected = disks.read(snap.path)
    assert expected[900 * BYTES:901 * BYTES] == volume.content[900 * BYTES:901 * BYTES]
    disks.write(volume.path, 500 * BYTES, b"\x11" * 512)
    volume.deactivate()
    found = cow.Cow(device.read())
    assert found.check() == pairs + [(500, found.layout.data_chunks(count + 1)[-1])]
    volume.activate()
    assert disks.read(snap.path) == expected

# SPDX-License-Identifier: GPL-2.0-only
"""A COW device that is full: the snapshot becomes Invalid, or Overflow if userspace asked for it, on disk as well; the
origin never notices."""

import errno

import cow
import disks
import pytest

GUEST = "snapshots"
CHUNK = 8
BYTES = CHUNK * 512
CHUNKS = 128
ROOM = 40  # exceptions that the COW device has room for


@pytest.fixture
def small(snapshot):
    def make(options="P", room=ROOM):
        return snapshot(CHUNKS * BYTES, (2 + room) * BYTES, CHUNK, options)
    return make


def fill(path, first, count, value=0x11):
    for chunk in range(first, first + count):
        disks.write(path, chunk * BYTES, bytes([value]) * BYTES)


def flag(snap):
    return cow.HEADER.unpack(snap.cow.read(0, 16))[1]


def check_header(snap, valid):
    assert cow.HEADER.unpack(snap.cow.read(0, 16)) == (cow.MAGIC, valid, 1, CHUNK)


def test_every_chunk_is_used_before_the_snapshot_overflows(small):
    volume, snap = small()
    fill(volume.path, 0, ROOM)
    assert snap.usage() == ((2 + ROOM) * CHUNK, (2 + ROOM) * CHUNK, 2 * CHUNK)
    assert disks.read(snap.path) == volume.content
    check_header(snap, 1)
    fill(volume.path, ROOM, 1)
    assert snap.status() == "Invalid"
    check_header(snap, 0)


@pytest.mark.parametrize("options", ["P", "PO"])
def test_overflow_by_the_origin_invalidates_the_snapshot_and_leaves_the_origin_alone(small, options):
    volume, snap = small(options)
    fill(volume.path, 0, CHUNKS - 8)
    assert snap.status() == "Invalid"
    expected = b"\x11" * ((CHUNKS - 8) * BYTES) + volume.content[(CHUNKS - 8) * BYTES:]
    assert disks.read(volume.path) == expected
    with pytest.raises(OSError) as refusal:
        disks.read(snap.path, 0, 4096)
    assert refusal.value.errno == errno.EIO
    with pytest.raises(OSError):
        disks.write(snap.path, 0, bytes(512))
    fill(volume.path, 0, CHUNKS, 0x22)
    assert disks.read(volume.path) == b"\x22" * (CHUNKS * BYTES)
    check_header(snap, 0)

    volume.deactivate()
    volume.activate()
    assert snap.status() == "Invalid"
    assert disks.read(volume.path) == b"\x22" * (CHUNKS * BYTES)
    check_header(snap, 0)


def test_overflow_by_the_snapshot_invalidates_it(small):
    volume, snap = small("P")
    with pytest.raises(OSError) as refusal:
        fill(snap.path, 0, CHUNKS)
    assert refusal.value.errno == errno.EIO
    assert snap.status() == "Invalid"
    assert disks.read(volume.path) == volume.content
    check_header(snap, 0)


def test_overflow_by_the_snapshot_is_survived_if_userspace_asked_for_it(small):
    volume, snap = small("PO")
    with pytest.raises(OSError):
        fill(snap.path, 0, CHUNKS)
    assert snap.status() == "Overflow"
    check_header(snap, 1)
    # what it has, it keeps
    expected = b"\x11" * (ROOM * BYTES) + volume.content[ROOM * BYTES:]
    assert disks.read(snap.path) == expected
    volume.deactivate()
    volume.activate()
    assert snap.usage()[0] == (2 + ROOM) * CHUNK
    assert disks.read(snap.path) == expected
    assert disks.read(volume.path) == volume.content


def test_an_overflow_with_many_writes_in_flight(small, writer):
    volume, snap = small()
    aio = writer(64, BYTES)
    for first in (0, 64):
        batch = [(volume.path, chunk * BYTES, b"\x11" * BYTES) for chunk in range(first, first + 64)]
        assert aio.write(batch) == [BYTES] * 64
    aio.release()
    assert snap.status() == "Invalid"
    assert disks.read(volume.path) == b"\x11" * (CHUNKS * BYTES)
    check_header(snap, 0)
    volume.deactivate()
    records = cow.Cow(snap.cow.read()).records()
    assert len(records) <= ROOM and all(old < CHUNKS and 2 <= new < 2 + ROOM for old, new in records)


def test_other_snapshots_of_the_origin_live_on(origin, disk):
    volume = origin(CHUNKS * BYTES)
    small = volume.snapshot(disk((2 + ROOM) * BYTES), CHUNK)
    large = volume.snapshot(disk(2 * CHUNKS * BYTES), CHUNK)
    fill(volume.path, 0, CHUNKS)
    assert small.status() == "Invalid"
    assert disks.read(large.path) == volume.content


@pytest.mark.rust_only
@pytest.mark.parametrize("room", [255, 256])
def test_a_full_area_at_the_end_of_the_device_costs_no_snapshot(snapshot, room):
    """The record that fills an area needs the next area to end the list: where there is no room for one, the last
    chunk stays unused, and the snapshot is full one exception earlier, not broken."""
    volume, snap = snapshot(300 * BYTES, (2 + room) * BYTES, CHUNK, "PO")
    with pytest.raises(OSError):
        fill(snap.path, 0, 300)
    assert snap.status() == "Overflow"
    check_header(snap, 1)
    expected = b"\x11" * (255 * BYTES) + volume.content[255 * BYTES:]
    assert disks.read(snap.path) == expected
    volume.deactivate()
    assert len(cow.Cow(snap.cow.read()).check()) == 255
    volume.activate()
    assert disks.read(snap.path) == expected

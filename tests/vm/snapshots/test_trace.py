# SPDX-License-Identifier: GPL-2.0-only
"""The targets' events below tracefs, against what is on the COW devices and what the devices are called."""

import os

import cow
import disks
import merge
import pytest
import tracing

CORES = ["rust"]
GUEST = "snapshots"
CHUNK = 8
BYTES = CHUNK * 512
EVENTS = {"snap_exception_start", "snap_copied", "snap_durable", "snap_merge_batch", "snap_overflow", "snap_drop"}


def fields(text):
    pairs = (field.split("=") for field in text.split())
    return {name: value if ":" in value else int(value) for name, value in pairs}


@pytest.fixture
def events():
    """Called, gives the events since the last call, each a dictionary of its fields."""
    events = tracing.Events("dm_snapshot")
    yield lambda: [{"event": event, **fields(text)} for event, text in events.take()]
    events.close()


def devices(volume, snap):
    return {"origin": volume.disk.number, "cow": snap.cow.number}


def test_which_there_are(events):
    assert events() == []
    found = set(os.listdir(f"{tracing.ROOT}/events/dm_snapshot"))
    assert found - {"enable", "filter"} == EVENTS


def test_an_exception_from_its_beginning_to_its_record(events, origin, disk):
    volume = origin(256 * BYTES)
    snaps = [volume.snapshot(disk(300 * BYTES), CHUNK) for _ in range(2)]
    assert events() == []
    disks.write(volume.path, 3 * BYTES, b"\x11" * 512)
    disks.write(volume.path, 100 * BYTES, b"\x11" * 4 * BYTES)
    found = events()
    for snap in snaps:
        both = devices(volume, snap)
        one, many = {"old": 3, "new": 2, "chunks": 1}, {"old": 100, "new": 3, "chunks": 4}
        assert [event for event in found if event["cow"] == snap.cow.number] == [
            {"event": "snap_exception_start", **both, **one, "sectors": CHUNK},
            {"event": "snap_copied", **both, **one, "good": 1},
            {"event": "snap_durable", **both, **one, "good": 1},
            {"event": "snap_exception_start", **both, **many, "sectors": 4 * CHUNK},
            {"event": "snap_copied", **both, **many, "good": 1},
            {"event": "snap_durable", **both, **many, "good": 1},
        ]
        records = [(old, new) for old, new in cow.Cow(snap.cow.read()).check()]
        assert records == [(3, 2)] + [(100 + n, 3 + n) for n in range(4)]
    assert len(found) == 12
    # covered writes and reads begin nothing
    disks.write(volume.path, 3 * BYTES, b"\x22" * BYTES)
    disks.read(snaps[0].path)
    assert events() == []


def test_whole_chunks_are_not_copied(events, snapshot):
    volume, snap = snapshot(256 * BYTES, 300 * BYTES, CHUNK)
    disks.write(snap.path, 7 * BYTES, b"\x11" * 2 * BYTES)
    chunks = {**devices(volume, snap), "old": 7, "new": 2, "chunks": 2}
    assert events() == [
        {"event": "snap_exception_start", **chunks, "sectors": 0},
        {"event": "snap_copied", **chunks, "good": 1},
        {"event": "snap_durable", **chunks, "good": 1},
    ]


def test_a_merge(events, snapshot):
    volume, snap = snapshot(256 * BYTES, 300 * BYTES, CHUNK)
    for chunk in range(0, 200, 2):
        disks.write(volume.path, chunk * BYTES, b"\x11" * 512)
    events()
    both = devices(volume, snap)
    volume.drop(snap)
    volume.merge(snap)
    merge.wait_done(volume)
    found = events()
    assert found and sum(event["exceptions"] for event in found) == 100
    for event in found:
        assert event == {"event": "snap_merge_batch", **both, "exceptions": event["exceptions"], "good": 1}
    volume.snapshots.clear()


@pytest.mark.parametrize("kept", [False, True])
def test_one_that_is_full(events, snapshot, kept):
    volume, snap = snapshot(256 * BYTES, 20 * BYTES, CHUNK)
    if kept:
        snap.device.message("overflow keep")
    for chunk in range(30):
        try:
            disks.write(volume.path, chunk * BYTES, b"\x11" * 512)
        except OSError:
            assert kept
    both = devices(volume, snap)
    expected = [{"event": "snap_overflow", **both, "sectors": 20 * CHUNK, "kept": int(kept)}]
    if not kept:
        expected.append({"event": "snap_drop", **both, "full": 1})
    assert [event for event in events() if event["event"] in ("snap_overflow", "snap_drop")] == expected


def test_one_that_cannot_be_written(events, origin, mapped):
    volume = origin(64 * BYTES)
    device = mapped("failing", 64 * BYTES)
    device.number = f"{os.major(os.stat(device.path).st_rdev)}:{os.minor(os.stat(device.path).st_rdev)}"
    snap = volume.snapshot(device, CHUNK)
    events()
    device.fail(first=CHUNK)
    disks.write(volume.path, 0, b"\x11" * 512)
    chunk = {**devices(volume, snap), "old": 0, "new": 2, "chunks": 1}
    assert events() == [
        {"event": "snap_exception_start", **chunk, "sectors": CHUNK},
        {"event": "snap_copied", **chunk, "good": 0},
        {"event": "snap_durable", **chunk, "good": 0},
        {"event": "snap_drop", **devices(volume, snap), "full": 0},
    ]
    volume.deactivate()

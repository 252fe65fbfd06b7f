# SPDX-License-Identifier: GPL-2.0-only
"""A snapshot that is to be kept when its COW device is full: nothing of it is lost, and writes to the origin fail that it
has no room for, until there is some."""

import errno
import random

import cow
import disks
import dm
import merge
import pytest

CORES = ["rust"]
GUEST = "snapshots"
CHUNK = 1
BYTES = CHUNK * 512
CHUNKS = 160
LAYOUT = cow.Layout(CHUNK)
PARAMETER = "/sys/module/dm_snapshot/parameters/snapshot_overflow_keep"


def keep(snap):
    assert snap.device.message("overflow keep") == ""


def write(path, chunk, data=b"\x11" * BYTES):
    """The error number, 0 for none."""
    try:
        disks.write(path, chunk * BYTES, data)
    except OSError as e:
        return e.errno
    return 0


def fill(volume, rng, now):
    """Writes chunks of the origin until one is refused; returns those that were written, and that one."""
    written = []
    for chunk in rng.sample(range(CHUNKS), CHUNKS):
        data = rng.randbytes(BYTES)
        error = write(volume.path, chunk, data)
        if error:
            assert error == errno.ENOSPC
            return written, chunk
        now[chunk * BYTES:(chunk + 1) * BYTES] = data
        written.append(chunk)
    raise AssertionError("it was never full")


@pytest.mark.parametrize("part", [range(4, 36), range(36, 68), range(68, 100)])
def test_at_every_size(origin, disk, part):
    volume, device = origin(CHUNKS * BYTES), disk(2 * CHUNKS * BYTES)
    volume.activate()
    for chunks in part:
        rng = random.Random(f"keep {chunks}")
        device.resize(chunks * BYTES)
        device.write(0, bytes(device.size))
        snap = volume.snapshot(device, CHUNK)
        keep(snap)
        then, now = disks.read(volume.path), disks.read(volume.path)
        written, refused = fill(volume, rng, now)
        room = [chunk for chunk in range(2, chunks) if not LAYOUT.is_metadata(chunk)]
        assert len(written) == len(room) - LAYOUT.is_metadata(chunks) * bool(room)
        assert snap.status() == "Overflow"
        # nothing is lost, what is covered can be written, the rest cannot
        assert write(volume.path, written[-1], b"\x22" * BYTES) == 0
        now[written[-1] * BYTES:(written[-1] + 1) * BYTES] = b"\x22" * BYTES
        assert write(volume.path, refused) == errno.ENOSPC
        assert write(snap.path, refused) != 0
        assert disks.read(snap.path) == then and disks.read(volume.path) == now
        # it is extended
        device.resize((chunks + 8) * BYTES)
        snap.handover()
        assert snap.status() != "Overflow"
        assert write(volume.path, refused, b"\x33" * BYTES) == 0
        now[refused * BYTES:(refused + 1) * BYTES] = b"\x33" * BYTES
        assert disks.read(snap.path) == then and disks.read(volume.path) == now
        volume.drop(snap)
        volume.snapshots.clear()
        found = cow.Cow(device.read())
        assert found.valid and {old for old, _ in found.check()} == {*written, refused}


def full(volume, disk, rng, now):
    snap = volume.snapshot(disk(60 * BYTES), CHUNK)
    keep(snap)
    written, refused = fill(volume, rng, now)
    return snap, written, refused


def test_the_policy_after_a_reboot_is_the_default(origin, disk):
    volume = origin(CHUNKS * BYTES).activate()
    then, now = disks.read(volume.path), disks.read(volume.path)
    snap, _, refused = full(volume, disk, random.Random(1), now)
    volume.deactivate()
    volume.activate()
    assert snap.status() != "Overflow" and disks.read(snap.path) == then
    assert write(volume.path, refused) == 0
    assert snap.status() == "Invalid", "nobody asked for it to be kept"


def test_the_default_can_be_chosen(origin, disk):
    volume = origin(CHUNKS * BYTES).activate()
    with open(PARAMETER, "w") as file:
        file.write("Y")
    try:
        snap = volume.snapshot(disk(60 * BYTES), CHUNK)
    finally:
        with open(PARAMETER, "w") as file:
            file.write("N")
    then, now = disks.read(volume.path), disks.read(volume.path)
    _, refused = fill(volume, random.Random(2), now)
    assert snap.status() == "Overflow" and disks.read(snap.path) == then
    # and changed for one that is there
    snap.device.message("overflow invalidate")
    assert write(volume.path, refused) == 0
    assert snap.status() == "Invalid"


def test_others_and_many_at_a_time(origin, disk, writer):
    """One is kept, one becomes invalid, one has room; requests for many chunks at once."""
    volume = origin(CHUNKS * BYTES).activate()
    then = disks.read(volume.path)
    kept, lost, roomy = (volume.snapshot(disk(size * BYTES), CHUNK) for size in (60, 30, 300))
    keep(kept)
    aio = writer(32, 4 * BYTES)
    results = {}
    for start in range(0, CHUNKS, 128):
        batch = [(volume.path, chunk * BYTES, b"\x44" * 4 * BYTES) for chunk in range(start, min(start + 128, CHUNKS), 4)]
        results |= dict(zip([at for _, at, _ in batch], aio.write(batch)))
    aio.release()
    assert lost.status() == "Invalid" and kept.status() == "Overflow"
    assert set(results.values()) == {4 * BYTES, -errno.ENOSPC}
    now = disks.read(volume.path)
    for at, result in results.items():
        if result == 4 * BYTES:
            assert now[at:at + 4 * BYTES] == b"\x44" * 4 * BYTES
    for snap in kept, roomy:
        assert disks.read(snap.path) == then


def test_a_merge_that_it_has_no_room_for_fails(origin, disk):
    """Merging another snapshot would overwrite what it has not."""
    volume = origin(CHUNKS * BYTES).activate()
    older = volume.snapshot(disk(300 * BYTES), CHUNK)
    for chunk in range(0, 120):
        assert write(volume.path, chunk) == 0
    kept = volume.snapshot(disk(60 * BYTES), CHUNK)
    keep(kept)
    then = disks.read(kept.path)
    volume.drop(older)
    volume.merge(older)
    merge.wait_failed(volume)
    assert kept.status() == "Overflow" and disks.read(kept.path) == then
    # with room it goes on
    kept.cow.resize(300 * BYTES)
    kept.handover()
    content = disks.read(volume.path)
    volume.device.remove()
    merge.activate(volume, older)
    merge.wait_done(volume)
    assert disks.read(kept.path) == then and disks.read(volume.path) == content
    volume.snapshots.remove(older)


def test_words_that_are_not_known(snapshot):
    volume, snap = snapshot(CHUNKS * BYTES, CHUNKS * BYTES, CHUNK)
    for device, text in ((snap.device, "overflow"), (snap.device, "overflow lose"), (volume.device, "overflow keep")):
        with pytest.raises(OSError) as caught:
            device.message(text)
        assert caught.value.errno == errno.EINVAL
    assert dm.names()

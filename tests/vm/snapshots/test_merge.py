# SPDX-License-Identifier: GPL-2.0-only
"""A snapshot is merged back: the origin ends with the snapshot's content, reads as that from the first moment, also
when the merge is interrupted, and dmsetup status ends as userspace waits for it."""

import random
import time

import cow
import disks
import dm
import failing
import merge
import module
import pytest

GUEST = "snapshots"
CHUNK = 8
BYTES = CHUNK * 512
CHUNKS = 6400
SCATTERED, SEQUENTIAL = 1200, 3900


def prepare(snapshot, writer, chunks=CHUNKS, scattered=SCATTERED, sequential=SEQUENTIAL, seed=3, target=None):
    """An origin and a snapshot that differ in scattered chunks and in long runs; and the snapshot's content."""
    volume, snap = snapshot(chunks * BYTES, (chunks + 64) * BYTES, CHUNK, cow=target)
    rng = random.Random(seed)
    aio = writer(64, 512)
    runs = range(chunks - sequential, chunks)
    spots = rng.sample(range(chunks - sequential), scattered)
    # runs and spots by turns, so that the records are a mixture
    olds = []
    for n in range(0, max(len(runs), len(spots)), 128):
        olds += list(runs[n:n + 128]) + spots[n:n + 128]
    content = bytearray(volume.content)
    for start in range(0, len(olds), 64):
        batch = []
        for old in olds[start:start + 64]:
            if old % 5 == 0:
                # the snapshot is written as well, so that it is not just what the origin was
                batch.append((snap.path, old * BYTES + 512, b"\x33" * 512))
                content[old * BYTES + 512:old * BYTES + 1024] = b"\x33" * 512
            else:
                batch.append((volume.path, old * BYTES, b"\x11" * 512))
        assert aio.write(batch) == [512] * len(batch)
    aio.release()
    assert len(set(olds)) == scattered + sequential
    return volume, snap, content


def finish(volume, snap, content):
    merge.wait_done(volume)
    assert disks.first_difference(disks.read(volume.path), content) is None
    volume.deactivate()
    assert disks.first_difference(snap.origin.read(), content) is None, "the origin itself"
    assert cow.Cow(snap.cow.read()).check() == []
    # the merged snapshot is gone, and the origin is an origin again
    volume.snapshots.clear()


def test_merge_of_more_than_5000_chunks_interrupted_again_and_again(snapshot, mapped, writer):
    device = mapped("cow", (CHUNKS + 64) * BYTES)
    volume, snap, content = prepare(snapshot, writer, target=device)
    total = snap.usage()[0]
    assert total > 5000 * CHUNK
    volume.drop(snap)
    # slow enough to be met in the middle; the Rust core copies 64 chunks at a time
    slow = 25 if module.CORE == "rust" else 1
    device.delay(read_ms=slow)
    volume.merge(snap)
    assert volume.device.table()[0][2] == "snapshot-merge"
    left, interrupted = total, 0
    for part in (0.95, 0.8, 0.6, 0.35, 0.1):
        merge.wait_below(volume, total * part)
        volume.device.remove()
        volume.device = None
        found = cow.Cow(snap.cow.read())
        remaining = len(found.check())
        assert remaining < left
        left = remaining
        # all of it is to be read before the merge ends
        device.delay(read_ms=25)
        merge.THROTTLE.write_text("1")
        merge.activate(volume, snap)
        assert disks.first_difference(disks.read(volume.path), content) is None, f"after {part}"
        merge.THROTTLE.write_text("100")
        device.delay(read_ms=slow)
        if not remaining:
            # the kernel with the checkers reads all of it as slowly as it merges, and the Rust core merges it in few batches
            assert module.CORE == "rust" or failing.DEBUGFS.joinpath("kmemleak").exists(), "not interrupted in the middle"
            break
        interrupted += 1
    assert interrupted > 1
    finish(volume, snap, content)


def test_merge_takes_the_snapshot_over_while_it_is_live(snapshot, writer):
    """lvconvert --merge of an active snapshot: exceptions are handed from the snapshot to the merge."""
    volume, snap, content = prepare(snapshot, writer, 512, 100, 300)
    snap.target = "snapshot-merge"
    volume.device.load(snap.line())
    snap.device.suspend()
    volume.device.suspend()
    volume.device.resume()
    snap.device.remove()
    snap.device = None
    finish(volume, snap, content)


def test_writes_while_a_merge_goes_on(snapshot, writer):
    volume, snap, content = prepare(snapshot, writer, 1536, 300, 1000)
    volume.drop(snap)
    volume.merge(snap)
    aio = writer(16, 512)
    rng = random.Random(8)
    written = 0
    while not written or merge.state(volume)[0] != merge.state(volume)[1]:
        batch = []
        for old in rng.sample(range(1536), 16):
            value = bytes([rng.randrange(256)]) * 512
            content[old * BYTES + 1024:old * BYTES + 1536] = value
            batch.append((volume.path, old * BYTES + 1024, value))
        assert aio.write(batch) == [512] * 16
        written += 1
    aio.release()
    assert written > 3
    finish(volume, snap, content)


def test_merge_stops_and_goes_on_across_suspends(snapshot, writer):
    volume, snap, content = prepare(snapshot, writer, 1536, 300, 1000)
    volume.drop(snap)
    volume.merge(snap)
    for _ in range(10):
        volume.device.suspend()
        stopped = merge.state(volume)
        time.sleep(0.02)
        assert merge.state(volume) == stopped
        volume.device.resume()
    finish(volume, snap, content)


def test_merge_feeds_the_origins_other_snapshots(origin, disk, writer):
    """What the merge overwrites, other snapshots of the origin keep."""
    volume = origin(512 * BYTES)
    first = volume.snapshot(disk(1024 * BYTES), CHUNK)
    for chunk in range(0, 300):
        disks.write(volume.path, chunk * BYTES, b"\x11" * 512)
    changed = bytes(disks.read(volume.path))
    second = volume.snapshot(disk(1024 * BYTES), 32)
    volume.drop(first)
    volume.merge(first)
    merge.wait_done(volume)
    assert disks.read(volume.path) == volume.content
    assert disks.read(second.path) == changed


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 512])
def test_merge_of_counts_around_an_area(snapshot, count):
    volume, snap = snapshot(600 * BYTES, 700 * BYTES, CHUNK)
    for chunk in range(count):
        disks.write(volume.path, chunk * BYTES, b"\x11" * 512)
    volume.drop(snap)
    volume.merge(snap)
    finish(volume, snap, volume.content)


def test_status_at_the_end_of_a_merge_is_what_lvm_waits_for(snapshot):
    volume, snap = snapshot(600 * BYTES, 700 * BYTES, CHUNK)
    for chunk in range(300):
        disks.write(volume.path, chunk * BYTES, b"\x11" * 512)
    volume.drop(snap)
    volume.merge(snap)
    merge.wait_done(volume)
    assert volume.device.status() == f"{2 * CHUNK}/{snap.cow.sectors} {2 * CHUNK}"
    volume.snapshots.clear()


def test_a_merge_that_was_finished_can_be_activated(snapshot):
    volume, snap = snapshot(64 * BYTES, 128 * BYTES, CHUNK)
    disks.write(volume.path, 0, b"\x11" * 512)
    volume.drop(snap)
    volume.merge(snap)
    merge.wait_done(volume)
    volume.device.remove()
    merge.activate(volume, snap)
    merge.wait_done(volume)
    assert disks.read(volume.path) == volume.content
    volume.snapshots.clear()


def use_on(volume, snap):
    """The merged snapshot is a snapshot again, without a new activation."""
    snap.target = "snapshot"
    volume.device.reload(snap.line())


def retire(volume):
    volume.deactivate()
    volume.snapshots.clear()


def test_a_merge_that_was_finished_gives_all_room_back(snapshot):
    """The COW device is filled twice, with a merge in between."""
    room = 61  # of 63 chunks: the header and an area have two
    volume, snap = snapshot(128 * BYTES, 63 * BYTES, CHUNK)
    for chunk in range(room):
        disks.write(volume.path, chunk * BYTES, b"\x11" * 512)
    volume.drop(snap)
    volume.merge(snap)
    merge.wait_done(volume)
    use_on(volume, snap)
    content = bytearray(disks.read(volume.path))
    assert content == volume.content
    for chunk in range(room):
        at = (room + chunk) * BYTES + 512
        disks.write(volume.path, at, b"\x22" * 512)
        content[at:at + 512] = b"\x22" * 512
        assert volume.device.usage() == ((2 + chunk + 1) * CHUNK, snap.cow.sectors, 2 * CHUNK)
    assert disks.first_difference(disks.read(volume.path), content) is None
    retire(volume)
    assert len(cow.Cow(snap.cow.read()).check()) == room


@pytest.mark.rust_only
def test_usage_after_a_merge_that_was_called_off(snapshot, mapped):
    """Chunks are not handed out again then, and it says how full the COW device is."""
    device = mapped("cow", 1100 * BYTES)
    volume, snap = snapshot(2000 * BYTES, 1100 * BYTES, CHUNK, cow=device)
    for chunk in range(1000):
        disks.write(volume.path, 2 * chunk * BYTES, b"\x11" * 512)
    used, _, _ = snap.usage()
    volume.drop(snap)
    device.delay(read_ms=200)
    volume.merge(snap)
    merge.wait_below(volume, used)
    use_on(volume, snap)
    device.delay()
    content = bytearray(disks.read(volume.path))
    for more in range(1, 4):
        at = (2 * more + 1) * BYTES
        disks.write(volume.path, at, b"\x22" * 512)
        content[at:at + 512] = b"\x22" * 512
        allocated, _, metadata = volume.device.usage()
        assert allocated == used + more * CHUNK and metadata > 2 * CHUNK, "a part was merged, not all"
    assert disks.first_difference(disks.read(volume.path), content) is None
    retire(volume)


@pytest.mark.rust_core
def test_a_snapshot_that_is_made_while_another_is_merged(snapshot, mapped, writer, devices):
    """What is on its way to the origin is there before the snapshot sees it, or after it was copied for the snapshot."""
    device = mapped("cow", 600 * BYTES)
    volume, snap, content = prepare(snapshot, writer, 512, 100, 300, target=device)
    volume.drop(snap)
    device.delay(read_ms=1000)
    volume.merge(snap)
    total = merge.state(volume)[0]
    time.sleep(1.4)
    assert not merge.is_done(volume), "it was over before the snapshot was made"
    beside = disks.Disk(700 * BYTES)
    other = devices("beside", [(0, volume.disk.sectors, "snapshot", f"{volume.disk.path} {beside.path} P {CHUNK}")])
    seen = disks.read(other.path)
    assert not merge.is_done(volume), "it was over before the snapshot was read"
    device.delay()
    merge.wait_done(volume)
    assert disks.first_difference(disks.read(other.path), seen) is None
    assert merge.state(volume)[0] < total
    other.remove()
    beside.close()
    finish(volume, snap, content)


@pytest.mark.rust_core
def test_a_merge_that_was_handed_over_does_not_go_on(snapshot, mapped, writer):
    device = mapped("cow", 600 * BYTES)
    volume, snap, content = prepare(snapshot, writer, 512, 100, 300, target=device)
    volume.drop(snap)
    device.delay(read_ms=200)
    volume.merge(snap)
    time.sleep(0.3)
    volume.device.suspend()
    snap.target = "snapshot"
    snap.device = dm.Device(snap.name, snap.line())
    before = snap.usage()
    device.delay()
    volume.device.resume()
    time.sleep(0.5)
    assert snap.usage() == before, "it goes on"
    assert disks.first_difference(disks.read(snap.path), content) is None
    volume.device.remove()
    volume.device = None
    volume.drop(snap)
    merge.activate(volume, snap)
    finish(volume, snap, content)


@pytest.mark.rust_core
def test_a_merge_that_lost_track_is_no_snapshot(snapshot, mapped, writer):
    """Where nobody knows which records were cleared, the snapshot has to be loaded anew before it is used as one."""
    device = mapped("cow", 600 * BYTES)
    volume, snap, content = prepare(snapshot, writer, 512, 100, 300, target=device)
    volume.drop(snap)
    # the area of the last records
    device.fail(cow.Layout(CHUNK).area_chunk(1) * CHUNK, CHUNK, "flakey")
    volume.merge(snap)
    merge.wait_failed(volume)
    device.mend()
    volume.device.suspend()
    snap.target = "snapshot"
    with pytest.raises(OSError):
        dm.Device(snap.name, snap.line())
    volume.device.resume()
    volume.device.remove()
    volume.device = None
    snap.device = dm.Device(snap.name, snap.line())
    assert disks.first_difference(disks.read(snap.path), content) is None
    volume.drop(snap)
    merge.activate(volume, snap)
    finish(volume, snap, content)

# SPDX-License-Identifier: GPL-2.0-only
"""Copies that pass through memory of the module's: the requests that this saves, as the disks saw them, and that what is
copied is right. What a crash may leave is tests/vm/crash/test_crash.py's to see."""

import os
import random
import threading

import cow
import disks
import module
import nbd
import pytest
from disks import put
from figures import BlockLayer, stats

pytestmark = pytest.mark.rust_core
GUEST = "snapshots"
CHUNK = 16
BYTES = CHUNK * 512
CHUNKS = 64
MIB = 1 << 20


def new(log, since):
    """What was written or flushed since then: what it was, and how long; metadata is 512 bytes long here."""
    with log.lock:
        return [(op.kind + (" fua" if op.fua else ""), op.length) for op in log.ops if op.arrived > since]


@pytest.fixture
def recorded(origin, recorder):
    def make(**options):
        log = nbd.Log()
        volume = origin(CHUNKS * BYTES)
        return volume, volume.snapshot(recorder(200 * BYTES, log=log, **options), CHUNK), log
    return make


# --- A write to a part of a chunk of a snapshot

@pytest.mark.parametrize("flags", [0, os.O_DSYNC], ids=["", "fua"])
@pytest.mark.parametrize("first,size", [(0, 512), (BYTES - 512, 512), (1024, 4096)])
def test_a_part_of_a_chunk_and_its_copy_are_one_write(recorded, first, size, flags):
    volume, snap, log = recorded()
    since, data = log.mark(), os.urandom(size)
    put(snap.path, 8 * BYTES + first, data, flags)
    if not flags:
        assert new(log, since)[0] == ("write", BYTES)
        put(snap.path, 40 * BYTES, bytes(512), os.O_DSYNC)
    # the last write has a record that is durable, with a flush before it; nothing is written twice
    lengths = [length for kind, length in new(log, since) if kind == "write"]
    assert lengths == [BYTES] * (1 if flags else 2)
    assert {length for kind, length in new(log, since) if kind == "write fua"} == {512}
    expected = bytearray(volume.content)
    expected[8 * BYTES + first:8 * BYTES + first + size] = data
    if not flags:
        expected[40 * BYTES:40 * BYTES + 512] = bytes(512)
    assert disks.read(snap.path) == bytes(expected)
    assert disks.read(volume.path) == volume.content


def test_the_end_of_an_origin_that_ends_within_a_chunk(origin, disk):
    volume = origin(10 * BYTES + 1536)
    snap = volume.snapshot(disk(40 * BYTES), CHUNK)
    expected = bytearray(volume.content)
    for offset in (10 * BYTES + 1024, 10 * BYTES):
        expected[offset:offset + 512] = os.urandom(512)
        put(snap.path, offset, bytes(expected[offset:offset + 512]))
    assert disks.read(snap.path) == bytes(expected)
    assert stats(snap.device)["writes_overlaid"] == 1
    assert disks.read(volume.path) == volume.content


def test_many_parts_of_few_chunks_at_once(origin, disk):
    """Several threads write sectors of the same chunks, others those of the origin: each sector has one writer."""
    size = 256
    volume = origin(size * BYTES)
    snaps = [volume.snapshot(disk(3 * size * BYTES), chunk) for chunk in (8, 16, 64)]
    expected = {device: bytearray(volume.content) for device in (volume.path, *(snap.path for snap in snaps))}

    def write(path, mine):
        rng = random.Random(mine)
        sectors = list(range(mine, size * CHUNK, 4))
        rng.shuffle(sectors)
        for sector in sectors[:150]:
            data = rng.randbytes(512)
            expected[path][sector * 512:sector * 512 + 512] = data
            put(path, sector * 512, data, os.O_DSYNC if rng.random() < 0.1 else 0)

    threads = [threading.Thread(target=write, args=(path, n)) for path in expected for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for path, content in expected.items():
        assert disks.read(path) == bytes(content), path
    assert sum(stats(snap.device)["writes_overlaid"] for snap in snaps) > 0


@pytest.mark.parametrize("which", ["read", "write"])
def test_a_copy_that_fails_fails_the_write(recorder, origin, which):
    log = nbd.Log()
    below, above = recorder(CHUNKS * BYTES, name="origin"), recorder(200 * BYTES, name="cow", log=log)
    volume = origin(CHUNKS * BYTES, target=below)
    snap = volume.snapshot(above, CHUNK)
    (below if which == "read" else above).fail(which)
    with pytest.raises(OSError):
        put(snap.path, 512, os.urandom(512))
    assert snap.device.status().split()[-1] == "Invalid"
    below.mend()
    assert disks.read(volume.path) == volume.content


@pytest.mark.parametrize("cache", [True, False], ids=["cache", "no-cache"])
@pytest.mark.parametrize("size", [512, BYTES, 2 * BYTES])
def test_a_write_with_fua_is_over_when_it_is_recorded(recorded, cache, size):
    """Without a cache, FUA is taken from a bio that is submitted. Each request takes a while here."""
    _, snap, log = recorded(cache=cache, linger=0.05)
    put(snap.path, 8 * BYTES, os.urandom(size), os.O_DSYNC)
    assert len(cow.Cow(snap.cow.read()).records()) == -(-size // BYTES)


# --- A write to the origin that nothing else waits beside

def test_data_is_written_past_the_cache_where_nobody_shares_a_flush(recorded):
    volume, snap, log = recorded()
    for chunk in range(20):
        since = log.mark()
        put(volume.path, chunk * BYTES, os.urandom(512))
        assert new(log, since) == [("write fua", BYTES), ("write fua", 512)]
    assert disks.read(snap.path) == volume.content


def test_a_device_that_cannot_is_flushed(recorded):
    volume, snap, log = recorded(fua=False)
    since = log.mark()
    put(volume.path, 0, os.urandom(512))
    assert new(log, since) == [("write", BYTES), ("flush", 0), ("write", 512), ("flush", 0)]
    assert disks.read(snap.path) == volume.content


def test_not_for_a_snapshot_that_records_nothing(origin, recorder):
    log = nbd.Log()
    volume = origin(CHUNKS * BYTES)
    snap = volume.snapshot(recorder(200 * BYTES, log=log), CHUNK, options="N")
    since = log.mark()
    put(volume.path, 0, os.urandom(512))
    assert new(log, since) == [("write", BYTES)]
    assert disks.read(snap.path) == volume.content


@pytest.mark.parametrize("other,past", [({"cache": False}, True), ({"fua": False}, False)], ids=["cacheless", "flushed"])
def test_beside_a_snapshot_on_another_kind_of_device(origin, recorder, other, past):
    volume = origin(CHUNKS * BYTES)
    logs = [nbd.Log(), nbd.Log()]
    snaps = [volume.snapshot(recorder(200 * BYTES, name=f"cow{n}", log=logs[n], **options), CHUNK)
             for n, options in enumerate(({}, other))]
    since = [log.mark() for log in logs]
    put(volume.path, 0, os.urandom(512))
    kinds = [[kind for kind, _ in new(*both)] for both in zip(logs, since)]
    assert kinds[0] == (["write fua", "write fua"] if past else ["write", "flush", "write fua"])
    assert kinds[1] == (["write", "write"] if past else ["write", "flush", "write", "flush"])
    for snap in snaps:
        assert disks.read(snap.path) == volume.content


def test_those_who_come_together_share_a_flush(recorded):
    volume, snap, log = recorded(linger=0.05)
    since = log.mark()
    threads = [threading.Thread(target=put, args=(volume.path, n * BYTES, bytes(512))) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kinds = [kind for kind, _ in new(log, since)]
    assert 1 <= kinds.count("flush") < 16 and kinds.count("write") >= 8, kinds
    assert disks.read(snap.path) == volume.content


def test_an_area_that_gets_full_is_not_without_a_flush(origin, recorder):
    """The next area is zeroed in the cache, and must be zero before the list ends in it."""
    log, per_area = nbd.Log(), BYTES // 16
    volume = origin((per_area + 8) * BYTES)
    device = recorder((per_area + 40) * BYTES, log=log)
    snap = volume.snapshot(device, CHUNK)
    for chunk in range(per_area + 4):
        since = log.mark()
        put(volume.path, chunk * BYTES, b"\x11" * 512)
        flushes = [kind for kind, _ in new(log, since)].count("flush")
        assert flushes == (chunk == per_area - 1), chunk
    assert disks.read(snap.path) == volume.content
    assert len(cow.Cow(device.read()).check()) == per_area + 4


# --- Snapshots with chunks of several sizes

def test_the_origin_is_read_once_for_all_chunk_sizes(origin, disk):
    volume = origin(4 * MIB)
    snaps = [volume.snapshot(disk(8 * MIB), chunk) for chunk in (8, 32, 128, 32)]
    below = BlockLayer(volume.disk)
    for n in range(16):
        put(volume.path, n * 65536 + 8192 + 512, os.urandom(512))
    found = stats(volume.device)
    assert below.since()["sectors_read"] == 16 * 128
    assert found["origin_copied_sectors"] == 16 * (8 + 32 + 128) and found["origin_copies"] == 16 * 3
    assert found["origin_copied_together"] == 16 * (8 + 32)
    for snap in snaps:
        assert disks.read(snap.path) == volume.content


def test_more_sizes_than_a_read_serves(origin, disk):
    volume = origin(4 * MIB)
    snaps = [volume.snapshot(disk(8 * MIB), 8 << n) for n in range(7)]
    for n in range(8):
        put(volume.path, n * 8 * 65536 - n * 4096, os.urandom(4096))
    for snap in snaps:
        assert disks.read(snap.path) == volume.content


def test_one_of_several_sizes_that_fails_fails_alone(origin, disk, recorder):
    volume = origin(MIB)
    bad = recorder(2 * MIB)
    snaps = [volume.snapshot(disk(2 * MIB), 8), volume.snapshot(bad, 32), volume.snapshot(disk(2 * MIB), 128)]
    bad.fail("write")
    put(volume.path, 8192, os.urandom(512))
    assert [snap.device.status().split()[-1] == "Invalid" for snap in snaps] == [False, True, False]
    for snap in (snaps[0], snaps[2]):
        assert disks.read(snap.path) == volume.content


def test_a_read_for_several_sizes_that_fails_is_tried_for_each(origin, disk, recorder):
    below = recorder(MIB)
    volume = origin(MIB, target=below)
    snaps = [volume.snapshot(disk(2 * MIB), chunk) for chunk in (8, 32, 128)]
    below.fail("read")
    put(volume.path, 8192, os.urandom(512))
    assert [snap.device.status().split()[-1] for snap in snaps].count("Invalid") == 0
    # the one for all, and the first of those for each
    below.fail("read", 1, 2)
    put(volume.path, MIB // 4, os.urandom(512))
    assert [snap.device.status().split()[-1] for snap in snaps].count("Invalid") == 1
    for snap in snaps:
        if snap.device.status().split()[-1] != "Invalid":
            assert disks.read(snap.path) == volume.content


# --- Not where it is not wanted

def test_copying_that_is_throttled_is_left_to_kcopyd(recorded):
    volume, snap, log = recorded()
    module.set_parameter("snapshot_copy_throttle", 50)
    try:
        since = log.mark()
        put(snap.path, 512, os.urandom(512))
        assert [length for kind, length in new(log, since) if kind == "write"][:2] == [BYTES, 512]
    finally:
        module.set_parameter("snapshot_copy_throttle", 100)

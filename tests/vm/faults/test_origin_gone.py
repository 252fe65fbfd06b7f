# SPDX-License-Identifier: GPL-2.0-only
"""The origin goes away while it is copied from, read or merged into, and comes back."""

import errno
import random
import time

import disks
import merge
import module
import pytest

GUEST = "faults"
CHUNK = 8
BYTES = CHUNK * 512
CHUNKS = 256
DEPTH = 16


@pytest.fixture
def shaky(snapshot, mapped):
    """An origin that can go away, and a snapshot of it."""
    def make(chunks=CHUNKS):
        target = mapped("shaky-origin", chunks * BYTES)
        volume, snap = snapshot(chunks * BYTES, 2 * chunks * BYTES, CHUNK, target=target)
        return volume, snap, target
    return make


@pytest.mark.parametrize("after_ms", [0, 2, 5, 10, 15, 25])
def test_while_chunks_are_copied(shaky, writer, after_ms):
    """What was written is there, what failed is what it was or what it should have been, the rest is untouched."""
    volume, snap, target = shaky()
    aio = writer(DEPTH, 512)
    rng = random.Random(after_ms)
    target.delay(read_ms=10, write_ms=5)
    batch = [(volume.path, chunk * BYTES, rng.randbytes(512)) for chunk in rng.sample(range(CHUNKS), DEPTH)]
    aio.submit(batch)
    time.sleep(after_ms / 1000)
    target.fail()
    results = aio.wait(DEPTH)
    aio.release()
    target.mend()
    now, before = disks.read(volume.path), volume.content
    for (_, at, data), result in zip(batch, results):
        assert result in (512, -errno.EIO), result
        assert now[at:at + 512] == data or result != 512 and now[at:at + 512] == before[at:at + 512]
        now[at:at + 512] = before[at:at + 512]
    assert disks.first_difference(now, before) is None
    if snap.status() != "Invalid":
        assert disks.read(snap.path) == before
    disks.write(volume.path, 0, b"\x22" * 512)
    assert disks.read(volume.path, 0, 512) == b"\x22" * 512


def test_while_the_snapshot_is_read(shaky):
    """What is on the COW device can be read all the same, and nothing is lost."""
    volume, snap, target = shaky()
    disks.write(volume.path, 0, b"\x11" * 512)
    target.fail()
    assert disks.read(snap.path, 0, BYTES) == volume.content[:BYTES]
    with pytest.raises(OSError):
        disks.read(snap.path, BYTES, BYTES)
    target.mend()
    assert disks.read(snap.path) == volume.content


def test_while_it_is_merged_into(shaky, writer):
    # a delay ends when its table is replaced, and merging goes on at full speed until that is done
    chunks = 4096
    volume, snap, target = shaky(chunks)
    aio = writer(64, 512)
    for first in range(0, chunks, 128):
        batch = [(volume.path, chunk * BYTES, b"\x11" * 512) for chunk in range(first, first + 128, 2)]
        assert aio.write(batch) == [512] * len(batch)
    aio.release()
    total = snap.usage()[0]
    volume.drop(snap)
    if module.CORE == "rust":
        # a part of the first batch is being written then
        target.delay(write_ms=500)
        volume.merge(snap)
        time.sleep(0.1)
    else:
        target.delay(write_ms=2)
        volume.merge(snap)
        merge.wait_below(volume, total * 15 // 16)
    target.fail()
    merge.wait_failed(volume)
    volume.device.remove()
    volume.device = None
    target.mend()
    merge.activate(volume, snap)
    assert disks.read(volume.path) == volume.content
    merge.wait_done(volume)
    assert disks.read(volume.path) == volume.content
    volume.snapshots.clear()

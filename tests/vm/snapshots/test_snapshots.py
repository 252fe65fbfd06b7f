# SPDX-License-Identifier: GPL-2.0-only
"""Several snapshots of one origin, made at different times and with different chunk sizes, are independent."""

import random

import cow
import disks

GUEST = "snapshots"
SIZE = 8 << 20
BLOCK = 4096


def test_snapshots_of_one_origin_keep_the_content_of_their_own_time(origin, disk, writer):
    volume = origin(SIZE)
    aio = writer(32, BLOCK)
    rng = random.Random(11)
    content = bytearray(volume.content)
    expected = {}

    def change(path, model):
        batch = []
        for block in rng.sample(range(SIZE // BLOCK), 32):
            data = rng.randbytes(512)
            model[block * BLOCK:block * BLOCK + 512] = data
            batch.append((path, block * BLOCK, data))
        assert aio.write(batch) == [512] * 32

    for chunk in (8, 32, 2048, 128, 1):
        snap = volume.snapshot(disk(2 * SIZE + (4 << 20)), chunk)
        expected[snap] = bytearray(content)
        for _ in range(6):
            change(volume.path, content)
            for other, model in expected.items():
                change(other.path, model)
    for snap, model in expected.items():
        assert disks.first_difference(disks.read(snap.path), model) is None, f"chunk size {snap.chunk}"
    assert disks.first_difference(disks.read(volume.path), content) is None
    aio.release()

    # one goes, the others stay
    gone = list(expected)[1]
    volume.drop(gone)
    del expected[gone]
    volume.snapshots.remove(gone)
    change(volume.path, content)
    aio.release()
    volume.deactivate()
    for snap in expected:
        assert cow.Cow(snap.cow.read()).check()
    volume.activate()
    for snap, model in expected.items():
        assert disks.first_difference(disks.read(snap.path), model) is None, f"chunk size {snap.chunk}"
    assert disks.first_difference(disks.read(volume.path), content) is None


def test_snapshots_of_different_origins_do_not_mix(origin, disk):
    volumes = [origin(1 << 20, name=f"origin{n}") for n in range(4)]
    snaps = [one.snapshot(disk(2 << 20), 8) for one in volumes]
    for n, one in enumerate(volumes):
        for chunk in range(n, 256, 4):
            disks.write(one.path, chunk * 4096, b"\x11" * 512)
    for one, snap in zip(volumes, snaps):
        assert disks.read(snap.path) == one.content
        assert snap.usage()[0] == (2 + 64) * 8

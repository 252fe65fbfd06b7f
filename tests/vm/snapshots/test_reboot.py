# SPDX-License-Identifier: GPL-2.0-only
"""A snapshot survives reboots: of a machine that deactivated it, and of one that was just switched off."""

import os
import random

import aio
import disks
import dm
import pytest
import volume

DISKS = {"origin": "16M", "cow": "32M"}
BOOTS = 3

CHUNK = 16
SIZE = 16 << 20
WRITES = 640


class Virtio:
    def __init__(self, path):
        self.path = path
        fd = os.open(path, os.O_RDONLY)
        self.size = os.lseek(fd, 0, os.SEEK_END)
        os.close(fd)
        self.sectors = self.size // 512


def content(seed):
    return random.Random(seed).randbytes(SIZE)


def changes(seed):
    """Where is what written, at each boot the same for whoever asks."""
    rng = random.Random(seed)
    return [(sector * 512, rng.randbytes(512)) for sector in rng.sample(range(SIZE // 512), WRITES)]


def apply(data, seed):
    data = bytearray(data)
    for offset, block in changes(seed):
        data[offset:offset + 512] = block
    return data


def write(path, seed):
    writer = aio.Writer(32, 512)
    blocks = changes(seed)
    for start in range(0, len(blocks), 32):
        assert writer.write([(path, *block) for block in blocks[start:start + 32]]) == [512] * 32
    writer.close()


@pytest.fixture
def snap():
    origin, cow = Virtio(os.environ["DISK_ORIGIN"]), Virtio(os.environ["DISK_COW"])
    made = volume.Volume(origin)
    made.snapshots.append(volume.Snapshot("snap", origin, cow, CHUNK, "P"))
    return made


@pytest.mark.boot(1)
def test_first_boot_makes_the_snapshot_and_is_switched_off(snap):
    disks.write(snap.disk.path, 0, content(0))
    snap.activate()
    write(snap.path, 1)
    write(snap.snapshots[0].path, 2)
    assert disks.read(snap.path) == apply(content(0), 1)
    # the devices stay active: the guest ends without a word to them


@pytest.mark.boot(2)
def test_second_boot_finds_all_that_was_written_and_goes_on(snap):
    snap.activate()
    assert disks.first_difference(disks.read(snap.path), apply(content(0), 1)) is None
    assert disks.first_difference(disks.read(snap.snapshots[0].path), apply(content(0), 2)) is None
    usage = snap.snapshots[0].usage()
    write(snap.path, 3)
    assert snap.snapshots[0].usage() > usage
    snap.deactivate()
    assert dm.names() == []


@pytest.mark.boot(3)
def test_third_boot_finds_it_again(snap):
    snap.activate()
    assert disks.first_difference(disks.read(snap.path), apply(apply(content(0), 1), 3)) is None
    assert disks.first_difference(disks.read(snap.snapshots[0].path), apply(content(0), 2)) is None
    snap.deactivate()
    assert dm.names() == []

# SPDX-License-Identifier: GPL-2.0-only
"""An origin takes discards: what its snapshots have by themselves is discarded, nothing else, and nothing is copied."""

import contextlib
import fcntl
import mmap
import os
import random
import struct
import subprocess

import disks
import pytest

pytestmark = pytest.mark.rust_core
GUEST = "snapshots"
BYTES = 4096
BLKDISCARD = 0x1277
MIB = 1 << 20
# what mkfs.xfs takes for its own tests, which are the only ones that it makes less than 300 MiB for
SMALL_XFS = os.environ | {name: "here" for name in ("TEST_DIR", "TEST_DEV", "QA_CHECK_FS")}


def discard(path, offset, size):
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.ioctl(fd, BLKDISCARD, struct.pack("=QQ", offset, size))
    finally:
        os.close(fd)


def test_only_what_all_snapshots_have_is_discarded(origin, disk):
    chunks = 1024
    volume = origin(chunks * BYTES)
    # chunks of 4 KiB and of 32 KiB
    snaps = [volume.snapshot(disk(2 * chunks * BYTES), size) for size in (8, 64)]
    rng = random.Random(5)
    written = rng.sample(range(chunks), 200)
    for chunk in written:
        disks.write(volume.path, chunk * BYTES, b"\x11" * BYTES)
    used = [snap.usage() for snap in snaps]
    now = bytearray(disks.read(volume.path))
    discard(volume.path, 0, chunks * BYTES)
    for chunk in written:
        now[chunk * BYTES:(chunk + 1) * BYTES] = bytes(BYTES)
    assert disks.first_difference(disks.read(volume.path), now) is None, "what was to be discarded, and only that"
    for snap, before in zip(snaps, used):
        assert disks.read(snap.path) == volume.content
        assert snap.usage() == before, "something was copied for a discard"
    # written anew, it is copied no more
    disks.write(volume.path, written[0] * BYTES, b"\x33" * BYTES)
    assert [snap.usage() for snap in snaps] == used
    # parts of chunks, across their ends
    for _ in range(50):
        first = rng.randrange(chunks * BYTES // 512 - 300)
        discard(volume.path, first * 512, rng.randrange(1, 300) * 512)
    assert [disks.read(snap.path) == volume.content for snap in snaps] == [True, True]
    assert [snap.usage() for snap in snaps] == used


def test_without_a_snapshot_all_is_discarded(origin):
    volume = origin(1 * MIB)
    volume.activate()
    discard(volume.path, 0, MIB)
    assert disks.read(volume.path) == bytes(MIB)


@contextlib.contextmanager
def mounted(path):
    directory = "/tmp/mounted"
    os.makedirs(directory, exist_ok=True)
    subprocess.run(["mount", path, directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_fstrim_beside_two_snapshots(origin, disk, kind):
    volume = origin(64 * MIB)
    volume.activate()
    no_discard = "-K" if kind == "xfs" else "-Enodiscard"
    subprocess.run([f"mkfs.{kind}", "-q", no_discard, volume.path], check=True, env=SMALL_XFS)
    with mounted(volume.path) as directory:
        for name in "abcdefgh":
            with open(f"{directory}/{name}", "wb") as file:
                file.write(os.urandom(2 * MIB))
        os.sync()
    snaps = [volume.snapshot(disk(40 * MIB), 64) for _ in range(2)]
    before = [disks.digest(snap.path) for snap in snaps]
    with mounted(volume.path) as directory:
        for name in "aceg":
            os.unlink(f"{directory}/{name}")
        with open(f"{directory}/new", "wb") as file:
            file.write(os.urandom(4 * MIB))
        os.sync()
        used = [snap.usage()[0] for snap in snaps]
        done = subprocess.run(["fstrim", "-v", directory], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        grown = [snap.usage()[0] - count for snap, count in zip(snaps, used)]
    # a journal may be written meanwhile: a few chunks
    assert max(grown) <= 16 * 64, f"fstrim had {max(grown)} sectors copied"
    assert [disks.digest(snap.path) for snap in snaps] == before


def nowait(path, write, offset):
    """Reads or writes 4 KiB, if that needs no waiting."""
    flags = os.O_DIRECT | (os.O_WRONLY if write else os.O_RDONLY)
    fd = os.open(path, flags)
    with mmap.mmap(-1, BYTES) as buffer:
        try:
            act = os.pwritev if write else os.preadv
            return act(fd, [buffer], offset, os.RWF_NOWAIT)
        finally:
            os.close(fd)


def test_what_needs_no_waiting_is_done_at_once(origin, disk):
    """io_uring asks for it like this first, and hands to a thread what is refused."""
    volume = origin(256 * BYTES)
    snap = volume.snapshot(disk(300 * BYTES), 8)
    disks.write(volume.path, 0, b"\x11" * BYTES)
    disks.write(snap.path, 8 * BYTES, b"\x11" * BYTES)
    for device, write, chunk in ((snap, False, 0), (snap, False, 5), (snap, True, 0), (snap, True, 8),
                                 (volume, False, 0), (volume, False, 5), (volume, True, 0)):
        assert nowait(device.path, write, chunk * BYTES) == BYTES
    used = snap.usage()
    for device in snap, volume:
        with pytest.raises(BlockingIOError):
            nowait(device.path, True, 20 * BYTES)
    assert snap.usage() == used
    disks.write(volume.path, 20 * BYTES, b"\x11" * BYTES)
    assert nowait(volume.path, True, 20 * BYTES) == BYTES

# SPDX-License-Identifier: GPL-2.0-only
"""What a write goes through: a snapshot with either exception store, a thin snapshot, or nothing."""

import os
import subprocess
from contextlib import ExitStack, contextmanager
from pathlib import Path

from devices import zero
from dm import Device

MODULE = "dm_snap_persistent"


def choose(store):
    """Makes `store` the owner of the name P: the Rust module takes it over while it is loaded."""
    loaded = Path(f"/sys/module/{MODULE}").exists()
    if store == "rust" and not loaded:
        subprocess.run(["insmod", f"/run/vm/{MODULE}.ko"], check=True)
    elif store == "c" and loaded:
        subprocess.run(["rmmod", MODULE], check=True)


def verify(store):
    """Called while a snapshot is there: its store's module is in use."""
    module = Path(f"/sys/module/{MODULE}/refcnt")
    used = module.exists() and int(module.read_text()) > 0
    if used != (store == "rust"):
        raise RuntimeError(f"this snapshot was to be made with the {store} store and is not")


class Snapshot:
    """The origin and its snapshots, by the names that the benchmark writes to."""

    def __init__(self, origin, snapshots, chunk_kib):
        self.origin, self.snapshots, self.chunk_kib = origin, snapshots, chunk_kib

    def exceptions(self):
        """Of all snapshots together."""
        return sum(snapshot.exceptions(self.chunk_kib) for snapshot in self.snapshots)


@contextmanager
def snapshot(store, origin, cows, chunk_kib):
    """A new snapshot of `origin` on each of `cows`."""
    choose(store)
    with ExitStack() as stack:
        top = stack.enter_context(Device("origin", origin.sectors, "snapshot-origin", origin.path))
        snapshots = []
        for n, cow in enumerate(cows):
            zero(cow.path, 4096)
            snapshots.append(stack.enter_context(Device(
                f"snapshot{n}", origin.sectors, "snapshot", f"{origin.path} {cow.path} P {chunk_kib * 2}")))
        verify(store)
        yield Snapshot(top, snapshots, chunk_kib)


class ThinPool:
    """A thin volume, provisioned once, of which each run takes a new snapshot."""

    BLOCK_KIB = 64  # the least there is

    def __init__(self, metadata, data, megabytes, block_kib):
        self.metadata, self.data, self.sectors, self.block_kib = metadata, data, megabytes << 11, block_kib
        zero(metadata.path, 4096)
        with self._pool() as pool:
            pool.message("create_thin 0")
            with self._volume(pool) as volume, open(volume.path, "rb+", buffering=0) as file:
                for _ in range(megabytes):
                    file.write(bytes([0x5a]) * (1 << 20))
                os.fsync(file.fileno())

    def _pool(self):
        return Device("pool", self.data.sectors, "thin-pool",
                      f"{self.metadata.path} {self.data.path} {self.block_kib * 2} 0 1 skip_block_zeroing")

    def _volume(self, pool):
        return Device("thin", self.sectors, "thin", f"{pool.path} 0")

    @contextmanager
    def snapshot(self):
        """Yields the volume while a snapshot of it exists."""
        with self._pool() as pool:
            with self._volume(pool) as volume:
                volume.suspend()
                pool.message("create_snap 1 0")
                volume.resume()
                yield volume
            pool.message("delete 1")

# SPDX-License-Identifier: GPL-2.0-only
"""What a request goes through: a snapshot of one of the stacks, a thin snapshot, or nothing.

The stacks are guest/module.py's: "c" is the C core with its own store, "rust" the C core with ours, "targets" all ours.
"""

import os
from contextlib import ExitStack, contextmanager

import module
from devices import zero
from target import Device


def verify(store):
    """Called while a snapshot is there: it is of that stack."""
    used = {name: module.loaded(name) and module.refcount(name) > 0 for name in (module.TARGETS, module.STORE)}
    if module.stack() != store or used != {module.TARGETS: True, module.STORE: store == "rust"}:
        raise RuntimeError(f"this snapshot was to be one of {store} and is not: {module.stack()}, {used}")


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
    module.choose(store)
    module.copy_ahead(True)  # which tests do without
    with ExitStack() as stack:
        top = stack.enter_context(Device("origin", origin.sectors, "snapshot-origin", origin.path))
        # the origin asks for the chunk sizes when it is resumed: C's would copy the first chunk of a larger write only
        top.suspend()
        snapshots = []
        for n, cow in enumerate(cows):
            zero(cow.path, 4096)
            snapshots.append(stack.enter_context(Device(
                f"snapshot{n}", origin.sectors, "snapshot", f"{origin.path} {cow.path} P {chunk_kib * 2}")))
        top.resume()
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
    def snapshot(self, prepare=lambda path: None):
        """Yields the volume, which `prepare` has written to, while a snapshot of it exists."""
        with self._pool() as pool:
            with self._volume(pool) as volume:
                prepare(volume.path)
                volume.suspend()
                pool.message("create_snap 1 0")
                volume.resume()
                yield volume
            pool.message("delete 1")

# SPDX-License-Identifier: GPL-2.0-only
"""The C core with its own store, the C core with ours, and our targets take turns on the same devices, in the middle of
fills, merges and overflows: nothing is lost.

SWAPS=1000 in the environment makes it as long as that, SEED= another life.
"""

import os
import random

import cow
import disks
import dm
import merge
import module
import pytest

GUEST = "snapshots"
CORES = ["rust"]
STORES = ["rust"]
SWAPS = int(os.environ.get("SWAPS", "30"))
SEED = int(os.environ.get("SEED", "1"))
SIZE = 1 << 20
STACKS = "c", "rust", "targets"


class Life:
    """An origin with two snapshots that have room and one that has not, and what each must contain."""

    def __init__(self, volume, disk):
        self.rng = random.Random(SEED)
        self.volume, self.content = volume, bytearray(volume.content)
        # name: (COW device, chunk size in sectors)
        self.cows = {"merged": (disk(2 * SIZE), 8), "kept": (disk(2 * SIZE), 16), "small": (disk(SIZE // 8), 8)}
        self.snapshots, self.expected = {}, {}
        self.merging = None
        self.seen = {"merges cut": 0, "merges done": 0, "overflows": 0, "swaps": 0}
        for name in self.cows:
            self.begin(name)

    def begin(self, name):
        """A new snapshot, as `lvcreate -s` makes one."""
        device, chunk = self.cows[name]
        if name in self.snapshots:
            self.volume.snapshots.remove(self.snapshots[name])
        device.write(0, bytes(4096))
        self.snapshots[name] = self.volume.snapshot(device, chunk, name=name)
        self.expected[name] = bytearray(self.content)

    def write(self, path, content):
        for _ in range(self.rng.randrange(1, 8)):
            sectors = self.rng.choice((1, 3, 8, 20))
            at = 512 * self.rng.randrange(SIZE // 512 - sectors)
            data = self.rng.randbytes(512) * sectors
            disks.write(path, at, data)
            content[at:at + len(data)] = data

    def fill(self):
        self.write(self.volume.path, self.content)
        for name, snapshot in self.snapshots.items():
            if snapshot.device and self.rng.random() < 0.5 and name != "small":
                self.write(snapshot.path, self.expected[name])

    def note_overflow(self):
        """Only the small one may be lost, and once it is, it stays so."""
        for name, snapshot in self.snapshots.items():
            if snapshot.device is None:
                continue
            status = snapshot.status()
            if self.expected[name] is None:
                assert status == "Invalid"
            elif status == "Invalid":
                assert name == "small", f"{name} had room"
                self.expected[name] = None
                self.seen["overflows"] += 1

    def begin_merge(self):
        snapshot = self.merging = self.snapshots["merged"]
        self.volume.drop(snapshot)
        self.volume.merge(snapshot)
        self.content = self.expected["merged"]

    def end_merge(self):
        """What LVM does when the status says that all is merged: the origin is an origin again."""
        merge.wait_done(self.volume)
        self.volume.device.remove()
        self.volume.device = None
        self.merging.target = "snapshot"
        self.merging = None
        self.seen["merges done"] += 1
        self.begin("merged")

    def swap(self):
        """Deactivates all, looks at what is on the disks, and activates it under another stack."""
        if self.merging:
            self.volume.device.remove()
            self.volume.device = None
            self.volume.snapshots.remove(self.merging)
        self.volume.deactivate()
        for name, snapshot in self.snapshots.items():
            if self.expected[name] is not None:
                records = cow.Cow(snapshot.cow.read()).check()
                if snapshot is self.merging and records:
                    self.seen["merges cut"] += 1
        module.choose(self.rng.choice([stack for stack in STACKS if stack != module.stack()]))
        if self.merging:
            for snapshot in self.volume.snapshots:
                snapshot.device = dm.Device(snapshot.name, snapshot.line())
            merge.activate(self.volume, self.merging)
            self.volume.snapshots.append(self.merging)
        else:
            self.volume.activate()
        self.seen["swaps"] += 1

    def verify(self):
        stack = module.stack()
        assert disks.first_difference(disks.read(self.volume.path), self.content) is None, f"origin, {stack}"
        for name, snapshot in self.snapshots.items():
            if snapshot.device and self.expected[name] is not None:
                assert disks.first_difference(disks.read(snapshot.path), self.expected[name]) is None, f"{name}, {stack}"

    def step(self):
        self.fill()
        self.note_overflow()
        self.verify()
        if self.merging and self.rng.random() < 0.4:
            self.end_merge()
        elif not self.merging and self.rng.random() < 0.3:
            self.begin_merge()
        if not self.merging and self.rng.random() < 0.1:
            for name in self.cows:
                self.volume.drop(self.snapshots[name])
                self.begin(name)
        self.swap()
        self.note_overflow()
        self.verify()


@pytest.fixture(autouse=True)
def ours_again():
    yield
    module.choose(module.OURS)


def test_stacks_take_turns(origin, disk):
    life = Life(origin(SIZE), disk)
    for _ in range(SWAPS):
        life.step()
    print(life.seen)
    assert life.seen["swaps"] == SWAPS
    assert all(life.seen.values()), life.seen
    if life.merging:
        life.end_merge()
    life.volume.deactivate()

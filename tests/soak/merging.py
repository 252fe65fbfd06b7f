# SPDX-License-Identifier: GPL-2.0-only
"""A snapshot is merged back into its origin, which has the snapshot's content from the first moment on."""

import os
import time

import activations
import lvm
import volumes
from lvm import PATIENCE, VG
from model import Wrong
from world import ORIGIN


def _begin(world, snapshot):
    """The model's side of it."""
    world.snapshots.remove(snapshot)
    world.merging, world.content = snapshot, snapshot.content
    snapshot.merged = set(snapshot.olds)
    for other in world.snapshots:
        other.due = world.fed_by_merge(other)


def _end(world):
    """All is merged: what other snapshots were to get of it, they have."""
    merged = world.merging
    deadline = time.monotonic() + PATIENCE
    while merged.name in lvm.volumes() or lvm.exists(f"{merged.name}-cow"):
        if time.monotonic() > deadline:
            raise Wrong(f"the merge of {merged} does not come to an end: {lvm.volumes()}")
        time.sleep(0.1)
    world.merging = None
    for snapshot in world.snapshots:
        effects = snapshot.due, set(), set()
        world.settle(snapshot, [], effects, snapshot.outcomes(*effects))
        snapshot.due = set()
    world.synchronize()
    activations.owned(world)
    world.compare()
    world.counts["merges"] += 1


def at_once(world):
    """While nobody uses the origin, or in the background while everybody does."""
    snapshot = world.rng.choice(world.settled())
    background = world.rng.random() < 0.5
    world.note(f"merge {snapshot}{' in the background' if background else ''}")
    command = ["lvconvert", "-q", "-y", "--merge", "-i", "1", f"{VG}/{snapshot.name}"]
    _begin(world, snapshot)
    made = world.streams(world.alive()) if world.alive() else []
    world.burst(made, lambda: lvm.run(*command, *(["-b"] if background else [])), reloads=True)
    for _ in range(world.rng.randint(1, 4) if background else 0):
        _use(world)
    _end(world)


def with_interruptions(world):
    """LVM leaves the merge of an origin in use to the next activation; ours are cut short."""
    snapshot, cuts = world.rng.choice(world.settled()), world.rng.randint(0, 3)
    if cuts:
        # small chunks all over the place, or it is over before it can be cut short
        snapshot = volumes.create_as(world, 8, world.size >> 10, [])
        world.burst([world.scattered(snapshot, None, min(snapshot.room, 4000))])
    world.note(f"merge {snapshot} from the next activation on, {cuts} times interrupted")
    # what is in use is not tried again and again
    command = ["lvconvert", "-q", "-y", "--merge", "--config", "activation/retry_deactivation=0"]
    origin = os.open(world.path(None), os.O_RDONLY)
    try:
        lvm.run(*command, f"{VG}/{snapshot.name}")
    finally:
        os.close(origin)
    activations.deactivate(world)
    _begin(world, snapshot)
    activations.activate(world, "--poll", "n")
    for _ in range(cuts):
        if world.rng.random() < 0.5:
            _use(world)
        activations.reactivate(world, "--poll", "n")
    _use(world)
    lvm.run("lvchange", "-q", "--poll", "y", f"{VG}/{ORIGIN}")
    _end(world)


def _use(world):
    """Everybody is written, and read, while the merge goes on."""
    made = world.streams(most=1 << 20)
    world.note(f"during the merge: {world.told(made)}")
    written = {stream.target for stream in made}
    doomed = world.doomed(made)
    still = [target for target in (None, *world.alive()) if target not in written and target not in doomed]
    world.burst(made, lambda: still and world.compare(*still))

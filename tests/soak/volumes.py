# SPDX-License-Identifier: GPL-2.0-only
"""What LVM does with snapshots between two activations."""

import re

import activations
import lvm
import model
from lvm import VG
from model import OVERFLOW, VALID, Snapshot, Wrong
from world import ORIGIN

CHUNKS = 8, 32, 128, 1024  # sectors


def create(world):
    """A snapshot, often of an origin that is being written."""
    rng, chunk = world.rng, world.rng.choice(CHUNKS)
    largest = world.size + world.size // 64 + 4 * chunk * 512
    if rng.random() < 0.3:
        # as many areas as are full, and no place for the next
        per_area = chunk * 512 // 16
        wanted = (2 + rng.randint(1, 4) * (per_area + 1) - 1 + rng.randint(-1, 1)) * chunk * 512
    else:
        wanted = int(largest * rng.choice([0.1, 0.3, 0.6, 1]))
    kilobytes = max(min(wanted, largest), 4 * chunk * 512) + 4095 >> 12 << 2
    if world.store == "c":
        kilobytes = model.within_c(kilobytes * 2, chunk) // 2
    create_as(world, chunk, kilobytes, world.streams([None]) if rng.random() < 0.6 else [])


def create_as(world, chunk, kilobytes, made):
    world.number += 1
    name = f"s{world.number}"
    world.note(f"create {name}: chunk size {chunk // 2}k, {kilobytes} KiB; {world.told(made)}")
    command = ["lvcreate", "-q", "-y", "-s", "-c", f"{chunk // 2}k", "-L", f"{kilobytes}k", "-n", name]
    before = bytearray(world.content)
    world.burst(made, lambda: lvm.run(*command, f"{VG}/{ORIGIN}"), reloads=True)
    snapshot = Snapshot(name, chunk, before, lvm.sectors(f"{name}-cow"), world.store)
    copied = snapshot.touched([write for stream in made for write in stream.writes()])
    allowed = snapshot.outcomes(set(), copied, set())
    world.snapshots.append(snapshot)
    world.settle(snapshot, [], (set(), copied, set()), allowed)
    if snapshot.state is VALID:
        model.resolve(world.path(snapshot), before, [w for stream in made for w in stream.writes()], str(snapshot))
    world.synchronize()
    activations.owned(world)
    world.counts["snapshots"] += 1
    return snapshot


def drop(world):
    snapshot = world.rng.choice(world.snapshots)
    made = world.streams([None, *(other for other in world.alive() if other is not snapshot)])
    world.note(f"remove {snapshot}; {world.told(made)}")
    world.snapshots.remove(snapshot)
    world.burst(made, lambda: lvm.run("lvremove", "-q", "-y", f"{VG}/{snapshot.name}"), reloads=True)
    world.synchronize()
    activations.owned(world)


def extend(world):
    """More room for a snapshot in use; one that overflowed can be written again."""
    snapshot = world.rng.choice(world.alive(VALID, OVERFLOW))
    kilobytes = world.rng.choice([4, 64, 1024, 8192])
    if world.store == "c":
        larger = model.within_c(snapshot.cow_sectors + kilobytes * 2, snapshot.chunk)
        kilobytes = (larger - snapshot.cow_sectors) // 2
    made = world.streams()
    world.note(f"extend {snapshot} by {kilobytes} KiB; {world.told(made)}")

    def grow():
        try:
            lvm.run("lvextend", "-q", "-L", f"+{kilobytes}k", f"{VG}/{snapshot.name}")
            world.counts["extends"] += 1
        except Wrong as e:
            # it has all the room it can ever need
            if not re.search("existing size|No size change|maximum", str(e)):
                raise
        snapshot.cow_sectors = lvm.sectors(f"{snapshot.name}-cow")

    world.burst(made, grow, reloads=True)
    world.synchronize()


def audit(world):
    """What LVM shows is what is the case."""
    world.note("lvs")
    found = lvm.volumes()
    names = {ORIGIN} | {snapshot.name for snapshot in world.snapshots}
    if set(found) != names:
        raise Wrong(f"lvs shows {sorted(found)}, not {sorted(names)}")
    for snapshot in world.snapshots:
        attributes, percent = found[snapshot.name]
        if snapshot.state is OVERFLOW:
            continue
        if (attributes[4] == "I") != (snapshot.state is model.INVALID):
            raise Wrong(f"{snapshot}: lvs shows {attributes}")
        if snapshot.state is VALID:
            used = 100 * snapshot.layout.usage(snapshot.count)[0] / snapshot.cow_sectors
            if snapshot.count and abs(float(percent) - used) > 0.02:
                raise Wrong(f"{snapshot}: lvs shows {percent} %, it is {used:.2f} %")

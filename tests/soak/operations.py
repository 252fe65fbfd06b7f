# SPDX-License-Identifier: GPL-2.0-only
"""What may happen to an origin and its snapshots within a life, each operation a function."""

import time

import dm
import lives
import lvm
import merging
import model
from lvm import VG
from model import OVERFLOW, VALID, Snapshot, Wrong
from world import ORIGIN

CHUNKS = 8, 32, 128, 1024  # sectors
MOST = 4  # snapshots at a time


def streams(world, targets=None, most=8 << 20):
    """Random writes to these targets, by default all that can be written."""
    targets = targets or [None, *world.alive()]
    return world.source.streams(targets, world.size, int(2 ** world.rng.uniform(12, most.bit_length() - 1)))


def told(world, made):
    return ", ".join(f"{world.named(s.target)} {len(s.writes())}x" for s in made)


def write(world):
    made = streams(world)
    world.note(f"write: {told(world, made)}")
    world.burst(made)


def read_while_writing(world):
    """What is not written itself has to be what it was all the time."""
    targets = [None, *world.alive()]
    made = streams(world, world.rng.sample(targets, world.rng.randint(1, len(targets))))
    written = {stream.target for stream in made}
    doomed = world.doomed(made)
    still = [target for target in targets if target not in written and target not in doomed]
    world.note(f"write: {told(world, made)}; read: {', '.join(map(world.named, still))}")
    world.burst(made, lambda: still and world.compare(*still))


def compare(world):
    world.note("compare all")
    world.compare()


def create(world):
    """A snapshot, often of an origin that is being written."""
    rng = world.rng
    chunk = rng.choice(CHUNKS)
    largest = world.size + world.size // 64 + 4 * chunk * 512
    if rng.random() < 0.3:
        # as many areas as are full, and no place for the next
        per_area = chunk * 512 // 16
        wanted = (2 + rng.randint(1, 4) * (per_area + 1) - 1 + rng.randint(-1, 1)) * chunk * 512
    else:
        wanted = int(largest * rng.choice([0.1, 0.3, 0.6, 1]))
    kilobytes = max(min(wanted, largest), 4 * chunk * 512) + 4095 >> 12 << 2
    world.number += 1
    name = f"s{world.number}"
    made = streams(world, [None]) if rng.random() < 0.6 else []
    world.note(f"create {name}: chunk size {chunk // 2}k, {kilobytes} KiB; {told(world, made)}")
    command = ["lvcreate", "-q", "-y", "-s", "-c", f"{chunk // 2}k", "-L", f"{kilobytes}k", "-n", name, f"{VG}/{ORIGIN}"]
    before = bytearray(world.content)
    world.burst(made, lambda: lvm.run(*command), reloads=True)
    snapshot = Snapshot(name, chunk, before, lvm.sectors(f"{name}-cow"), world.store)
    copied = snapshot.touched([write for stream in made for write in stream.writes()])
    allowed = snapshot.outcomes(set(), copied, set())
    world.snapshots.append(snapshot)
    world.settle(snapshot, [], (set(), copied, set()), allowed)
    if snapshot.state is VALID:
        model.resolve(world.path(snapshot), before, [w for stream in made for w in stream.writes()], str(snapshot))
    world.synchronize()
    lives.owned(world)
    world.counts["snapshots"] += 1


def drop(world):
    snapshot = world.rng.choice(world.snapshots)
    made = streams(world, [None, *(other for other in world.alive() if other is not snapshot)])
    world.note(f"remove {snapshot}; {told(world, made)}")
    world.snapshots.remove(snapshot)
    world.burst(made, lambda: lvm.run("lvremove", "-q", "-y", f"{VG}/{snapshot.name}"), reloads=True)
    world.synchronize()
    lives.owned(world)


def extend(world):
    """More room for a snapshot in use; one that overflowed can be written again."""
    snapshot = world.rng.choice(world.alive(VALID, OVERFLOW))
    kilobytes = world.rng.choice([4, 64, 1024, 8192])
    made = streams(world)
    world.note(f"extend {snapshot} by {kilobytes} KiB; {told(world, made)}")

    def grow():
        try:
            lvm.run("lvextend", "-q", "-L", f"+{kilobytes}k", f"{VG}/{snapshot.name}")
            world.counts["extends"] += 1
        except Wrong as e:
            if "maximum" not in str(e) and "No size change" not in str(e):
                raise
        snapshot.cow_sectors = lvm.sectors(f"{snapshot.name}-cow")

    world.burst(made, grow, reloads=True)
    world.synchronize()


def reload(world):
    """The table of a live snapshot is loaded again and again: each time the store is handed over."""
    rng = world.rng
    snapshot = rng.choice([None, *world.snapshots])
    times, flags = rng.randint(1, 8), rng.choice([0, dm.SKIP_LOCKFS, dm.SKIP_LOCKFS | dm.NOFLUSH])
    options = [rng.choice(["P", "PO"]) for _ in range(times)]
    called_off = [rng.random() < 0.2 for _ in range(times)]
    made = streams(world)
    if snapshot in world.doomed(made):
        # an overflow could meet either option
        options, made = ["P"] * times, made if snapshot.options == "P" else []
    world.note(f"reload {world.named(snapshot)} {' '.join(options) if snapshot else times}; {told(world, made)}")
    device = lvm.device(snapshot.name if snapshot else ORIGIN)
    ((start, length, target, line),) = device.table()

    def again():
        for option, off in zip(options, called_off):
            words = line.split()
            if snapshot:
                words[2] = option
            device.load([(start, length, target, " ".join(words))])
            if off:
                device.clear()
                continue
            device.suspend(flags)
            device.resume()
            world.counts["reloads"] += 1

    world.burst(made, again, reloads=True)
    world.synchronize()
    lives.owned(world)


def suspend(world):
    """One of the devices, also below a snapshot, is suspended and resumed while all are written."""
    rng = world.rng
    names = [ORIGIN] + ([f"{ORIGIN}-real"] if world.snapshots else [])
    names += [name for snapshot in world.snapshots for name in (snapshot.name, f"{snapshot.name}-cow")]
    pauses = [(rng.choice(names), rng.choice([0, dm.SKIP_LOCKFS, dm.SKIP_LOCKFS | dm.NOFLUSH]), rng.random() * 0.05)
              for _ in range(rng.randint(1, 5))]
    made = streams(world)
    world.note(f"suspend {' '.join(name for name, _, _ in pauses)}; {told(world, made)}")

    def pause():
        for name, flags, seconds in pauses:
            device = lvm.device(name)
            device.suspend(flags)
            time.sleep(seconds)
            device.resume()
            world.counts["suspends"] += 1

    world.burst(made, pause)


def overflow(world):
    """One snapshot gets more than it has room for; the others and the origin get what comes with it."""
    rng = world.rng
    snapshot = rng.choice(world.alive())
    target = rng.choice([None, snapshot])
    size = snapshot.layout.bytes
    untouched = sorted(set(range(-(-world.size // size))) - snapshot.olds)
    rng.shuffle(untouched)
    missing = snapshot.room - snapshot.count + rng.choice([-1, 0, 1, 3])
    world.note(f"overflow {snapshot} by {world.named(target)}, {len(untouched[:max(missing, 0)])} chunks")
    world.burst([world.source.one_each(target, untouched[:max(missing, 1)], world.size, size)])


def audit(world):
    """What LVM shows is what is the case."""
    world.note("lvs")
    found = lvm.volumes()
    names = {ORIGIN} | {snapshot.name for snapshot in world.snapshots}
    if set(found) != names:
        raise Wrong(f"lvs shows {sorted(found)}, not {sorted(names)}")
    for snapshot in world.snapshots:
        attributes, percent = found[snapshot.name]
        if (attributes[4] == "I") != (snapshot.state is model.INVALID):
            raise Wrong(f"{snapshot}: lvs shows {attributes}")
        if snapshot.state is VALID:
            used = 100 * snapshot.layout.usage(snapshot.count)[0] / snapshot.cow_sectors
            if snapshot.count and abs(float(percent) - used) > 0.02:
                raise Wrong(f"{snapshot}: lvs shows {percent} %, it is {used:.2f} %")


# operation, weight, what it needs
TABLE = [
    (write, 30, lambda world: True),
    (read_while_writing, 15, lambda world: True),
    (compare, 5, lambda world: True),
    (create, 10, lambda world: len(world.snapshots) < MOST),
    (drop, 3, lambda world: world.snapshots),
    (extend, 5, lambda world: world.alive(VALID, OVERFLOW)),
    (reload, 10, lambda world: world.snapshots),
    (suspend, 8, lambda world: True),
    (overflow, 3, lambda world: world.alive()),
    (audit, 2, lambda world: True),
    (lives.next_life, 6, lambda world: True),
    (lives.attempt_to_unload, 1, lambda world: any(s.store == "rust" for s in world.snapshots)),
    (lives.beside_c, 10, lambda world: world.store == "c"),
    (merging.at_once, 3, lambda world: world.settled()),
    (merging.with_interruptions, 3, lambda world: world.settled()),
]


def choose(world):
    """One of the operations that are possible now."""
    possible = [(operation, weight) for operation, weight, needs in TABLE if needs(world)]
    operations, weights = zip(*possible)
    return world.rng.choices(operations, weights)[0]

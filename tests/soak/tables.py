# SPDX-License-Identifier: GPL-2.0-only
"""What LVM hides: tables are loaded and suspended under I/O."""

import time

import dm
import activations
import lvm
from world import ORIGIN

FLAGS = 0, dm.SKIP_LOCKFS, dm.SKIP_LOCKFS | dm.NOFLUSH


def use_option(snapshot, option):
    """By a handover, with the snapshot in use."""
    device = lvm.device(snapshot.name)
    ((start, length, target, line),) = device.table()
    words = line.split()
    words[2] = snapshot.options = option
    device.reload([(start, length, target, " ".join(words))])


def reload(world):
    """The table of a live snapshot is loaded again and again: each time the store is handed over."""
    rng = world.rng
    snapshot = rng.choice([None, *world.snapshots])
    times, flags = rng.randint(1, 8), rng.choice(FLAGS)
    options = [rng.choice(["P", "PO"]) for _ in range(times)]
    called_off = [rng.random() < 0.2 for _ in range(times)]
    made = world.streams()
    if snapshot in world.doomed(made):
        # an overflow could meet either option
        options, made = ["P"] * times, made if snapshot.options == "P" else []
    world.note(f"reload {world.named(snapshot)} {' '.join(options) if snapshot else times}; {world.told(made)}")
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
    activations.owned(world)


def suspend(world):
    """One of the devices, also below a snapshot, is suspended and resumed while all are written."""
    rng = world.rng
    names = [ORIGIN] + ([f"{ORIGIN}-real"] if world.snapshots else [])
    names += [name for snapshot in world.snapshots for name in (snapshot.name, f"{snapshot.name}-cow")]
    pauses = [(rng.choice(names), rng.choice(FLAGS), rng.random() * 0.05) for _ in range(rng.randint(1, 5))]
    made = world.streams()
    world.note(f"suspend {' '.join(name for name, _, _ in pauses)}; {world.told(made)}")

    def pause():
        for name, flags, seconds in pauses:
            device = lvm.device(name)
            device.suspend(flags)
            time.sleep(seconds)
            device.resume()
            world.counts["suspends"] += 1

    world.burst(made, pause)

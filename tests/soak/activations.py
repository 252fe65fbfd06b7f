# SPDX-License-Identifier: GPL-2.0-only
"""A volume group comes and goes; between, its origin and snapshots are deactivated and activated again. What an activation
leaves on the COW devices is checked, by snap_check and by what the model knows."""

import json
import os
import subprocess
import time

import cow
import disks
import dm
import lvm
import module
from lvm import PATIENCE, VG
from model import INVALID, OVERFLOW, VALID, Wrong, overruns_c
from world import ORIGIN
from program import PROGRAM

DISKS = "DISK_ONE", "DISK_TWO"


def begin(world):
    """A volume group with an origin of random size and content."""
    rng = world.rng
    pair = [os.environ[name] for name in DISKS]
    # small extents, so that chunks and devices end anywhere
    lvm.run("pvcreate", "-q", "-y", *pair)
    lvm.run("vgcreate", "-q", "-y", "-s", "4k", VG, *pair)
    world.size = rng.randrange(4 << 8, 24 << 8) * 4096
    world.note(f"begin: an origin of {world.size >> 10} KiB")
    lvm.run("lvcreate", "-q", "-y", "-L", f"{world.size >> 10}k", "-n", ORIGIN, VG)
    world.content = bytearray(rng.randbytes(world.size))
    disks.write(world.path(None), 0, world.content)
    world.counts["volume groups"] += 1


def end(world):
    """All is taken down, and must go."""
    world.note("end")
    deactivate(world)
    lvm.run("vgremove", "-q", "-ff", "-y", VG)
    lvm.run("pvremove", "-q", "-ff", "-y", *(os.environ[name] for name in DISKS))
    world.snapshots.clear()
    module.use("rust")
    world.store = "rust"


def deactivate(world):
    """Deactivates all and checks what is left."""
    there = world.snapshots + ([world.merging] if world.merging else [])
    cows = {snapshot: lvm.device(f"{snapshot.name}-cow").table() for snapshot in there}
    origin = lvm.device(f"{ORIGIN}-real").table() if there else None
    lvm.run("vgchange", "-q", "-an", VG)
    if dm.names():
        raise Wrong(f"left behind by the deactivation: {dm.names()}")
    idle()
    for snapshot in there:
        check(world, snapshot, cows[snapshot], origin)
        snapshot.store = None
    world.counts["activations"] += 1


def idle():
    """Nothing uses the stores any more; what a device leaves may take a moment."""
    deadline = time.monotonic() + PATIENCE
    for name, expected in module.users().items():
        while module.loaded(name) and module.refcount(name) != expected:
            if time.monotonic() > deadline:
                raise Wrong(f"{name} is used {module.refcount(name)} times, not {expected}")
            time.sleep(0.01)


def check(world, snapshot, table, origin):
    """What is on a COW device between two activations."""
    devices = [dm.Device("check-origin", origin), dm.Device("check-cow", table)]
    try:
        run = subprocess.run([PROGRAM, "check", "--json", "--origin", devices[0].path, devices[1].path],
                             capture_output=True, text=True, timeout=PATIENCE)
        data = disks.read(devices[1].path)
    finally:
        for device in reversed(devices):
            device.remove()
    expected = "invalid" if snapshot.state is INVALID else "loads"
    try:
        found = json.loads(run.stdout)
    except ValueError:
        raise Wrong(f"{snapshot}: snap_check: {run.returncode}: {run.stdout}{run.stderr}") from None
    if found["verdict"] != expected or found["fault_count"] or found["warning_count"]:
        raise Wrong(f"{snapshot}: not {expected}, says snap_check: {json.dumps(found)[:1000]}")
    if snapshot.state is INVALID:
        return
    records = cow.Cow(data).check()
    olds = {old for old, _ in records}
    if snapshot is world.merging:
        if not olds <= snapshot.merged:
            raise Wrong(f"{snapshot}: a merge made records: {sorted(olds - snapshot.merged)[:5]}")
        world.note(f"{len(olds)} of {len(snapshot.merged)} chunks are left to be merged")
        world.counts["interrupted"] += 0 < len(olds) < len(snapshot.merged)
    else:
        snapshot.recorded(olds)
    world.counts["checked"] += 1


def activate(world, *options):
    """Activates all, with the store that world.store says."""
    module.use(world.store)
    lvm.run("vgchange", "-q", "-ay", *options, VG)
    for snapshot in world.snapshots:
        snapshot.store = world.store
        if snapshot.state is not INVALID:
            snapshot.state = VALID
    if world.merging:
        world.merging.store = world.store
    world.synchronize()
    owned(world)
    # what a merge that goes on by now may fill up can be gone before it is read
    doomed = world.doomed()
    world.compare(*(target for target in (None, *world.alive(VALID, OVERFLOW)) if target not in doomed))


def owned(world):
    """The module is used as often as there are snapshots of it; with the Rust core, origins and merges use it, too."""
    if module.CORE == "rust":
        if module.ours() != (world.store == "rust"):
            raise Wrong(f"the targets are {module.core()}'s")
        return
    if not module.loaded():
        return
    there = world.snapshots + ([world.merging] if world.merging else [])
    expected = sum(snapshot.store == "rust" for snapshot in there)
    if module.refcount() != expected:
        raise Wrong(f"the module is used {module.refcount()} times, not {expected}")


def reactivate(world, *options):
    """All is deactivated and activated again, as by a reboot; sometimes with the other store."""
    before = world.store
    wants_c = world.rng.random() < 0.25 or not world.counts["C activations"]
    may_be_c = not any(overruns_c(snapshot.cow_sectors, snapshot.chunk) for snapshot in world.snapshots)
    world.store = "c" if wants_c and may_be_c else "rust"
    reloads = world.rng.choice([0, 0, 1, 2])
    world.note(f"next activation: {world.store}, the module {reloads} times out and in")
    deactivate(world)
    for _ in range(reloads):
        module.use("c")
        module.use("rust")
    activate(world, *options)
    world.counts["module reloads"] += reloads + (before != world.store)
    world.counts["C activations"] += world.store == "c"


def attempt_to_unload(world):
    """A module in use does not go."""
    world.note("rmmod while in use")
    try:
        module.unload()
    except OSError as e:
        world.counts["refused rmmods"] += 1
        if not module.loaded():
            raise Wrong(f"rmmod said {e}, but the module is gone") from e
        return
    raise Wrong("rmmod of a module in use succeeded")


def beside_c(world):
    """The module is loaded while snapshots are the C store's: those stay, new ones are ours."""
    times = world.rng.randint(0, 3)
    world.note(f"insmod beside the C store's snapshots, {times} times out and in")

    def load():
        for _ in range(times):
            module.load()
            module.unload_patiently()
        module.use("rust")

    world.burst(world.streams(), load)
    world.store = "rust"
    world.counts["module reloads"] += times + 1
    owned(world)

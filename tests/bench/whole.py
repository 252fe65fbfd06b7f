# SPDX-License-Identifier: GPL-2.0-only
"""Workloads that are timed as a whole: activation, merge; what depends on how many exceptions a snapshot has; and the
memory that a snapshot takes."""

import time
from contextlib import ExitStack, contextmanager

import fio
import metadata
import module
from counters import Block, Memory, cpu_seconds
from devices import NullBlk, zero
from measured import Measured, figures
from stores import snapshot, verify
from target import Device

ORIGIN_MIB = 64 << 10
SNAPSHOTS = 8
OTHERS = 3


def _cow_mib(case, size):
    return (metadata.sectors(case.chunk_kib, size) >> 11) + 1


@contextmanager
def _activated(machine, case, store):
    """Yields the origin, the snapshot, and the figures of its activation."""
    origin_chunks = (ORIGIN_MIB << 10) // case.chunk_kib
    (origin, cow), _ = machine.devices(
        "activate", [ORIGIN_MIB, _cow_mib(case, case.size)], case.device, key=(case.chunk_kib, case.size),
        prepare=lambda devices: metadata.write(devices[1].path, case.chunk_kib, case.size, origin_chunks, True))
    module.choose(store)
    with Device("origin", origin.sectors, "snapshot-origin", origin.path):
        memory, cpu, start = Memory(), cpu_seconds(), time.monotonic()
        with Device("snapshot", origin.sectors, "snapshot", f"{origin.path} {cow.path} P {case.chunk_kib * 2}") as snap:
            seconds = time.monotonic() - start
            cpu = cpu_seconds() - cpu
            verify(store)
            found = snap.exceptions(case.chunk_kib)
            if found != case.size:
                raise RuntimeError(f"{found} exceptions, not {case.size}")
            yield origin, snap, {
                "seconds": seconds, "us_per_exception": seconds * 1e6 / case.size,
                "cpu_us_per_exception": cpu * 1e6 / case.size,
                "memory_bytes_per_exception": (memory.free - Memory().free) / case.size,
            }


def activate(machine, case, store):
    with _activated(machine, case, store) as (_, snap, found):
        if case.workload != "activate-10m":
            return found
        # it takes minutes: what else is to be known of a snapshot as large comes of the same activation
        return {case.workload: found, "snapread-rand-10m": _reads(machine, case, snap, "randread", 4, 32)}


def snapread(machine, case, store):
    """A backup's reads, and a database's, of a snapshot with many exceptions."""
    with _activated(machine, case, store) as (_, snap, _):
        return {"snapread-seq": _reads(machine, case, snap, "read", 1024, 1),
                "snapread-rand": _reads(machine, case, snap, "randread", 4, 8)}


def _reads(machine, case, snap, rw, kib, depth):
    # any device that may be written does to find out what fio costs
    (spare,), _ = machine.devices("spare", [64], (0, 0))
    measured = Measured(spare.path)
    result = measured.run(lambda: fio.steadily(snap.path, rw, kib, ORIGIN_MIB, depth, case.seconds))
    return figures(result) | {"queue_depth": depth, "cpu_us_per_request": measured.cpu * 1e6 / result.count}


def _merge_devices(machine, case, size, others=0):
    """The origin, and the COW devices of the snapshot that is merged and of others."""
    cows = [_cow_mib(case, size)] * (1 + others)
    devices, _ = machine.devices(f"merge{others}-", [ORIGIN_MIB, *cows], case.device, key=(case.chunk_kib, size))
    return devices


@contextmanager
def _merging(machine, case, store, others=0):
    """Yields the merge of a new snapshot with many exceptions, and what was counted and timed since it began."""
    size = case.size_for(store)
    origin, cow, *beside = _merge_devices(machine, case, size, others)
    metadata.write(cow.path, case.chunk_kib, size, 4 * size, case.workload != "merge-sequential")
    module.choose(store)
    with ExitStack() as stack:
        snapshots = []
        for n, other in enumerate(beside):
            zero(other.path, 4096)
            snapshots.append(stack.enter_context(Device(
                f"beside{n}", origin.sectors, "snapshot", f"{origin.path} {other.path} P {case.chunk_kib * 2}")))
        block, cpu, start = Block(cow.name), cpu_seconds(), time.monotonic()
        merging = stack.enter_context(Device("merge", origin.sectors, "snapshot-merge",
                                             f"{origin.path} {cow.path} P {case.chunk_kib * 2}"))
        verify(store)
        yield merging, snapshots, size, lambda: (time.monotonic() - start, cpu_seconds() - cpu, block.since())


def _wait(merging, case):
    while merging.exceptions(case.chunk_kib):
        time.sleep(0.01)


def merge(machine, case, store):
    """Until nothing is left; `merge-beside` has other snapshots of the origin, which must get what is overwritten."""
    others = OTHERS if case.workload == "merge-beside" else 0
    if store == "targets" and case.chunk_kib == 64:
        # It writes a gigabyte to memory that the devices have not allocated yet, which takes several times as long as the
        # merge. A disk has nothing to allocate. The C core is given a twentieth of it, and waits for other things.
        with _merging(machine, case, store, others) as (merging, _, _, _):
            _wait(merging, case)
    with _merging(machine, case, store, others) as (merging, snapshots, size, so_far):
        _wait(merging, case)
        seconds, cpu, count = so_far()
        for beside in snapshots:
            if beside.exceptions(case.chunk_kib) != size:
                raise RuntimeError(f"{beside.name} has {beside.exceptions(case.chunk_kib)} exceptions, not {size}")
    return {
        "exceptions": size, "seconds": seconds, "us_per_exception": seconds * 1e6 / size,
        "metadata_sectors_per_exception": count["sectors_written"] / size,
        "flushes_per_exception": count["flushes"] / size,
        "cow_writes_per_exception": count["writes"] / size,
        "cpu_us_per_exception": cpu * 1e6 / size,
    }


def writes_while_merging(machine, case, store):
    """Somebody uses the origin meanwhile: writes that come at random, to what is merged."""
    if store == "raw":
        size = case.size_for("targets")
        origin, _ = _merge_devices(machine, case, size)
        return figures(fio.poisson(origin.path, case.rate, case.chunk_kib, case.seconds, 4 * size * case.chunk_kib >> 10))
    with _merging(machine, case, store) as (merging, _, size, _):
        megabytes = 4 * size * case.chunk_kib >> 10
        result = fio.poisson(merging.path, case.rate, case.chunk_kib, case.seconds, megabytes)
        left = merging.exceptions(case.chunk_kib)
    if not left:
        raise RuntimeError(f"the merge of {size} chunks was over before the writes were")
    return figures(result) | {"exceptions": size}


def memory(_machine, case, store):
    """Of snapshots that nobody writes to, dm-snapshot's own part and the pools for I/O included."""
    module.choose(store)
    with ExitStack() as stack:
        origin, *cows = [stack.enter_context(NullBlk(f"memory{n}", 64)) for n in range(SNAPSHOTS + 2)]
        for cow in cows:
            # the areas' pages of the device itself are not to be counted
            zero(cow.path, 4 << 20)
        # the first snapshot brings what all share
        with snapshot(store, origin, cows[:1], case.chunk_kib):
            before = Memory()
            for n, cow in enumerate(cows[1:]):
                stack.enter_context(Device(f"memory{n}", origin.sectors, "snapshot",
                                           f"{origin.path} {cow.path} P {case.chunk_kib * 2}"))
            after = Memory()
    return {
        "vmalloc_kib_per_snapshot": (after.vmalloc - before.vmalloc) / 1024 / SNAPSHOTS,
        "memory_kib_per_snapshot": (before.free - after.free) / 1024 / SNAPSHOTS,
    }

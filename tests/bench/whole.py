# SPDX-License-Identifier: GPL-2.0-only
"""Workloads that are timed as a whole: activation, merge; and the memory that a snapshot takes."""

import time
from contextlib import ExitStack

import metadata
from counters import Block, Memory, cpu_seconds
from devices import NullBlk, zero
from dm import Device
from stores import choose, snapshot, verify

ORIGIN_MIB = 64 << 10
SNAPSHOTS = 8


def activate(machine, case, store):
    origin_chunks = (ORIGIN_MIB << 10) // case.chunk_kib
    size = (metadata.sectors(case.chunk_kib, case.size) >> 11) + 1
    (origin, cow), _ = machine.devices(
        "activate", [ORIGIN_MIB, size], case.device, key=(case.chunk_kib, case.size),
        prepare=lambda devices: metadata.write(devices[1].path, case.chunk_kib, case.size, origin_chunks, True))
    choose(store)
    with Device("origin", origin.sectors, "snapshot-origin", origin.path):
        cpu, start = cpu_seconds(), time.monotonic()
        with Device("snapshot", origin.sectors, "snapshot", f"{origin.path} {cow.path} P {case.chunk_kib * 2}") as snap:
            seconds = time.monotonic() - start
            cpu = cpu_seconds() - cpu
            verify(store)
            found = snap.exceptions(case.chunk_kib)
            if found != case.size:
                raise RuntimeError(f"{found} exceptions, not {case.size}")
    return {"seconds": seconds, "cpu_us_per_exception": cpu * 1e6 / case.size}


def merge(machine, case, store):
    size = (metadata.sectors(case.chunk_kib, case.size) >> 11) + 1
    (origin, cow), _ = machine.devices("merge", [ORIGIN_MIB, size], case.device, key=(case.chunk_kib, case.size))
    metadata.write(cow.path, case.chunk_kib, case.size, 4 * case.size, case.workload == "merge-scattered")
    choose(store)
    block, cpu, start = Block(cow.name), cpu_seconds(), time.monotonic()
    with Device("merge", origin.sectors, "snapshot-merge",
                f"{origin.path} {cow.path} P {case.chunk_kib * 2}") as merging:
        verify(store)
        while merging.exceptions(case.chunk_kib):
            time.sleep(0.02)
        seconds = time.monotonic() - start
        cpu = cpu_seconds() - cpu
    count = Block.total([block])
    return {
        "seconds": seconds,
        "metadata_sectors_per_exception": count["sectors_written"] / case.size,
        "flushes_per_exception": count["flushes"] / case.size,
        "cow_writes_per_exception": count["writes"] / case.size,
        "cpu_us_per_exception": cpu * 1e6 / case.size,
    }


def memory(_machine, case, store):
    """Of snapshots that nobody writes to, dm-snapshot's own part and the pools for I/O included."""
    choose(store)
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

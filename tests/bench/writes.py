# SPDX-License-Identifier: GPL-2.0-only
"""Workloads that write, and count what that takes."""

import fio
from cases import REGION_MIB
from counters import Block
from devices import flush_times
from measured import Measured, figures
from stores import ThinPool, snapshot

ORIGIN_MIB = 64 << 10  # far more than is ever written: null_blk has memory for what is
COWS = 4
SEQUENTIAL_MIB = 128
AHEAD_MIB = 8  # AheadLimits::USUAL


def _devices(machine, case):
    def fill(devices):
        for device in devices:
            fio.sequential(device.path, REGION_MIB + 64, 8)

    (origin, *cows), _ = machine.devices("write", [ORIGIN_MIB] + [REGION_MIB + 512] * COWS, case.device, prepare=fill)
    return origin, cows


def _thin(machine, case):
    block = max(ThinPool.BLOCK_KIB, case.chunk_kib)
    _, pool = machine.devices("thin", [64, 2 * REGION_MIB + 64], case.device, key=block,
                              prepare=lambda devices: ThinPool(*devices, REGION_MIB, block))
    return pool


def _run(machine, case, store, job, target=lambda snap: snap.origin, cow_count=1,
         expected=lambda result: (result.count, result.count)):
    """Runs job(path) with nothing, a thin snapshot or snapshots under it, each of which gets as many exceptions as
    `expected` says: at least, and at most."""
    origin, cows = _devices(machine, case)
    if store == "raw":
        return figures(job(origin.path))
    if store == "thin":
        with _thin(machine, case).snapshot() as volume:
            return figures(job(volume.path))
    measured = Measured(origin.path)
    with snapshot(store, origin, cows[:cow_count], case.chunk_kib) as snap:
        blocks, below = [Block(cow.name) for cow in cows[:cow_count]], Block(origin.name)
        result = measured.run(lambda: job(target(snap).path))
        count, of_origin = Block.total(blocks), below.since()
        new = snap.exceptions()
    least, most = expected(result) if expected else (0, new)
    if not least * cow_count <= new <= most * cow_count:
        raise RuntimeError(f"{new} exceptions of {result.count} writes, not {least} to {most} in each of {cow_count}")
    requests = sum(counts[what] for counts in (count, of_origin) for what in ("reads", "writes", "flushes"))
    return figures(result) | {
        "metadata_sectors_per_exception": count["sectors_written"] / new - case.chunk_kib * 2,
        "flushes_per_exception": count["flushes"] / new,
        "cow_writes_per_exception": count["writes"] / new,
        "cpu_us_per_exception": measured.cpu * 1e6 / new,
        "origin_sectors_read_per_write": of_origin["sectors_read"] / result.count,
        "requests_per_mib": requests / (result.bytes / (1 << 20)),
    }


def _scattered(case):
    return lambda path: fio.fresh_chunks(path, case.writes(), case.chunk_kib, case.queue_depth)


def randwrite(machine, case, store):
    return _run(machine, case, store, _scattered(case))


def multi(machine, case, store):
    return _run(machine, case, store, _scattered(case), cow_count=COWS)


def snapwrite_whole(machine, case, store):
    """Whole chunks, of which nothing has to be copied."""
    def job(path):
        return fio.fresh_chunks(path, case.writes(), case.chunk_kib, case.queue_depth, kib=case.chunk_kib)

    result = _run(machine, case, store, job, target=lambda snap: snap.snapshots[0])
    return {field: value for field, value in result.items() if not field.startswith(("metadata", "cow_writes"))}


def snapwrite(machine, case, store):
    # what is written to the snapshot itself is on the COW device too, once its chunk is
    result = _run(machine, case, store, _scattered(case), target=lambda snap: snap.snapshots[0])
    result["metadata_sectors_per_exception"] -= fio.BLOCK // 512
    result["cow_writes_per_exception"] -= 1
    return result


def seqwrite(machine, case, store):
    # ours copies ahead, also of the last write
    least = (SEQUENTIAL_MIB << 10) // case.chunk_kib
    most = least + ((AHEAD_MIB << 10) // case.chunk_kib if store == "targets" else 0)
    return _run(machine, case, store, lambda path: fio.sequential(path, SEQUENTIAL_MIB, case.queue_depth),
                expected=lambda _: (least, most))


def covered(machine, case, store):
    """Writes to chunks that the snapshot has already."""
    return _beside(machine, case, store, "randwrite")


def origin_read(machine, case, store):
    """Reads of an origin that has a snapshot."""
    return _beside(machine, case, store, "randread")


def _beside(machine, case, store, rw):
    """Requests to the origin that have nothing to do with the snapshot: no exception comes of them."""
    origin, (cow, *_) = _devices(machine, case)
    measured = Measured(origin.path)

    def job(path):
        result = measured.run(lambda: fio.steadily(path, rw, 4, REGION_MIB, case.queue_depth, case.seconds))
        return figures(result) | {"cpu_us_per_request": measured.cpu * 1e6 / result.count}

    if store == "raw":
        return job(origin.path)
    with snapshot(store, origin, [cow], case.chunk_kib) as snap:
        fio.sequential(snap.origin.path, REGION_MIB, 8)
        before = snap.exceptions()
        found = job(snap.origin.path)
        # ours has copied ahead, too
        if before != snap.exceptions() or before < (REGION_MIB << 10) // case.chunk_kib:
            raise RuntimeError(f"{before} exceptions, and then {snap.exceptions()}: the region was not covered")
    return found


def poisson(machine, case, store):
    # what a thin snapshot shares is in the part that was written before
    size = REGION_MIB if store == "thin" else ORIGIN_MIB
    return _run(machine, case, store, lambda path: fio.poisson(
        path, case.rate, case.chunk_kib, case.seconds, size), expected=None)


def chain(machine, case, _store):
    """The five requests that a write at depth 1 cannot do without, each alone on the same devices."""
    origin, (cow, *_) = _devices(machine, case)
    count = max(50, case.writes() // 4)
    parts = [
        fio.one_by_one(origin.path, "read", case.chunk_kib, count),
        fio.one_by_one(cow.path, "write", case.chunk_kib, count),
        fio.one_by_one(cow.path, "write", 4, count, "--sync=dsync"),  # with FUA
        fio.one_by_one(origin.path, "write", 4, count),
    ]
    flushes = flush_times(cow.path, count)
    return {"iops": 1e6 / (sum(part.mean_us for part in parts) + sum(flushes) / count),
            "p50_us": sum(part.p50_us for part in parts) + flushes[count // 2]}

#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Usage: report.py RESULTS.JSON

Prints the ratios of a benchmark's medians and whether they keep their bounds. plot.py draws them.
Figures are reported, not judged: the exit status is 0.
"""

import json
import sys
from pathlib import Path

from results import Results, describe

# A count per exception differs by how much of the next area's zeroing a run happens to see.
GRAIN = 1.005


class Bound:
    """A figure that has a limit: most are ratios."""

    def __init__(self, title, at_least=None, at_most=None):
        self.title, self.at_least, self.at_most = title, at_least, at_most
        self.lines = []

    def add(self, where, value):
        if value is not None:
            kept = value >= self.at_least if self.at_most is None else value <= self.at_most * GRAIN
            self.lines.append((where, value, kept))
        return self

    def limit(self):
        return f"<= {self.at_most:.4g}" if self.at_least is None else f">= {self.at_least:.4g}"


def bounds(results):
    """All figures that have a bound of their own."""
    yield from store_bounds(results)
    yield from targets_bounds(results)
    for store in "rust", "targets":
        rest = Bound(f"anything else, {store} : C: IOPS, or the time of an exception the other way round", at_least=0.95)
        for key in results.keys:
            value = results.ratio(key, "iops", store)
            if value is None:
                value = faster(results, key, store)
            rest.add(describe(key), value)
        yield rest


def faster(results, key, store):
    """How many times as fast as C something goes that is timed as a whole."""
    value = results.ratio(key, "us_per_exception", store)
    return 1 / value if value else None


def ratios(results, store, title, field, keys, **limit):
    bound = Bound(f"{store} : C: {title}", **limit)
    for key in keys:
        bound.add(describe(key), results.ratio(key, field, store))
    return bound


def speeds(results, store, title, keys, at_least):
    bound = Bound(f"{store} : C: {title}, times as fast", at_least=at_least)
    for key in keys:
        bound.add(describe(key), faster(results, key, store))
    return bound


def store_bounds(results):
    """What the store gains under the C core."""
    find = results.find
    for chunk, limit in (64, 1 / 16), (256, 1 / 64):
        yield ratios(results, "rust", f"metadata sectors per exception, QD1, {chunk} KiB",
                     "metadata_sectors_per_exception", find("randwrite", chunk_kib=chunk, queue_depth=1), at_most=limit)
    yield ratios(results, "rust", "IOPS at QD1 on a 100 MB/s device, every write to a fresh chunk", "iops",
                 [key for chunk in (64, 256) for key in find("randwrite", chunk_kib=chunk, queue_depth=1, mbps=100)],
                 at_least=1.3)
    yield speeds(results, "rust", "merge of scattered chunks, 4 KiB, 1 ms",
                 find("merge-scattered", chunk_kib=4, latency_us=1000, mbps=0), at_least=1.15)
    yield speeds(results, "rust", "merge of scattered chunks, 64 KiB, 1 ms, 100 MB/s",
                 find("merge-scattered", chunk_kib=64, latency_us=1000, mbps=100), at_least=1.3)
    for latency, limit in (1000, 2), (5000, 4):
        yield speeds(results, "rust", f"activation of 1 M exceptions, {latency // 1000} ms",
                     find("activate-1m", latency_us=latency), at_least=limit)
    # medians: the time of the five on the bare device is added up, and one that waits for the CPU spoils a mean
    limit = Bound("five requests of the same device : time of a write at QD1", at_least=0.95)
    for key in find("randwrite", queue_depth=1, mbps=0):
        chain, rust = results.get(("chain", *key[1:]), "raw", "p50_us"), results.get(key, "rust", "p50_us")
        if chain and rust:
            limit.add(describe(key), chain / rust)
    yield limit
    for chunk, at_most in (4, 1.0), (256, 0.7):
        yield ratios(results, "rust", f"CPU per exception, {chunk} KiB, QD1", "cpu_us_per_exception",
                     find("randwrite", chunk_kib=chunk, queue_depth=1), at_most=at_most)
    yield ratios(results, "rust", "memory per snapshot, 512 KiB", "memory_kib_per_snapshot", find("memory"), at_most=0.5)


def write_bounds(results):
    """What the targets gain where chunks are copied for writes, and where a snapshot is written."""
    find, targets = results.find, "targets"
    yield ratios(results, targets, "four snapshots: origin sectors read a write", "origin_sectors_read_per_write",
                 find("multi", chunk_kib=64), at_most=1 / 3.5)
    for title, wanted, limit in (("100 MB/s", {"mbps": 100}, 3), ("no limit", {"latency_us": 1000, "mbps": 0}, 1.15)):
        yield ratios(results, targets, f"four snapshots, QD8, {title}: IOPS", "iops",
                     find("multi", chunk_kib=64, queue_depth=8, **wanted), at_least=limit)
    deep = [(latency, depth) for latency in (1000, 100) for depth in (32, 128)]
    for latency, depth in deep:
        keys = find("randwrite", chunk_kib=64, queue_depth=depth, latency_us=latency, mbps=0)
        limit = 1.3 if (latency, depth) == (1000, 32) else 1.15
        yield ratios(results, targets, f"random writes, 64 KiB chunks, QD{depth}, {latency / 1000:g} ms: IOPS", "iops",
                     keys, at_least=limit)
        beside = Bound(f"targets : thin: random writes, 64 KiB chunks, QD{depth}, {latency / 1000:g} ms: IOPS", at_least=1)
        for key in keys:
            ours, thin = results.get(key, targets, "iops"), results.get(key, "thin", "iops")
            beside.add(describe(key), ours / thin if thin else None)
        yield beside
    yield ratios(results, targets, "random writes, 64 KiB chunks, QD1, COW with FUA: IOPS", "iops",
                 find("randwrite", chunk_kib=64, queue_depth=1, mbps=0), at_least=1.15)
    sequential = find("seqwrite", chunk_kib=64, queue_depth=1)
    for mbps, limit in (0, 3), (100, 1.4):
        yield ratios(results, targets, "sequential writes of 1 MiB, QD1: IOPS", "iops",
                     [key for key in sequential if key[3] == 1000 and key[4] == mbps or key[4] == mbps == 100],
                     at_least=limit)
    yield ratios(results, targets, "sequential writes of 1 MiB: requests a MiB", "requests_per_mib",
                 [key for key in sequential if key[4] == 0], at_most=1 / 5)
    yield ratios(results, targets, "writes to a snapshot, parts of chunks, QD32: IOPS", "iops",
                 find("snapwrite", queue_depth=32), at_least=2)
    yield ratios(results, targets, "writes to a snapshot, whole chunks, QD1: IOPS", "iops",
                 find("snapwrite-whole", queue_depth=1), at_least=2)
    for kind in "ext4", "xfs", "sqlite":
        yield ratios(results, targets, f"synced writes to a file system, {kind}", "iops", find(f"fs-{kind}"), at_least=1)


REQUEST_US = 1150  # one of a device of 1 ms, as measured


def targets_bounds(results):
    """What the targets gain."""
    find, targets = results.find, "targets"
    yield speeds(results, targets, "activation of 10 M exceptions, 1 ms", find("activate-10m", latency_us=1000), 30)
    yield speeds(results, targets, "activation of 1 M exceptions, 1 ms", find("activate-1m", latency_us=1000), 4)
    memory = Bound("targets: memory an exception at 10 M, bytes", at_most=12)
    for key in find("activate-10m"):
        memory.add(describe(key), results.get(key, targets, "memory_bytes_per_exception"))
    yield memory
    yield ratios(results, targets, "CPU a 4 KiB read of a snapshot with 10 M exceptions", "cpu_us_per_request",
                 find("snapread-rand-10m"), at_most=0.5)
    yield ratios(results, targets, "1 MiB reads of a snapshot with 1 M exceptions, IOPS", "iops",
                 find("snapread-seq", latency_us=100), at_least=3)
    for workload, what in ("covered", "write to a chunk already copied"), ("origin-read", "read of the origin"):
        yield ratios(results, targets, f"CPU a {what}", "cpu_us_per_request", find(workload), at_most=1.0)
    yield from merge_bounds(results)
    yield from write_bounds(results)


def merge_bounds(results):
    find, targets = results.find, "targets"
    for chunk, limit in (4, 50), (64, 30):
        yield speeds(results, targets, f"merge of scattered chunks, {chunk} KiB, 1 ms",
                     find("merge-scattered", chunk_kib=chunk, latency_us=1000, mbps=0), limit)
    yield speeds(results, targets, "merge of sequential chunks", find("merge-sequential"), 1.0)
    share = Bound("targets: merge, of what the device's bandwidth allows", at_least=0.9)
    for workload in "merge-scattered", "merge-sequential":
        for key in find(workload, chunk_kib=64, mbps=100):
            pace = results.get(key, targets, "us_per_exception")
            share.add(describe(key), key[1] / 1024 / key[4] * 1e6 / pace if pace else None)
    yield share
    waiting = Bound("targets: p99 of writes while merging, requests of the device", at_most=10)
    for key in find("merge-writes"):
        p99, raw = results.get(key, targets, "p99_us"), results.get(key, "raw", "p99_us")
        # what the guest itself keeps a write waiting
        beside = f" (the bare device: {raw / REQUEST_US:.1f})" if raw else ""
        waiting.add(describe(key) + beside, p99 / REQUEST_US if p99 else None)
    yield waiting
    yield ratios(results, targets, "p99 of writes while merging", "p99_us", find("merge-writes"), at_most=1.0)
    yield speeds(results, targets, "merge beside three other snapshots", find("merge-beside"), 20)
    growth = Bound("targets: time an exception takes to merge, to that of 10 k", at_most=1.1)
    for name in "100k", "1m":
        for key in find(f"merge-scattered-{name}"):
            pace, small = (results.get((f"merge-scattered-{size}", *key[1:]), targets, "us_per_exception")
                           for size in (name, "10k"))
            growth.add(describe(key), pace / small if pace and small else None)
    yield growth


def print_table(results):
    """All medians, where there are two to compare."""
    fields = [("IOPS", "iops"), ("p50 us", "p50_us"), ("p99 us", "p99_us"), ("seconds", "seconds"),
              ("metadata", "metadata_sectors_per_exception"), ("flushes", "flushes_per_exception"),
              ("CPU us", "cpu_us_per_exception"), ("CPU us a request", "cpu_us_per_request"),
              ("origin read", "origin_sectors_read_per_write"), ("requests a MiB", "requests_per_mib"),
              ("bytes", "memory_bytes_per_exception")]
    for store in "rust", "targets":
        if not any(name == store for _, name in results.runs):
            continue
        print(f"{store + ' : C, medians':40}", *(f"{title:>22}" for title, _ in fields))
        for key in results.keys:
            cells = []
            for _, field in fields:
                c, ours, ratio = (results.get(key, "c", field), results.get(key, store, field),
                                  results.ratio(key, field, store))
                cells.append("" if ours is None else f"{ours:.4g}" if c is None else f"{ours:.4g} : {c:.4g}" +
                             (f" = {ratio:.3f}" if ratio is not None else ""))
            if any(cells):
                beside = [f"{other} {results.get(key, other, 'iops'):.4g}" for other in ("raw", "thin")
                          if results.get(key, other, "iops")]
                print(f"{describe(key):40}", *(f"{cell:>22}" for cell in cells), *beside)
        print()


def print_bounds(results):
    print("bound" + " " * 67 + "limit    figure")
    for bound in bounds(results):
        missed = [line for line in bound.lines if not line[2]]
        if not bound.lines:
            print(f"{bound.title:70}  {bound.limit():>10}  not measured")
        elif bound.title.startswith("anything"):
            worst = min(bound.lines, key=lambda line: line[1])
            print(f"{bound.title:70}  {bound.limit():>10}  {worst[1]:8.3f}  {'MISSED' if missed else 'ok'}"
                  f"  (the least of {len(bound.lines)}: {worst[0]})")
            for where, value, _ in missed:
                print(f"    {where:66}  {'':>10}  {value:8.3f}  MISSED")
        else:
            print(f"{bound.title:70}  {bound.limit():>10}")
            for where, value, kept in bound.lines:
                print(f"    {where:66}  {'':>10}  {value:8.4f}  {'ok' if kept else 'MISSED'}")


def print_about(file):
    """The clock tick decides what a guest's waiting costs."""
    if file.exists():
        about = json.loads(file.read_text())
        print(f"\n{about['kernel']}, {about['hz']} clock ticks a second, {about['guest_cpus']} CPU, {about['cpu']}")


def main():
    path = Path(sys.argv[1])
    results = Results(json.loads(path.read_text()))
    print_table(results)
    print_bounds(results)
    print_about(path.parent / "about.json")


if __name__ == "__main__":
    main()

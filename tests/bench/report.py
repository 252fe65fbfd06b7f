#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Usage: report.py RESULTS.JSON

Prints the ratios of a benchmark's medians and whether they keep their bounds, and draws plots beside the file.
Figures are reported, not judged: the exit status is 0.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median

import plot

# A count per exception differs by how much of the next area's zeroing a run happens to see.
GRAIN = 1.005


class Results:
    """Medians, by what was run."""

    def __init__(self, runs):
        self.runs = defaultdict(list)
        for run in runs:
            key = tuple(run[name] for name in ("workload", "chunk_kib", "queue_depth", "latency_us", "mbps"))
            self.runs[key, run["store"]].append(run)
        self.keys = list(dict.fromkeys(key for key, _ in self.runs))

    def get(self, key, store, field):
        values = [run[field] for run in self.runs.get((key, store), []) if run.get(field) is not None]
        return median(values) if values else None

    def ratio(self, key, field):
        """Rust : C."""
        rust, c = self.get(key, "rust", field), self.get(key, "c", field)
        return rust / c if rust is not None and c else None

    def find(self, workload, **wanted):
        """The keys of runs of a workload, where what is given is equal."""
        names = ("chunk_kib", "queue_depth", "latency_us", "mbps")
        return [key for key in self.keys if key[0] == workload
                and all(key[1 + names.index(name)] == value for name, value in wanted.items())]


def describe(key):
    workload, chunk, depth, latency, mbps = key
    words = [workload, f"{chunk} KiB"] + ([f"QD{depth}"] if depth else []) + [f"{latency / 1000:g} ms"]
    return ", ".join(words + ([f"{mbps} MB/s"] if mbps else []))


class Bound:
    """A figure of Rust : C that has a limit."""

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
    def ratios(title, field, keys, at_least=None, at_most=None, inverse=False):
        bound = Bound(title, at_least, at_most)
        for key in keys:
            value = results.ratio(key, field)
            bound.add(describe(key), 1 / value if inverse and value else value)
        return bound

    find = results.find
    for chunk, limit in (64, 1 / 16), (256, 1 / 64):
        yield ratios(f"metadata sectors per exception, QD1, {chunk} KiB", "metadata_sectors_per_exception",
                     find("randwrite", chunk_kib=chunk, queue_depth=1), at_most=limit)
    yield ratios("IOPS at QD1 on a 100 MB/s device, every write to a fresh chunk", "iops",
                 [key for chunk in (64, 256) for key in find("randwrite", chunk_kib=chunk, queue_depth=1, mbps=100)],
                 at_least=1.3)
    yield ratios("merge of scattered chunks, 4 KiB, 1 ms", "seconds",
                 find("merge-scattered", chunk_kib=4, latency_us=1000, mbps=0), at_least=1.15, inverse=True)
    yield ratios("merge of scattered chunks, 64 KiB, 1 ms, 100 MB/s", "seconds",
                 find("merge-scattered", chunk_kib=64, latency_us=1000, mbps=100), at_least=1.3, inverse=True)
    for latency, limit in (1000, 2), (5000, 4):
        yield ratios(f"activation of 1 M exceptions, {latency // 1000} ms", "seconds",
                     find("activate-1m", latency_us=latency), at_least=limit, inverse=True)
    # medians: the time of the five on the bare device is added up, and one that waits for the CPU spoils a mean
    limit = Bound("five requests of the same device : time of a write at QD1", at_least=0.95)
    for key in find("randwrite", queue_depth=1, mbps=0):
        chain, rust = results.get(("chain", *key[1:]), "raw", "p50_us"), results.get(key, "rust", "p50_us")
        if chain and rust:
            limit.add(describe(key), chain / rust)
    yield limit
    for chunk, at_most in (4, 1.0), (256, 0.7):
        yield ratios(f"CPU per exception, {chunk} KiB, QD1", "cpu_us_per_exception",
                     find("randwrite", chunk_kib=chunk, queue_depth=1), at_most=at_most)
    yield ratios("memory per snapshot, 512 KiB", "memory_kib_per_snapshot", find("memory"), at_most=0.5)
    rest = Bound("anything else: IOPS, or seconds the other way round", at_least=0.95)
    for key in results.keys:
        value = results.ratio(key, "iops")
        if value is None:
            seconds = results.ratio(key, "seconds")
            value = 1 / seconds if seconds else None
        rest.add(describe(key), value)
    yield rest


def print_table(results):
    """All medians."""
    fields = [("IOPS", "iops"), ("p50 us", "p50_us"), ("p99 us", "p99_us"), ("seconds", "seconds"),
              ("metadata", "metadata_sectors_per_exception"), ("flushes", "flushes_per_exception"),
              ("CPU us", "cpu_us_per_exception")]
    print(f"{'Rust : C, medians':40}", *(f"{title:>22}" for title, _ in fields))
    for key in results.keys:
        cells = []
        for _, field in fields:
            c, rust, ratio = results.get(key, "c", field), results.get(key, "rust", field), results.ratio(key, field)
            cells.append(f"{rust:.4g} : {c:.4g}" + (f" = {ratio:.3f}" if ratio is not None else "")
                         if c is not None and rust is not None else "")
        beside = [f"{store} {results.get(key, store, 'iops'):.4g}" for store in ("raw", "thin")
                  if results.get(key, store, "iops")]
        print(f"{describe(key):40}", *(f"{cell:>22}" for cell in cells), *beside)


def print_bounds(results):
    print("\nbound" + " " * 67 + "limit    Rust : C")
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


def main():
    path = Path(sys.argv[1])
    results = Results(json.loads(path.read_text()))
    print_table(results)
    print_bounds(results)
    for file in plot.draw(results, path.parent):
        print(f"plot: {file}")


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: GPL-2.0-only
"""What a benchmark found, as results.json has it: medians, by what was run."""

from collections import defaultdict
from statistics import median


class Results:

    def __init__(self, runs):
        self.runs = defaultdict(list)
        for run in runs:
            key = tuple(run[name] for name in ("workload", "chunk_kib", "queue_depth", "latency_us", "mbps"))
            self.runs[key, run["store"]].append(run)
        self.keys = list(dict.fromkeys(key for key, _ in self.runs))

    def get(self, key, store, field):
        values = [run[field] for run in self.runs.get((key, store), []) if run.get(field) is not None]
        return median(values) if values else None

    def spread(self, key, store, field):
        """The least and the most of the rounds."""
        values = [run[field] for run in self.runs.get((key, store), []) if run.get(field) is not None]
        return (min(values), max(values)) if values else None

    def ratio(self, key, field, store):
        """Of a store's figure to that of C throughout."""
        ours, c = self.get(key, store, field), self.get(key, "c", field)
        return ours / c if ours is not None and c else None

    def find(self, workload, **wanted):
        """The keys of runs of a workload, where what is given is equal."""
        names = ("chunk_kib", "queue_depth", "latency_us", "mbps")
        return [key for key in self.keys if key[0] == workload
                and all(key[1 + names.index(name)] == value for name, value in wanted.items())]


def describe(key):
    workload, chunk, depth, latency, mbps = key
    words = [workload, f"{chunk} KiB"] + ([f"QD{depth}"] if depth else []) + [f"{latency / 1000:g} ms"]
    return ", ".join(words + ([f"{mbps} MB/s"] if mbps else []))

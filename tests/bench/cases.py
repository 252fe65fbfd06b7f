# SPDX-License-Identifier: GPL-2.0-only
"""What is measured: which workloads, on which devices, how long."""

from dataclasses import dataclass, replace

# The writes of a run, at least and at most: what the memory behind the devices is for.
LEAST = 100
MOST = {4: 20000, 64: 2000, 256: 500}
REGION_MIB = 128

# Seconds that an exception takes at most, with the C core.
SLOWEST = {"activate": 1e-4, "snapread": 1e-4, "merge-beside": 0.1, "merge": 0.02}

# of the guest/module.py's stacks
CORES = ("c", "targets")
ALL = ("c", "rust", "targets")
BESIDE = ALL + ("raw", "thin")


@dataclass(frozen=True)
class Case:
    """Runs of the same workload on the same devices, one with each of `stores`, `rounds` times."""

    workload: str
    chunk_kib: int
    queue_depth: int
    latency_us: int
    mbps: int = 0
    size: int = 0  # exceptions to activate or merge; writes to a file
    targets_size: int = 0  # to merge with our targets, if it is another: they are over before a clock could tell
    rate: int = 0  # writes a second that come at random
    stores: tuple = ALL
    rounds: int = 3
    seconds: float = 1.0

    @property
    def device(self):
        return self.latency_us, self.mbps

    def size_for(self, store):
        return self.targets_size if store == "targets" and self.targets_size else self.size

    def limit(self, store):
        """After so many seconds one run is hanging: several times what it takes anywhere."""
        slowest = next((seconds for name, seconds in SLOWEST.items() if self.workload.startswith(name)), 0)
        return int(180 + self.size_for(store) * slowest / (20 if store == "targets" else 1))

    def writes(self):
        """How many writes take about `seconds`."""
        chain = 5 * (self.latency_us + 80) / 1e6 / min(self.queue_depth, 16)
        copy = 2 * self.chunk_kib / 1024 / self.mbps if self.mbps else 0
        return int(min(MOST[self.chunk_kib], max(LEAST, self.seconds / max(chain, copy))))

    def __str__(self):
        words = [self.workload, f"{self.chunk_kib} KiB"]
        if self.queue_depth:
            words.append(f"QD{self.queue_depth}")
        words.append(f"{self.latency_us / 1000:g} ms")
        if self.mbps:
            words.append(f"{self.mbps} MB/s")
        return ", ".join(words)


FAST, MIDDLE, SLOW, NARROW = (100, 0), (1000, 0), (5000, 0), (100, 100)
MERGES = [(4, *MIDDLE), (64, *MIDDLE), (64, 1000, 100)]


def _quick():
    """The figures that have a bound of their own, and a little of everything."""
    yield Case("memory", 512, 0, 0, rounds=1)
    for device in FAST, MIDDLE, NARROW:
        chain = ("chain",) if device != NARROW else ()
        for chunk in 4, 64, 256:
            yield Case("randwrite", chunk, 1, *device, stores=chain + ALL)
        if device == MIDDLE:
            yield Case("randwrite", 4, 32, *device)
            yield Case("randwrite", 64, 32, *device, stores=BESIDE)
            yield Case("randwrite", 64, 128, *device, stores=BESIDE)
            yield Case("snapwrite", 64, 32, *device, stores=CORES)
            yield Case("snapwrite-whole", 64, 1, *device, stores=CORES)
            for rate in 400, 1600:
                yield Case(f"poisson-{rate}", 64, 0, *device, rate=rate, seconds=2)
        if device == FAST:
            for depth in 32, 128:
                yield Case("randwrite", 64, depth, *device, stores=BESIDE)
        else:
            yield Case("seqwrite", 64, 1, *device, stores=BESIDE)
            yield Case("multi", 64, 8, *device, stores=CORES)
    for workload in "covered", "origin-read":
        yield Case(workload, 64, 8, *FAST, stores=ALL + ("raw",))
    for device in MIDDLE, SLOW:
        yield Case("activate-1m", 4, 0, *device, size=1_000_000)
    yield Case("snapread", 4, 0, *FAST, size=1_000_000, stores=CORES)
    yield from _file_systems()
    yield Case("activate-10m", 4, 0, *MIDDLE, size=10_000_000, stores=CORES, rounds=1)
    yield from _merges(1000, rounds=1)


def _full():
    yield Case("memory", 512, 0, 0, rounds=1)
    # null_blk does not forget that it had a limit: the narrow device last
    for device in FAST, MIDDLE, SLOW, NARROW:
        for chunk in 4, 64, 256:
            for depth in 1, 8, 32, 128:
                chain = ("chain",) if device != NARROW and depth == 1 else ()
                # a thin pool's blocks are 64 KiB at least
                yield Case("randwrite", chunk, depth, *device, stores=chain + (ALL if chunk == 4 else BESIDE))
        for depth in 1, 8:
            yield Case("seqwrite", 64, depth, *device, stores=BESIDE)
            yield Case("seqwrite", 4, depth, *device)
        for depth in 1, 32:
            yield Case("snapwrite", 64, depth, *device)
            yield Case("snapwrite-whole", 64, depth, *device)
        for chunk in 4, 64:
            yield Case("multi", chunk, 8, *device)
        for rate in 400, 1600:
            yield Case(f"poisson-{rate}", 64, 0, *device, rate=rate, seconds=4, stores=BESIDE)
    for device in FAST, MIDDLE:
        for workload in "covered", "origin-read":
            for chunk, depth in (64, 1), (64, 8), (4, 32):
                yield Case(workload, chunk, depth, *device, stores=ALL + ("raw",))
    for name, size in ("10k", 10_000), ("100k", 100_000), ("1m", 1_000_000):
        for device in FAST, MIDDLE, SLOW:
            yield Case(f"activate-{name}", 4, 0, *device, size=size)
    for device in FAST, MIDDLE:
        yield Case("snapread", 4, 0, *device, size=1_000_000)
    yield from _file_systems()
    yield Case("activate-10m", 4, 0, *MIDDLE, size=10_000_000, rounds=1)
    yield from _merges(20_000, rounds=1)  # a long one is its own average


def _file_systems():
    for workload in "fs-ext4", "fs-xfs", "fs-sqlite":
        yield Case(workload, 64, 0, *MIDDLE, size=1000, stores=CORES + ("raw", "thin"))


def _merges(size, rounds):
    for chunk, *device in MERGES:
        for kind in "scattered", "sequential":
            yield Case(f"merge-{kind}", chunk, 0, *device, size=size, targets_size=20_000, rounds=rounds)
    yield Case("merge-beside", 4, 0, *MIDDLE, size=size // 2, targets_size=20_000, rounds=rounds)
    yield Case("merge-writes", 4, 0, *MIDDLE, size=2000, targets_size=200_000, rate=400, rounds=rounds, seconds=4,
               stores=ALL + ("raw",))
    # how it grows
    for name, many in ("10k", 10_000), ("100k", 100_000), ("1m", 1_000_000):
        yield Case(f"merge-scattered-{name}", 4, 0, *FAST, size=many, stores=("targets",), rounds=1)


def cases(quick, rounds, stores):
    """Those of a quick benchmark, or of a whole one, with what there is to measure."""
    for case in _quick() if quick else _full():
        present = tuple(store for store in case.stores if store in stores or store not in ALL)
        yield replace(case, rounds=rounds or case.rounds, stores=present)

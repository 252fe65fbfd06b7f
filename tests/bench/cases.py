# SPDX-License-Identifier: GPL-2.0-only
"""What is measured: which workloads, on which devices, how long."""

from dataclasses import dataclass, replace

# The writes of a run, at least and at most: what the memory behind the devices is for.
LEAST = 100
MOST = {4: 20000, 64: 4000, 256: 1500}
REGION_MIB = 384


@dataclass(frozen=True)
class Case:
    """Runs of the same workload on the same devices, one with each of `stores`, `rounds` times."""

    workload: str
    chunk_kib: int
    queue_depth: int
    latency_us: int
    mbps: int = 0
    size: int = 0  # exceptions to activate or merge, writes a second of poisson
    stores: tuple = ("c", "rust")
    rounds: int = 3
    seconds: float = 1.0

    @property
    def device(self):
        return self.latency_us, self.mbps

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


PAIR = ("c", "rust")
FAST, MIDDLE, SLOW, NARROW = (100, 0), (1000, 0), (5000, 0), (100, 100)


def _quick():
    """The figures that have a bound of their own, and a little of everything."""
    for device in FAST, MIDDLE, NARROW:
        for chunk in 4, 64, 256:
            chain = ("chain",) if device != NARROW else ()
            others = ("raw", "thin") if device == MIDDLE and chunk == 64 else ()
            yield Case("randwrite", chunk, 1, *device, stores=chain + PAIR + others)
    for chunk in 4, 64:
        yield Case("randwrite", chunk, 32, *MIDDLE, stores=PAIR + (("raw", "thin") if chunk == 64 else ()))
    yield Case("seqwrite", 64, 1, *MIDDLE)
    yield Case("snapwrite", 64, 8, *MIDDLE)
    yield Case("multi", 64, 8, *MIDDLE)
    for rate in 400, 1600:
        yield Case(f"poisson-{rate}", 64, 0, *MIDDLE, size=rate, seconds=2)
    for device in MIDDLE, SLOW:
        yield Case("activate-1m", 4, 0, *device, size=1_000_000)
    for kind in "scattered", "sequential":
        yield Case(f"merge-{kind}", 4, 0, *MIDDLE, size=2000)
        yield Case(f"merge-{kind}", 64, 0, 1000, 100, size=2000)
    yield Case("memory", 512, 0, 0, rounds=1)


def _full():
    everything = PAIR + ("raw", "thin")
    for device in FAST, MIDDLE, SLOW, NARROW:
        for chunk in 4, 64, 256:
            for depth in 1, 8, 32, 128:
                chain = ("chain",) if device != NARROW and depth == 1 else ()
                # a thin pool's blocks are 64 KiB at least
                yield Case("randwrite", chunk, depth, *device, stores=chain + (PAIR if chunk == 4 else everything))
        for depth in 1, 8:
            yield Case("seqwrite", 64, depth, *device, stores=everything)
            yield Case("seqwrite", 4, depth, *device)
        for depth in 1, 32:
            yield Case("snapwrite", 64, depth, *device)
        for chunk in 4, 64:
            yield Case("multi", chunk, 8, *device)
        for rate in 400, 1600:
            yield Case(f"poisson-{rate}", 64, 0, *device, size=rate, seconds=4, stores=everything)
    for name, size in ("10k", 10_000), ("100k", 100_000), ("1m", 1_000_000):
        for device in FAST, MIDDLE, SLOW:
            yield Case(f"activate-{name}", 4, 0, *device, size=size)
    for kind in "scattered", "sequential":
        for chunk in 4, 64:
            yield Case(f"merge-{kind}", chunk, 0, *MIDDLE, size=20_000)
        yield Case(f"merge-{kind}", 64, 0, 1000, 100, size=20_000)
    yield Case("memory", 512, 0, 0, rounds=1)


def cases(quick, rounds):
    """In an order in which devices are made and configured but once."""
    order = {"memory": 0, "activate": 2, "merge": 3}

    def place(case):
        return order.get(case.workload.split("-")[0], 1), case.chunk_kib if "merge" in case.workload else 0, case.mbps, case.size if "activate" in case.workload else 0, case.latency_us

    found = sorted(_quick() if quick else _full(), key=place)
    return [replace(case, rounds=rounds or case.rounds) for case in found]

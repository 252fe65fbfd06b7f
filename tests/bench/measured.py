# SPDX-License-Identifier: GPL-2.0-only
"""What fio found, and the CPU time that its requests took."""

import fio
from counters import cpu_seconds

_startup = []


def _fio_startup(path):
    """The CPU time that starting fio takes, for one write."""
    while len(_startup) < 5:
        before = cpu_seconds()
        fio.fresh_chunks(path, 1, 4, 1)
        _startup.append(cpu_seconds() - before)
    return sorted(_startup)[2]


def figures(result):
    return {"iops": result.iops, "p50_us": result.p50_us, "p99_us": result.p99_us}


class Measured:
    """Made before there is a snapshot of the device: it is written to. `cpu` is what the last run took, in seconds."""

    def __init__(self, path):
        self.startup = _fio_startup(path)
        self.cpu = None

    def run(self, job):
        before = cpu_seconds()
        result = job()
        self.cpu = max(cpu_seconds() - before - self.startup, 0)
        return result

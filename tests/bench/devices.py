# SPDX-License-Identifier: GPL-2.0-only
"""null_blk devices of known latency and bandwidth.

A device keeps its data when it is reconfigured, so that it can be filled at full speed and measured afterwards.

Its cache never gets full. When it does, every write makes room in it: null_make_cache_space() marks pages and lets go of
the lock to allocate memory for each (null_insert_page()). Whoever comes while that thread sleeps finds all pages marked,
lets go of the lock and takes it again, and again: there is no point at which it would be taken off the processor, and
with one processor and a kernel that preempts at such points only, the first never goes on.
"""

import fcntl
import os
import time
from pathlib import Path

ROOT = Path("/sys/kernel/config/nullb")
BLOCK = 4096
CACHE_MIB = 4096  # more than is written to a device in a run; it is emptied between runs
_BLKFLSBUF = 0x1261


class NullBlk:
    """One device. Memory is used for what was written to it only, whatever its size."""

    def __init__(self, name, megabytes):
        self.name = name
        self.directory = ROOT / name
        self.path = f"/dev/{name}"
        self.sectors = megabytes << 11
        self.was_throttled = False
        self.directory.mkdir()
        self._set(size=megabytes, blocksize=BLOCK, memory_backed=1, irqmode=2, hw_queue_depth=256, submit_queues=1)
        self.configure(latency_us=0, mbps=0)

    def _set(self, **attributes):
        for name, value in attributes.items():
            (self.directory / name).write_text(str(value))

    def configure(self, latency_us, mbps):
        """latency_us: how long a request takes; mbps: how many MiB/s pass, 0 for any. A volatile write cache
        makes every flush a request of its own."""
        if (self.directory / "power").read_text().strip() == "1":
            sync(self.path)  # what is in the volatile cache is lost when the power goes
            self._set(power=0)
        # null_blk never forgets that it had a limit: then a large one stands for none
        self.was_throttled |= mbps > 0
        self._set(completion_nsec=latency_us * 1000 or 1000, mbps=mbps or (40960 if self.was_throttled else 0),
                  cache_size=CACHE_MIB, power=1)
        scheduler = Path(f"/sys/block/{self.name}/queue/scheduler")
        if scheduler.exists():
            scheduler.write_text("none")

    def remove(self):
        self._set(power=0)
        self.directory.rmdir()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.remove()


def sync(path):
    """What was written is on the device, and will be read from it."""
    with open(path, "rb+", buffering=0) as file:
        os.fsync(file.fileno())
        fcntl.ioctl(file, _BLKFLSBUF)


def flush_times(path, count):
    """How long each of `count` flushes takes, in µs, the shortest first."""
    times = []
    with open(path, "rb+", buffering=0) as file:
        for _ in range(count):
            start = time.perf_counter_ns()
            os.fsync(file.fileno())
            times.append((time.perf_counter_ns() - start) / 1000)
    return sorted(times)


def zero(path, byte_count):
    with open(path, "rb+", buffering=0) as file:
        file.write(bytes(byte_count))
    sync(path)


def fill(path, megabytes):
    """Writes data that is not zero, so that reading it back is a copy."""
    pattern = os.urandom(1 << 20)
    with open(path, "rb+", buffering=0) as file:
        for _ in range(megabytes):
            file.write(pattern)
    sync(path)

#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Leads an origin and its snapshots through random use in a guest, and compares them with a model throughout.

Uses the disks $DISK_ONE and $DISK_TWO; what is on them is lost. Ends with one line, "soak: ok …" or "soak:
FAILED …".
"""

import argparse
import random
import sys
import threading
import time
import traceback
from collections import deque
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "guest"))

import activations  # noqa: E402 - found in this directory
import choice  # noqa: E402
import kmsg  # noqa: E402 - found in tests/guest
import memory  # noqa: E402
import module  # noqa: E402
from model import Wrong  # noqa: E402
from world import World  # noqa: E402

COUNTS = ("volume groups", "activations", "C activations", "snapshots", "overflows", "extends", "reloads",
          "suspends", "merges", "interrupted", "module reloads", "refused rmmods", "checked")


class Soak:
    def __init__(self, options):
        self.options = options
        # it fills many, and counts chunks
        module.full_seconds(0)
        module.copy_ahead(False)
        self.began = time.monotonic()
        self.last = deque(maxlen=50)
        self.operations = 0
        self.file = open(options.log, "w", buffering=1) if options.log else None
        self.world = World(random.Random(options.seed), self.note)
        self.kernel = kmsg.Log()
        self.over = threading.Event()

    def seconds(self):
        return time.monotonic() - self.began

    def note(self, text):
        line = f"#{self.operations} {self.seconds():.1f} s: {text}"
        self.last.append(line)
        if self.file:
            print(line, file=self.file)

    def progress(self):
        while not self.over.wait(10):
            print(f"{self.seconds():5.0f} s: {self.summary()}", flush=True)

    def summary(self):
        counts = self.world.counts
        return (f"{self.operations} operations, {counts['bytes'] >> 20} MiB written, {counts['compared'] >> 20} MiB "
                "compared, " + ", ".join(f"{counts[name]} {name}" for name in COUNTS))

    def complaints(self):
        complaints = self.kernel.complaints()
        self.kernel.seen.clear()
        if complaints:
            raise Wrong("the kernel complained: " + "; ".join(complaints))

    def enough(self):
        if self.options.operations:
            return self.operations >= self.options.operations
        return self.seconds() >= self.options.time

    def era(self):
        """One volume group; a new one now and then, so that chance has other sizes to play with."""
        activations.begin(self.world)
        for _ in range(self.world.rng.randint(50, 150)):
            self.operations += 1
            choice.choose(self.world)(self.world)
            self.complaints()
            if self.enough():
                break
        activations.end(self.world)
        self.complaints()

    def run(self):
        used = None
        while not self.enough():
            self.era()
            if used is None:
                # the first has filled the caches that stay
                used = memory.used()
        memory.compare(used, memory.used())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--time", type=float, default=1800, metavar="SECONDS")
    parser.add_argument("--operations", type=int, metavar="N", help="so many, however long they take")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="what repeats a run")
    parser.add_argument("--log", metavar="FILE", help="every operation, as it begins")
    options = parser.parse_args()

    soak = Soak(options)
    print(f"soak: seed={options.seed}", flush=True)
    threading.Thread(target=soak.progress, daemon=True).start()
    try:
        soak.run()
    except Exception as e:  # noqa: BLE001 - whatever it is, it has to be told with what led to it
        print("the last operations:", *soak.last, "", traceback.format_exc(), sep="\n")
        print(f"soak: FAILED {soak.seconds():.0f} s, operation {soak.operations}, seed={options.seed}: {e}")
        # what is left may hang whoever closes it
        return 1
    soak.over.set()
    # an exit with asynchronous I/O set up is what User-mode Linux's lockdep complains of, see scripts/guest.d/uml-init
    soak.world.writers.close()
    print(f"soak: ok {soak.seconds():.0f} s, {soak.summary()}, seed={options.seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

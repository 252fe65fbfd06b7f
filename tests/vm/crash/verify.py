# SPDX-License-Identifier: GPL-2.0-only
"""Looks at a recording at many points, each as if the machine had crashed there."""

import os
import random
import sys
import time
from types import SimpleNamespace

import crashed_disks
import disks
import merge
import replay

RESULTS = os.environ.get("DMSP_RESULTS")
FAILURES = 5  # after so many there is no need for more
RECENT, SAMPLE, MORE, PER_SECTOR = 32, 8, 8, 32
# every so many points the snapshot is used on; and the first so many times that a torn write left something
GO_ON, STALE_GO_ON = 100, 20
FULL = 25  # every so many points all of the snapshot is read, not just what is in question


class Verifier:
    def __init__(self, recording, seed):
        self.recording, self.seed = recording, seed
        crashed = recording.crashed
        self.crashed = crashed
        self.replay = replay.Replay(recording.log, {recording.origin: crashed.origin_image,
                                                   recording.cow: crashed.cow_image})
        self.origin_writes = [op for op in recording.log.ops if op.disk is recording.origin and op.kind != "flush"]
        self.needed = set()  # chunks that were overwritten on the origin
        self.seen = self.stale = 0

    def advance(self, moment):
        for expected in self.recording.expected.values():
            expected.advance(moment)
        while self.origin_writes and self.origin_writes[0].arrived <= moment:
            op = self.origin_writes.pop(0)
            if self.recording.created is not None and op.arrived < self.recording.created:
                continue
            size = self.recording.bytes
            self.needed |= set(range(op.offset // size, (op.offset + op.length - 1) // size + 1))

    def run(self, name, count, look, begin=0):
        self.visit(name, replay.points(self.recording.log, count, self.seed, begin), look)

    def visit(self, name, points, look):
        count = len(points)
        failures, shown = [], time.monotonic()
        for number, point in enumerate(points, 1):
            with self.replay.crashed(point) as kept:
                self.advance(point.time)
                self.seen += 1
                try:
                    look(point)
                except (AssertionError, OSError, ValueError, EOFError) as e:
                    failures.append(f"{name}, seed {self.seed}, point {number} of {count}: {point}: {e!r}\n"
                                    f"  the last not durable: {self.replay.pending()[-8:]}\n"
                                    f"  kept of all: {list(kept)[-8:]}")
            if len(failures) == FAILURES:
                break
            if time.monotonic() > shown + 5:
                shown = time.monotonic()
                print(f"{name}: {number} of {count} points", file=sys.stderr, flush=True)
        for turn in range(self.crashed.TURNS):
            self.crashed.settle(turn)
        report(name, number, len(failures))
        assert not failures, "\n".join(failures)

    # what must hold

    def check_bytes(self):
        """The new chunks of the snapshot by old chunk; None if there is no snapshot any more, or not yet."""
        recording, crashed = self.recording, self.crashed
        origin = self.recording.expected["origin"]
        wrong = origin.wrong(recording.start, crashed.origin_image[recording.start:])
        assert wrong is None, f"the origin: {wrong}"
        magic, valid, _, _ = crashed.header()
        if magic == 0 or not valid:
            return None
        new_of = dict(crashed.records())
        missing = self.needed - set(new_of)
        assert not missing, f"overwritten, without an exception: chunks {sorted(missing)[:5]}"
        self.check_content(new_of)
        return new_of

    def check_content(self, new_of):
        size, start = self.recording.bytes, self.recording.start
        expected, images = self.recording.expected["snapshot"], (self.crashed.origin_image, self.crashed.cow_image)
        for chunk in range(start // size, self.recording.origin.size // size):
            new = new_of.get(chunk)
            image, at = (images[0], chunk) if new is None else (images[1], new)
            data, place = image[at * size:(at + 1) * size], chunk * size - start
            # most are: a call for each would take longer than all the rest
            if data != expected.content[place:place + size]:
                wrong = expected.wrong(chunk * size, data)
                assert wrong is None, f"the snapshot, byte by byte: {wrong}"

    def check_header(self, moment):
        """What snap_check must make of it."""
        recording = self.recording
        magic, valid, version, chunk = self.crashed.header()
        if magic == 0:
            assert recording.created is None or moment < recording.created, "the header is gone"
            return "new"
        assert (version, chunk) == (1, recording.chunk)
        if not valid:
            assert recording.lost is not None and moment >= recording.lost, "invalid for no reason"
            return "invalid"
        return "loads"

    def look_at_snapshot(self, point):
        """After a crash the snapshot is what it was, or Invalid where it may be, and the origin has lost nothing."""
        crashed = self.crashed
        verdict = self.check_header(point.time)
        with crashed.checked() as checks:
            new_of = self.check_bytes()
        self.check_tool(checks, verdict, len(new_of or {}))
        with crashed.preserved(2 * crashed.layout.bytes), crashed.loaded() as device:
            if verdict == "invalid":
                assert device.status() == "Invalid"
            else:
                assert device.usage() == crashed.usage(list((new_of or {}).items()))
                self.read(device, new_of or {}, point)
        if new_of is not None:
            self.go_on(new_of)

    def go_on(self, new_of):
        """The snapshot is used on after the crash, up to what a torn write may have left behind the list's end, which
        is where a sector ends, and past it: none of that comes to life."""
        recording, crashed = self.recording, self.crashed
        stale = crashed.stale() and self.stale < STALE_GO_ON
        self.stale += stale
        if not stale and self.seen % GO_ON or recording.start:
            return
        # the COW device may be all but full; two chunks can be metadata
        if crashed.usage(list(new_of.items()))[0] + (PER_SECTOR + MORE + 2) * recording.chunk > recording.cow.sectors:
            return
        free = [chunk for chunk in range(recording.origin.size // recording.bytes) if chunk not in new_of]
        first = -len(new_of) % PER_SECTOR
        with crashed.preserved(crashed.cow.size, crashed.origin.size):
            expected = len(new_of)
            for part in (free[:first], free[first:first + MORE]):
                crashed.go_on(part)
                expected += len(part)
                records = crashed.records()
                assert len(records) == expected, "used on after the crash"
                self.check_content(dict(records))

    def check_tool(self, checks, verdict, records):
        (check,) = checks
        assert (check["verdict"], check["fault_count"]) == (verdict, 0), check
        assert verdict != "loads" or check["records"] == records, check

    def read(self, device, new_of, point):
        """What the kernel reads: of chunks whose records came last or whose content is in flux, and some others."""
        recording = self.recording
        expected = recording.expected["snapshot"]
        size = recording.bytes
        if self.seen % FULL == 0 and not recording.start:
            wrong = expected.wrong(0, disks.read(device.path))
            assert wrong is None, f"the snapshot: {wrong}"
            return
        first, end = recording.start // size, recording.origin.size // size
        rng = random.Random(point.seed)
        flux = sorted({sector * 512 // size for where in recording.expected.values() for sector in where.since})
        chunks = set(list(new_of)[-RECENT:]) | set(rng.sample(flux, min(len(flux), RECENT)))
        chunks |= {rng.randrange(first, end) for _ in range(SAMPLE)}
        places = [(chunk * size, size) for chunk in sorted(chunks) if chunk >= first]
        for offset, data in crashed_disks.read(device, places):
            wrong = expected.wrong(offset, data)
            assert wrong is None, f"the snapshot: {wrong}"

    def look_at_merge(self, point):
        """A merge that is taken up after a crash ends with the snapshot's content in the origin."""
        recording, crashed = self.recording, self.crashed
        expected = recording.expected["snapshot"]
        verdict = self.check_header(point.time)
        with crashed.checked() as checks:
            new_of = dict(crashed.records())
            self.check_content(new_of)
        self.check_tool(checks, verdict, len(new_of))
        with crashed.preserved(crashed.cow.size, crashed.origin.size):
            with crashed.loaded("snapshot-merge") as device:
                merge.wait_done(SimpleNamespace(device=device))
                wrong = expected.wrong(0, disks.read(device.path))
                assert wrong is None, f"the merge: {wrong}"
            wrong = expected.wrong(0, crashed.origin_image[:])
            assert wrong is None, f"the origin after the merge: {wrong}"
            assert crashed.records() == []


def report(name, points, failed):
    """For scripts/crash, which adds up."""
    print(f"{name}: {points} points, {failed} failed", file=sys.stderr, flush=True)
    if RESULTS:
        with open(os.path.join(os.path.dirname(RESULTS), "points"), "a") as file:
            file.write(f"{points} {failed} {name}\n")

# SPDX-License-Identifier: GPL-2.0-only
"""The origin and its snapshots: what is there, what must be there, and writing to both."""

from collections import Counter

import disks
import lvm
import model
from model import INVALID, OVERFLOW, VALID, Wrong
from traffic import Source, Writers

ORIGIN = "data"


class World:
    def __init__(self, rng, note):
        self.rng, self.note = rng, note
        self.source, self.writers = Source(rng), Writers()
        self.counts = Counter()
        self.store = "rust"  # that tables loaded now get
        self.size, self.content = 0, None
        self.snapshots = []
        self.merging = None  # the snapshot that the origin is being made again
        self.number = 0

    def path(self, target):
        return lvm.device(target.name if target else ORIGIN).path

    def named(self, target):
        return str(target) if target else "origin"

    def streams(self, targets=None, most=4 << 20):
        """Random writes to these targets, by default to all that can be written."""
        budget = int(2 ** self.rng.uniform(14, most.bit_length() - 1))
        return self.source.streams(targets or [None, *self.alive()], self.size, budget)

    def scattered(self, snapshot, target, count):
        """Writes to `target` in up to `count` chunks that the snapshot does not keep yet."""
        size = snapshot.layout.bytes
        free = sorted(set(range(-(-self.size // size))) - snapshot.olds)
        self.rng.shuffle(free)
        return self.source.one_each(target, free[:max(count, 0)], self.size, size)

    def told(self, streams):
        return ", ".join(f"{self.named(stream.target)} {len(stream.writes())}x" for stream in streams)

    def alive(self, *states):
        return [snapshot for snapshot in self.snapshots if snapshot.state in (states or (VALID,))]

    def settled(self):
        """The snapshots of which all is known."""
        return [snapshot for snapshot in self.alive() if not snapshot.maybe]

    def fed_by_merge(self, snapshot):
        """The chunks that a snapshot gets because another is merged."""
        if not self.merging:
            return set()
        theirs, mine = self.merging.layout.bytes, snapshot.layout.bytes
        fed = set()
        for old in self.merging.merged:
            fed.update(range(old * theirs // mine, (min((old + 1) * theirs, self.size) - 1) // mine + 1))
        return fed

    def effects(self, streams, snapshot):
        """What the streams write, for `snapshot`: (chunks copied because of the origin, perhaps such, its own)."""
        origin = [write for stream in streams if stream.target is None for write in stream.writes()]
        own = [write for stream in streams if stream.target is snapshot for write in stream.writes()]
        by_origin, perhaps = snapshot.touched(origin), self.fed_by_merge(snapshot)
        if self.merging:
            # a chunk that is still to be merged is written where it is; sooner or later it comes
            by_origin, perhaps = set(), perhaps | by_origin
        return by_origin, perhaps, snapshot.touched(own)

    def burst(self, streams, meanwhile=None, reloads=False):
        """Runs streams, compares what must follow from them, and takes it over.

        `reloads`: tables are reloaded meanwhile, which makes a snapshot that overflowed writable again; LVM's say P.
        """
        effects = {snapshot: self.effects(streams, snapshot) for snapshot in self.snapshots}
        allowed = {snapshot: snapshot.outcomes(*effects[snapshot]) for snapshot in self.snapshots}
        if self.merging:
            for snapshot, (_, perhaps, _) in effects.items():
                snapshot.due |= perhaps
        self.writers.run(streams, self.path, meanwhile)
        self.counts["bytes"] += sum(stream.bytes for stream in streams)
        self.counts["bursts"] += 1
        for stream in streams:
            if stream.target is None:
                if stream.failed:
                    raise Wrong(f"{stream.failed} batches of writes to the origin failed")
                model.apply(self.content, stream.writes())
        for snapshot in effects:
            # its COW device may be larger by now
            states = allowed[snapshot] | snapshot.outcomes(*effects[snapshot])
            if reloads and OVERFLOW in states:
                states |= {VALID, INVALID}
            own = [stream for stream in streams if stream.target is snapshot]
            self.settle(snapshot, own, effects[snapshot], states)

    def settle(self, snapshot, streams, effects, allowed):
        before = snapshot.state
        failed = any(stream.failed for stream in streams)
        snapshot.settle(lvm.device(snapshot.name).status(), *effects, failed)
        if snapshot.state not in allowed:
            raise Wrong(f"{snapshot}: {snapshot.state}, but it must be {' or '.join(sorted(allowed))}")
        if failed and allowed == {VALID}:
            raise Wrong(f"{snapshot}: writes failed")
        if snapshot.state is not before and snapshot.state is not VALID:
            self.counts["overflows"] += 1
        if snapshot.state is INVALID:
            return
        for stream in streams:
            if failed:
                model.resolve(self.path(snapshot), snapshot.content, stream.writes(), str(snapshot))
            else:
                model.apply(snapshot.content, stream.writes())

    def doomed(self, streams=()):
        """The snapshots that may not survive these."""
        return [snapshot for snapshot in self.snapshots
                if snapshot.outcomes(*self.effects(streams, snapshot)) != {VALID}]

    def compare(self, *targets):
        """The whole content of these, of all without."""
        for target in targets or [None, *self.alive(VALID, OVERFLOW)]:
            expected = target.content if target else self.content
            found = disks.read(self.path(target))
            self.counts["compared"] += len(found)
            difference = disks.first_difference(found, expected)
            if difference:
                raise Wrong(f"{self.named(target)}: {difference}; {self.whose(target, found, expected)}")

    def whose(self, target, found, expected):
        """Where else what was found instead would be right."""
        at = next(at for at in range(0, self.size, 512) if found[at:at + 512] != expected[at:at + 512])
        wrong = sum(found[n:n + 512] != expected[n:n + 512] for n in range(0, self.size, 512))
        others = {self.named(other): other.content if other else self.content
                  for other in [None, *self.alive(VALID, OVERFLOW)] if other is not target}
        same = [name for name, content in others.items() if content[at:at + 512] == found[at:at + 512]]
        return f"{wrong} sectors differ; the first is what {', '.join(same) or 'nobody'} has there"

    def synchronize(self):
        """After a command of LVM's, which may have reloaded tables: their options, sizes, and states."""
        for snapshot in self.snapshots:
            device = lvm.device(snapshot.name)
            snapshot.options = device.table()[0][3].split()[2]
            snapshot.cow_sectors = lvm.sectors(f"{snapshot.name}-cow")
            before, fed = snapshot.state, self.fed_by_merge(snapshot)
            allowed = {before, VALID} | snapshot.outcomes(set(), fed, set())
            status = device.status()
            if before is not INVALID or status != "Invalid":
                snapshot.settle(status, set(), fed, set())
            if snapshot.state not in allowed or before is INVALID and snapshot.state is VALID:
                raise Wrong(f"{snapshot}: {snapshot.state} without a reason, it was {before}")

# SPDX-License-Identifier: GPL-2.0-only
"""What a crash could leave on disks with volatile caches, from the nbd.Log of what they were told.

A write is durable once it was replied to, if it had FUA, or once a flush was replied to that came after its reply. Of
every other write that came, replied to or not, each sector may be there or not.
"""

import contextlib
import random
import typing

SECTOR = 512


class Point(typing.NamedTuple):
    """A crash after all that happened up to `time`, of whose writes that are not durable `policy` keeps some."""

    time: int
    policy: str
    seed: int


def sectors(op):
    return range(op.offset // SECTOR, (op.offset + op.length) // SECTOR)


def content(op, sector):
    """What the op left in a sector."""
    if op.data is None:
        return bytes(SECTOR)
    at = sector * SECTOR - op.offset
    return op.data[at:at + SECTOR]


class Cached:
    """A disk on its way through the log: `image` holds what is durable, the rest is here."""

    def __init__(self, image):
        self.image = image
        self.versions = {}  # of a sector: the ops that wrote it and are not durable there, the oldest first
        self.pending = {}  # op: how many of its sectors that are, the oldest first

    def write(self, op):
        self.pending[op] = op.length // SECTOR
        for sector in sectors(op):
            self.versions.setdefault(sector, []).append(op)

    def settle(self, op):
        """The op is durable, and what it overwrote is gone."""
        for sector in sectors(op):
            versions = self.versions.get(sector, ())
            if op not in versions:
                continue
            self.image[sector * SECTOR:(sector + 1) * SECTOR] = content(op, sector)
            newer = versions.index(op) + 1
            for gone in versions[:newer]:
                self.pending[gone] -= 1
                if not self.pending[gone]:
                    del self.pending[gone]
            self.versions[sector] = versions[newer:]
            if not self.versions[sector]:
                del self.versions[sector]

    def flushed(self, flush):
        for op in [op for op in self.pending if op.replied is not None and op.replied < flush.arrived]:
            self.settle(op)


class Replay:
    """Goes through a log. `images` are, for each nbd.Disk, the bytes it had when the log began, which are changed."""

    def __init__(self, log, images):
        self.disks = {disk: Cached(image) for disk, image in images.items()}
        events = []
        for op in log.ops:
            if not op.failed and op.disk in self.disks:
                events.append((op.arrived, op, False))
                if op.replied is not None:
                    events.append((op.replied, op, True))
        # the last first, to pop
        self.events = sorted(events, key=lambda event: -event[0])

    def advance(self, time):
        while self.events and self.events[-1][0] <= time:
            _, op, replied = self.events.pop()
            disk = self.disks[op.disk]
            if op.kind == "flush":
                if replied:
                    disk.flushed(op)
            elif not replied:
                disk.write(op)
            elif op.fua:
                disk.settle(op)

    def pending(self):
        """The writes that are not durable, the oldest first."""
        return sorted((op for disk in self.disks.values() for op in disk.pending), key=lambda op: op.arrived)

    @contextlib.contextmanager
    def crashed(self, point):
        """The images as the crash leaves them, which must be as they were again at the end. Points come in order."""
        self.advance(point.time)
        kept = POLICIES[point.policy](self.pending(), random.Random(point.seed))
        before = []
        for op, chosen in kept.items():
            disk = self.disks[op.disk]
            for sector in chosen:
                if op in disk.versions.get(sector, ()):
                    place = slice(sector * SECTOR, (sector + 1) * SECTOR)
                    before.append((disk.image, place, bytes(disk.image[place])))
                    disk.image[place] = content(op, sector)
        yield kept
        for image, place, data in reversed(before):
            image[place] = data


# Which sectors of which pending writes, in the order in which they came, a crash keeps.

def _all(ops):
    return {op: sectors(op) for op in ops}


def _torn(op, rng):
    return {sector for sector in sectors(op) if rng.random() < 0.5}


def _one_disk(ops, rng):
    disk = rng.choice(ops).disk if ops else None
    return _all(op for op in ops if op.disk is disk)


def _all_but_one(ops, rng):
    missing = rng.choice(ops) if ops else None
    return _all(op for op in ops if op is not missing)


def _mixture(ops, rng):
    kept = {}
    for op in ops:
        fate = rng.randrange(3)
        if fate:
            kept[op] = sectors(op) if fate == 1 else _torn(op, rng)
    return kept


def _last_torn(ops, rng):
    return _all(ops[:-1]) | {op: _torn(op, rng) for op in ops[-1:]}


def _last_beheaded(ops, rng):
    return _all(ops[:-1]) | {op: sectors(op)[1:] for op in ops[-1:]}


POLICIES = {
    "nothing": lambda ops, rng: {},
    "everything": lambda ops, rng: _all(ops),
    "only the last": lambda ops, rng: _all(ops[-1:]),
    "all but the first": lambda ops, rng: _all(ops[1:]),
    "all but the last": lambda ops, rng: _all(ops[:-1]),
    "all but one": _all_but_one,
    "those of one disk": _one_disk,
    "the last torn": _last_torn,
    "the last without its first sector": _last_beheaded,
    "each or not": lambda ops, rng: _all(op for op in ops if rng.random() < 0.5),
    "each, torn, or not": _mixture,
}


def boundaries(log, begin, end):
    """The moments in which something became durable, and just before."""
    times = set()
    for op in log.ops:
        if (op.kind == "flush" or op.fua) and op.replied is not None and not op.failed:
            times |= {op.replied - 1, op.replied}
    return sorted(time for time in times if begin <= time <= end)


def points(log, count, seed, begin=0, end=None):
    """`count` points between two moments of the log: every boundary if there is room for all, else evenly many of them;
    and as many moments between."""
    end = log.now if end is None else end
    rng = random.Random(seed)
    bounds = boundaries(log, begin, end)
    chosen = min(len(bounds), max(count // 2, 1))
    times = [bounds[n * len(bounds) // chosen] for n in range(chosen)] if bounds else []
    times += [rng.randint(begin, end) for _ in range(count - len(times))]
    names = list(POLICIES)
    offset = rng.randrange(len(names))
    return [Point(time, names[(offset + n) % len(names)], rng.randrange(1 << 32))
            for n, time in enumerate(sorted(times))]

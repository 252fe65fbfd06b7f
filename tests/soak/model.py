# SPDX-License-Identifier: GPL-2.0-only
"""What a snapshot must be: its content, which chunks it keeps, and whether its COW device has room for more.

A chunk gets an exception when the origin or the snapshot is first written there, whatever else goes on, so the number
of exceptions is known exactly, and with it the moment of the overflow. After an overflow that the snapshot survives,
and during a merge, it is not known which of some chunks have one: these are in `maybe`.
"""

import cow
import disks

VALID, OVERFLOW, INVALID = "valid", "overflow", "invalid"
SECTOR = 512


class Wrong(Exception):
    """The kernel did what the model says cannot be."""


def chunks_of(writes, size):
    """The chunks of `size` bytes that writes (offset, data) touch."""
    touched = set()
    for offset, data in writes:
        touched.update(range(offset // size, (offset + len(data) - 1) // size + 1))
    return touched


def apply(content, writes):
    for offset, data in writes:
        content[offset:offset + len(data)] = data


def resolve(path, content, writes, what):
    """Of these writes it is not known which came in time: takes over what is there, if it is the old or one of the
    new."""
    possible = {}
    for offset, data in writes:
        for at in range(0, len(data), SECTOR):
            sector = offset + at
            possible.setdefault(sector, [bytes(content[sector:sector + SECTOR])]).append(data[at:at + SECTOR])
    there = disks.read(path)
    for sector, versions in possible.items():
        found = there[sector:sector + SECTOR]
        if found not in versions:
            raise Wrong(f"{what}: byte {sector} is neither what it was nor what was written: {found[:16].hex()}")
        content[sector:sector + SECTOR] = found


def overruns_c(cow_sectors, chunk):
    """Whether a COW device ends just where the next area would be: the C store hands out its last chunk, and then zeroes
    that area."""
    return cow.Layout(chunk).is_metadata(cow_sectors // chunk)


def within_c(cow_sectors, chunk):
    """The size of a COW device, in sectors, or the next one that does not have that."""
    return cow_sectors + chunk if overruns_c(cow_sectors, chunk) else cow_sectors


class Snapshot:
    def __init__(self, name, chunk, content, cow_sectors, store):
        self.name, self.chunk, self.content, self.cow_sectors = name, chunk, content, cow_sectors
        self.store = store  # "rust" or "c"; None while it is not active
        self.options, self.state = "P", VALID
        self.layout = cow.Layout(chunk)
        self.count = 0
        self.olds, self.maybe = set(), set()
        self.merged = set()  # what it had when its merge began
        self.due = set()  # what it will have when the merge of another is over

    def __str__(self):
        count = f"{self.count}/{self.room}" if self.state is not INVALID else "invalid"
        return f"{self.name}({self.chunk // 2}k {self.options} {self.store} {count})"

    @property
    def room(self):
        """How many exceptions the COW device has room for."""
        chunks, per_area = self.cow_sectors // self.chunk, self.layout.per_area
        areas = (chunks - 2) // (per_area + 1) + 1
        room = chunks - 1 - areas
        # the record that fills an area needs the next one
        full = room and room % per_area == 0 and self.layout.area_chunk(room // per_area) >= chunks
        return room - 1 if full else room

    def touched(self, writes):
        return chunks_of(writes, self.layout.bytes)

    def outcomes(self, by_origin, perhaps, by_itself):
        """The states that may follow when the origin is written in the chunks `by_origin`, and `perhaps` in others, and
        the snapshot in `by_itself`."""
        if self.state is INVALID:
            return {INVALID}
        could = self.olds | self.maybe
        copies = self.count + len(by_origin - could)  # by the origin at least
        may_copy = (by_origin | perhaps) - self.olds
        if self.state is OVERFLOW:
            # no room at all, and writes to the snapshot fail at once
            return {INVALID} if by_origin - could else {OVERFLOW, INVALID} if may_copy else {OVERFLOW}
        least = self.count + len((by_origin | by_itself) - could)
        most = self.count + len((by_origin | perhaps | by_itself) - self.olds)
        allowed = {VALID} if least <= self.room else set()
        if most > self.room:
            if self.options == "P" or may_copy or self.store == "c":
                allowed.add(INVALID)
            if self.options == "PO" and copies <= self.room and by_itself - self.olds:
                allowed.add(OVERFLOW)
        return allowed

    def settle(self, status, by_origin=frozenset(), perhaps=frozenset(), by_itself=frozenset(), failed=False):
        """Takes over what a status line says after that; `failed`: not all writes to the snapshot were done."""
        new = by_origin | perhaps | by_itself
        most = self.count + len(new - self.olds)
        if status == "Invalid":
            self.invalid()
            return
        sure = by_origin if failed else by_origin | by_itself
        least = self.count + len(sure - self.olds - self.maybe)
        self.olds |= sure
        self.maybe = (self.maybe | new) - self.olds
        if status == "Overflow":
            self.state, self.count = OVERFLOW, self.room
            return
        self.state = VALID
        used, metadata = status.split()
        allocated, total = map(int, used.split("/"))
        chunks = allocated // self.chunk - 2
        self.count = chunks - chunks // (self.layout.per_area + 1)
        expected = self.layout.usage(self.count)
        if (allocated, int(metadata)) != expected or total != self.cow_sectors:
            raise Wrong(f"{self}: usage {status}, not {expected} of {self.cow_sectors}")
        if not least <= self.count <= most:
            raise Wrong(f"{self}: {self.count} exceptions, not {least}" + (f" to {most}" if most > least else ""))

    def invalid(self):
        self.state = INVALID
        self.olds, self.maybe, self.content, self.count = set(), set(), None, 0

    def recorded(self, olds):
        """Takes over which chunks have a record on the COW device."""
        if not self.olds <= olds <= self.olds | self.maybe or len(olds) != self.count:
            missing, surplus = sorted(self.olds - olds)[:5], sorted(olds - self.olds - self.maybe)[:5]
            raise Wrong(f"{self}: {len(olds)} records; without one: chunks {missing}; needless: {surplus}")
        self.olds, self.maybe = olds, set()

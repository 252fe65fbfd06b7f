# SPDX-License-Identifier: GPL-2.0-only
"""An origin and its snapshot on disks that record what they are told, and what a crash may leave of it."""

import errno
import mmap
import os
import random

import cow
import crashed_disks
import nbd
import volume
from expected import Expected


class Recording:
    """`start`: the first byte of the origin that has content and may be written; before it, all is zero. `beside`: another
    of the same origin, see several.py."""

    def __init__(self, recorder, disk, seed, chunk, origin_bytes, cow_bytes, block=512, start=0, beside=None):
        self.rng = beside.rng if beside else random.Random(seed)
        self.chunk, self.bytes, self.block, self.start = chunk, chunk * 512, block, start
        self.log = beside.log if beside else nbd.Log()
        # requests wait for each other, so that there is something to lose
        common = {"block": block, "log": self.log, "linger": 0.0005}
        self.origin = beside.origin if beside else recorder(origin_bytes, name="origin", **common)
        self.cow = recorder(cow_bytes, name="cow", **common)
        self.crashed = crashed_disks.CrashedDisks(disk, origin_bytes, cow_bytes, chunk, block)
        content = self.origin.read(start) if beside else self.rng.randbytes(origin_bytes - start)
        self.put(self.origin, start, content)
        self.expected = {"origin": Expected(self.log, start, content)}
        self.begin_with(content)
        self.created = self.lost = self.beginning = None

    def begin_with(self, content):
        """What the snapshot has at first."""
        self.expected["snapshot"] = Expected(self.log, self.start, content)

    def put(self, disk, offset, data):
        """What a disk holds before the log begins."""
        image = self.crashed.origin_image if disk is self.origin else self.crashed.cow_image
        disk.write(offset, data)
        image[offset:offset + len(data)] = data

    def used_cow(self, offset=0):
        """The COW device was used for something else; from `offset` on it is anything. Without one, its header was
        wiped, as LVM does."""
        self.put(self.cow, offset, self.rng.randbytes(self.cow.size - offset))
        if not offset:
            self.put(self.cow, 0, bytes(self.block))

    def create(self, cow=None):
        """`cow`: what stands before the COW device, if anything does."""
        self.volume = volume.Volume(self.origin)
        self.snapshot = self.volume.snapshot(cow or self.cow, self.chunk)
        self.created = self.log.mark()

    def create_beside(self, first):
        """Another snapshot of the same origin, whose content is safe."""
        self.used_cow()
        self.volume = first.volume
        self.snapshot = self.volume.snapshot(self.cow, self.chunk)
        self.created = self.log.mark()
        self.begin_with(self.origin.read())

    def rewind(self):
        """To the beginning of the log, for another Verifier. Takes the memory of the disks once more."""
        images = self.crashed.origin_image, self.crashed.cow_image
        self.beginning = self.beginning or [image[:] for image in images]
        for image, beginning in zip(images, self.beginning):
            image[:] = beginning
        for expected in self.expected.values():
            expected.rewind()

    def is_metadata(self, op):
        """Whether a request is for the COW device's metadata."""
        return op.disk is self.cow and cow.Layout(self.chunk).is_metadata(op.offset // self.bytes)

    def path(self, where):
        return self.volume.path if where == "origin" else self.snapshot.path

    def write(self, aio, batch, merging=False, full=False):
        """Writes (where, offset, data) at the same time. During a merge the origin is the snapshot. If a snapshot that is
        kept may be `full`, some may be refused; returns how many were."""
        noted = []
        for where in ("origin", "snapshot"):
            numbers = [n for n, (at, _, _) in enumerate(batch) if at == where]
            expected = self.expected["snapshot" if merging else where]
            noted.append((expected, expected.writes([batch[n][1:] for n in numbers]), numbers))
        result = aio.write([(self.path(where), offset, data) for where, offset, data in batch])
        refused = {n for n, got in enumerate(result) if full and got == -errno.ENOSPC}
        assert all(n in refused or got == len(batch[n][2]) for n, got in enumerate(result)), result
        for expected, writes, numbers in noted:
            expected.acknowledge([write for write, n in zip(writes, numbers) if n not in refused])
            expected.refuse([write for write, n in zip(writes, numbers) if n in refused])
        return len(refused)

    def write_through(self, offset, data):
        """Writes to the merging origin with FUA. Where that goes straight to the origin, it is durable at once, before
        the flush that Linux adds to such a write."""
        expected = self.expected["snapshot"]
        first = len(self.log.ops)
        writes = expected.writes([(offset, data)])
        fd = os.open(self.volume.path, os.O_WRONLY | os.O_DIRECT | os.O_DSYNC)
        with mmap.mmap(-1, len(data)) as buffer:
            buffer[:] = data
            os.pwritev(fd, [buffer], offset)
        os.close(fd)
        expected.acknowledge(writes)
        for op in self.log.ops[first:]:
            if op.disk is self.origin and op.kind == "write" and op.fua:
                assert (op.offset, bytes(op.data)) == (offset, data)
                expected.durable(op)

    def flush(self, where, merging=False):
        self.expected["snapshot" if merging else where].flush(self.path(where))

    def piece(self, chunk):
        """A write to a chunk: a block of it, or all."""
        if self.rng.random() < 0.2:
            offset, size = 0, self.bytes
        else:
            offset, size = self.rng.randrange(0, self.bytes, self.block), self.block
        return chunk * self.bytes + offset, self.rng.randbytes(size)

    def fill(self, aio, chunks, snapshot_share=0.15, flushes=0.15, full=False):
        """Writes to `chunks`, so many at a time as `aio` can, and again to some of those written before. Returns how many
        were refused, which they may be if `full`."""
        todo, written, refused = list(chunks), [], 0
        while todo:
            batch, met = [], set()
            for _ in range(self.rng.randint(1, aio.depth)):
                again = written and self.rng.random() < 0.15
                chunk = self.rng.choice(written) if again else todo.pop(0) if todo else None
                if chunk is None or chunk in met:
                    continue
                met.add(chunk)
                where = "snapshot" if self.rng.random() < snapshot_share else "origin"
                batch.append((where, *self.piece(chunk)))
            refused += self.write(aio, batch, full=full)
            written += met
            if self.rng.random() < flushes:
                self.flush(self.rng.choice(["origin", "snapshot"]) if snapshot_share else "origin")
        return refused

    def mixture(self, count, first=0):
        """Chunks from `first` on in an order that has runs in both directions and scattered ones."""
        chunks = list(range(first, first + count))
        pieces = []
        while chunks:
            length = self.rng.choice([1, 1, 1, 2, 7, 40])
            pieces.append(chunks[:length])
            del chunks[:length]
        self.rng.shuffle(pieces)
        return [chunk for piece in pieces for chunk in piece]

    def close(self, aio):
        aio.release()
        self.volume.deactivate()

# SPDX-License-Identifier: GPL-2.0-only
"""Random writes to several devices from several threads at a time, many in flight, no two to the same place at once.

What is written is decided before the first write: it must not depend on who is faster. A thread goes through its
batches again until what happens meanwhile is over; that leaves the same content.
"""

import threading

import aio
from lvm import PATIENCE
from model import SECTOR, Wrong

DEPTH, LARGEST = 16, 1 << 20
THREADS = 4
PAUSE = 0.03  # seconds between two batches that were written before


class Stream(threading.Thread):
    """One thread's batches of (offset, data) for one target, None for the origin."""

    def __init__(self, target, batches):
        super().__init__(daemon=True)
        self.target, self.batches = target, batches
        self.enough = threading.Event()
        self.bytes, self.failed, self.error = 0, 0, None

    def writes(self):
        return [write for batch in self.batches for write in batch]

    def begin(self, writer, path):
        self.writer, self.path = writer, path
        self.start()

    def run(self):
        try:
            again = False
            while not again or not self.enough.is_set():
                for batch in self.batches:
                    if again:
                        # leaves the disk some time for what happens meanwhile
                        self.enough.wait(PAUSE)
                    results = self.writer.write([(self.path, offset, data) for offset, data in batch])
                    done = sum(len(data) for (_, data), result in zip(batch, results) if result == len(data))
                    self.bytes += done
                    self.failed += done != sum(len(data) for _, data in batch)
                again = True
        except Exception as e:  # noqa: BLE001 - whatever it was, the one who waits for us has to know
            self.error = e
        finally:
            self.writer.release()


class Source:
    """Decides what is written."""

    def __init__(self, rng):
        self.rng = rng
        self.noise = rng.randbytes(4 * LARGEST)

    def data(self, size):
        start = self.rng.randrange(len(self.noise) - size)
        return self.noise[start:start + size]

    def batch(self, start, end, budget):
        """Writes within start..end that do not overlap, of a sector to a megabyte, anywhere."""
        rng, taken = self.rng, []
        for _ in range(rng.randint(DEPTH // 4, DEPTH)):
            largest = min(end - start, LARGEST, max(budget, SECTOR)) // SECTOR
            # more small ones than large ones
            size = min(largest, int(2 ** (11.01 * rng.random() ** 2))) * SECTOR
            offset = rng.randrange(start // SECTOR, (end - size) // SECTOR + 1) * SECTOR
            if rng.random() < 0.3:
                # as file systems do
                offset = max(start, offset & ~4095)
            if all(offset + size <= at or at + len(data) <= offset for at, data in taken):
                taken.append((offset, self.data(size)))
                budget -= size
            if budget <= 0:
                break
        return taken

    def streams(self, targets, size, budget):
        """Up to THREADS streams to some of `targets`, devices of `size` bytes; about `budget` bytes in all."""
        chosen = [self.rng.choice(targets) for _ in range(self.rng.randint(1, THREADS))]
        made = []
        for n, target in enumerate(chosen):
            parts, part = chosen.count(target), chosen[:n].count(target)
            sectors = size // SECTOR
            start, end = (sectors * p // parts * SECTOR for p in (part, part + 1))
            batches, left = [], budget // len(chosen)
            while left > 0:
                batches.append(self.batch(start, end, left))
                left -= sum(len(data) for _, data in batches[-1])
            made.append(Stream(target, batches))
        return made

    def one_each(self, target, chunks, size, chunk_bytes):
        """A stream that writes once into each of these chunks of a device of `size` bytes."""
        writes = []
        for chunk in chunks:
            length = min(chunk_bytes, size - chunk * chunk_bytes)
            sectors = self.rng.choice([1, self.rng.randint(1, length // SECTOR), length // SECTOR])
            offset = self.rng.randint(0, length // SECTOR - sectors) * SECTOR
            writes.append((chunk * chunk_bytes + offset, self.data(sectors * SECTOR)))
        return Stream(target, [writes[n:n + DEPTH] for n in range(0, len(writes), DEPTH)])


class Writers:
    """What streams write with."""

    def __init__(self):
        self.writers = [aio.Writer(DEPTH, LARGEST) for _ in range(THREADS)]

    def close(self):
        for writer in self.writers:
            writer.close()

    def run(self, streams, path, meanwhile):
        """Runs streams to their end, and `meanwhile` at the same time; path(target) says where they write."""
        for stream, writer in zip(streams, self.writers, strict=False):
            if meanwhile is None:
                stream.enough.set()
            stream.begin(writer, path(stream.target))
        try:
            if meanwhile is not None:
                meanwhile()
        finally:
            for stream in streams:
                stream.enough.set()
            for stream in streams:
                stream.join(PATIENCE)
        for stream in streams:
            if stream.is_alive():
                raise Wrong(f"writing to {stream.path} does not come to an end")
            if stream.error:
                raise Wrong(f"writing to {stream.path}: {stream.error!r}") from stream.error

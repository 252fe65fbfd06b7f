# SPDX-License-Identifier: GPL-2.0-only
"""An origin with several snapshots on disks that record what they are told.

A crash leaves something on each disk. Of a snapshot nothing matters but its own COW device and the origin, so each is
looked at with those two alone, as a Recording: whatever a crash can leave of all disks, it can leave of these.
"""

from recording import Recording


class Several:
    """`chunks`: of each snapshot, the sectors of a chunk; `rooms`: the chunks that its COW device has."""

    MOST = 64 << 10  # bytes that are written at once

    def __init__(self, recorder, disk, seed, chunks, rooms, origin_bytes):
        self.all = []
        for chunk, room in zip(chunks, rooms):
            first = self.all[0] if self.all else None
            self.all.append(Recording(recorder, disk, seed, chunk, origin_bytes, room * chunk * 512, beside=first))
        self.first = self.all[0]
        self.rng, self.log, self.size = self.first.rng, self.first.log, origin_bytes

    def create(self, number):
        """The origin may have been written since the one before; what it holds is to be safe."""
        one = self.all[number]
        if number:
            self.flush(None)
            one.create_beside(self.first)
        else:
            one.used_cow()
            one.create()

    def piece(self, number):
        """A write to the origin (`number` is None) or a snapshot: blocks, or whole chunks of one of the snapshots."""
        unit = self.rng.choice([512, self.rng.choice(self.all).bytes])
        length = min(unit * self.rng.choice([1, 1, 1, 3, 8]), self.MOST)
        offset = self.rng.randrange(0, self.size - length, unit)
        return number, offset, self.rng.randbytes(length)

    def write(self, aio, batch):
        """Writes (number, offset, data) at the same time."""
        def of(number):
            return [(offset, data) for at, offset, data in batch if at == number]

        noted = []
        for number, one in enumerate(self.all):
            for where, pieces in ("origin", of(None)), ("snapshot", of(number)):
                noted.append((one.expected[where], one.expected[where].writes(pieces)))
        result = aio.write([(self.path(number), offset, data) for number, offset, data in batch])
        assert result == [len(data) for _, _, data in batch], result
        for expected, writes in noted:
            expected.acknowledge(writes)

    def path(self, number):
        return self.first.volume.path if number is None else self.all[number].snapshot.path

    def flush(self, number):
        if number is None:
            # one flush, which all are told of
            self.first.flush("origin")
            for one in self.all[1:]:
                one.expected["origin"].events.append(self.first.expected["origin"].events[-1])
        else:
            self.all[number].flush("snapshot")

    def fill(self, aio, count, written, snapshot_share=0.3, flushes=0.15):
        """`count` writes, many at a time, to the origin and the snapshots numbered `written`; none meets another."""
        while count > 0:
            batch = []
            for _ in range(self.rng.randint(1, aio.depth)):
                number = self.rng.choice(written) if self.rng.random() < snapshot_share else None
                where, offset, data = self.piece(number)
                meets = any(where == other and offset < end + len(more) and end < offset + len(data)
                            for other, end, more in batch)
                if not meets:
                    batch.append((where, offset, data))
            self.write(aio, batch)
            count -= len(batch)
            if self.rng.random() < flushes:
                self.flush(self.rng.choice([None, *written]))

    def close(self, aio):
        aio.release()
        self.first.volume.deactivate()

# SPDX-License-Identifier: GPL-2.0-only
"""What a device that is written may hold after a crash: of each sector, what the last flush that succeeded made safe,
or anything that was written to it since, whether that was acknowledged or not."""

import os

SECTOR = 512


class Write:
    __slots__ = ("offset", "data", "acknowledged", "durable")

    def __init__(self, offset, data, durable=False):
        self.offset, self.data, self.acknowledged, self.durable = offset, data, None, durable


class Expected:
    """First it is told what happens, in the order of `log`; then, moment by moment, it says what must be."""

    def __init__(self, log, start, content):
        self.log, self.start = log, start  # where the content begins
        self.beginning, self.events = bytes(content), []
        self.rewind()

    def rewind(self):
        """To the moment in which it begins."""
        self.content = bytearray(self.beginning)  # what is safe
        self.since = {}  # of a sector: (write, data) since then, the oldest first
        self.done = 0

    def writes(self, pieces):
        """(offset, data) are about to be written, together: returns what to pass to `acknowledge`."""
        now = self.log.mark()
        writes = [Write(offset, bytes(data)) for offset, data in pieces]
        self.events += [(now, write, None) for write in writes]
        return writes

    def acknowledge(self, writes):
        now = self.log.mark()
        for write in writes:
            write.acknowledged = now

    def refuse(self, writes):
        """They were not carried out, no part of them."""
        self.events = [event for event in self.events if event[1] not in writes]

    def durable(self, op):
        """What a request with FUA, alone under way, wrote to the same place of the disk is safe from its reply on."""
        self.events.append((op.replied, Write(op.offset, bytes(op.data), durable=True), None))
        self.events.sort(key=lambda event: event[0])

    def flush(self, path):
        """Flushes the device."""
        began = self.log.mark()
        fd = os.open(path, os.O_RDWR)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        self.events.append((self.log.mark(), None, began))

    def advance(self, time):
        """To what holds at a moment no earlier than the last."""
        while self.done < len(self.events) and self.events[self.done][0] <= time:
            _, write, flush_began = self.events[self.done]
            self.done += 1
            if write:
                for at in range(0, len(write.data), SECTOR):
                    self._written(write, (write.offset + at) // SECTOR, write.data[at:at + SECTOR])
            else:
                self._flushed(flush_began)

    def _written(self, write, sector, data):
        if write.durable:
            self.since.pop(sector, None)
            self._settle(sector, data)
        else:
            self.since.setdefault(sector, []).append((write, data))

    def _settle(self, sector, data):
        at = sector * SECTOR - self.start
        self.content[at:at + SECTOR] = data

    def _flushed(self, began):
        for sector, versions in list(self.since.items()):
            safe = [n for n, (write, _) in enumerate(versions) if write.acknowledged and write.acknowledged < began]
            if safe:
                self._settle(sector, versions[safe[-1]][1])
                self.since[sector] = versions[safe[-1] + 1:]
                if not self.since[sector]:
                    del self.since[sector]

    def wrong(self, offset, data, steps=(1 << 16, 1 << 12, SECTOR)):
        """The first sector of what was read at `offset` that may not be as it is, in words; None if there is none."""
        at = offset - self.start
        if data == self.content[at:at + len(data)]:
            return None
        if not steps:
            since = self.since.get(offset // SECTOR, ())
            if any(data == other for _, other in since):
                return None
            return (f"sector {offset // SECTOR} begins {bytes(data[:16]).hex()}, not {self.content[at:at + 16].hex()} "
                    f"or one of {len(since)} others")
        for begin in range(0, len(data), steps[0]):
            wrong = self.wrong(offset + begin, data[begin:begin + steps[0]], steps[1:])
            if wrong:
                return wrong
        return None


class Anything:
    """What is not to be looked at."""

    since = {}

    def rewind(self):
        pass

    def advance(self, time):
        pass

    def wrong(self, offset, data):
        return None

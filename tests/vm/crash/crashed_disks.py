# SPDX-License-Identifier: GPL-2.0-only
"""Origin and COW as a crash left them, looked at in three ways: byte by byte here, by snap_check, and by the kernel."""

import contextlib
import json
import mmap
import os
import subprocess
from concurrent import futures

import cow
import dm
import volume
from program import PROGRAM


class CrashedDisks:
    """`disk` makes devices as conftest's fixture does. There are several on the same bytes, to use by turns: removing a
    mapped device waits for the kernel's RCU, many times longer than all else takes, so it is left to a thread."""

    TURNS = 4

    def __init__(self, disk, origin_bytes, cow_bytes, chunk, block):
        origin, cow_disk = disk(origin_bytes, block), disk(cow_bytes, block)
        self.origin, self.cow = origin, cow_disk
        twins = [(disk(origin_bytes, block, origin), disk(cow_bytes, block, cow_disk)) for _ in range(self.TURNS - 1)]
        self.pairs = [(origin, cow_disk), *twins]
        self.leaving = [None] * self.TURNS
        self.turn = 0
        self.pool = futures.ThreadPoolExecutor(self.TURNS)
        self.layout = cow.Layout(chunk)
        self.images = []
        for disk in (origin, cow_disk):
            with open(disk.file, "r+b") as file:
                self.images.append(mmap.mmap(file.fileno(), disk.size))
        self.origin_image, self.cow_image = self.images
        self.areas = {}  # what was parsed before: (bytes, records)

    def settle(self, turn):
        """Waits until the device of that turn is gone."""
        if self.leaving[turn]:
            self.leaving[turn].result()
            self.leaving[turn] = None

    def close(self):
        self.pool.shutdown()
        for image in self.images:
            image.close()

    @contextlib.contextmanager
    def preserved(self, cow_bytes, origin_bytes=0):
        """What the kernel changes in the first bytes of the disks is undone."""
        saved = self.cow_image[:cow_bytes], self.origin_image[:origin_bytes]
        try:
            yield
        finally:
            self.cow_image[:cow_bytes], self.origin_image[:origin_bytes] = saved

    # byte by byte

    def header(self):
        return cow.HEADER.unpack_from(self.cow_image)

    def _area(self, area):
        """Its records up to the end of the list, and whether the list goes on."""
        start = self.layout.area_chunk(area) * self.layout.bytes
        content = self.cow_image[start:start + self.layout.bytes]
        assert len(content) == self.layout.bytes, f"the list goes on in area {area}, beyond the device"
        known = self.areas.get(area)
        if known is None or known[0] != content:
            records = []
            for old, new in cow.RECORD.iter_unpack(content):
                if new == 0:
                    break
                records.append((old, new))
            known = self.areas[area] = content, records
        return known[1]

    def records(self):
        """All (old, new), which must make sense."""
        records, area = [], 0
        while True:
            found = self._area(area)
            records += found
            if len(found) < self.layout.per_area:
                break
            area += 1
        news = {new for _, new in records}
        assert len(news) == len(records), "a new chunk is used twice"
        assert len({old for old, _ in records}) == len(records), "an old chunk is there twice"
        assert not any(self.layout.is_metadata(new) for new in news), "a metadata chunk was handed out"
        assert not news or (max(news) + 1) * self.layout.bytes <= self.cow.size, "a chunk beyond the end"
        return records

    def stale(self):
        """Whether something follows the end of the list in its area: a torn write can leave that."""
        area = 0
        while len(self._area(area)) == self.layout.per_area:
            area += 1
        content, records = self.areas[area]
        return any(content[len(records) * cow.RECORD.size:])

    def usage(self, records):
        """What the kernel's status must say of a snapshot with these records: (allocated, total, metadata)."""
        following = max((new for _, new in records), default=1) + 1
        following += self.layout.is_metadata(following)
        areas = len(records) // self.layout.per_area + 1
        return following * self.layout.sectors, self.cow.sectors, (areas + 1) * self.layout.sectors

    # by the tool

    @contextlib.contextmanager
    def checked(self):
        """What snap_check says, in a list that is filled at the end: it runs meanwhile."""
        process = subprocess.Popen([PROGRAM, "check", "--json", "--origin", self.origin.file, self.cow.file],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        found = []
        try:
            yield found
        finally:
            out, errors = process.communicate()
        assert out, errors.decode()
        found.append(json.loads(out))

    # by the kernel

    @contextlib.contextmanager
    def loaded(self, target="snapshot"):
        """The device may go on to exist for a while, but does nothing."""
        self.turn = turn = (self.turn + 1) % self.TURNS
        self.settle(turn)
        origin, cow_disk = self.pairs[turn]
        device = dm.Device(f"crashed-{turn}", [(0, origin.sectors, target,
                                                f"{origin.path} {cow_disk.path} P {self.layout.sectors}")])
        try:
            yield device
        finally:
            self.leaving[turn] = self.pool.submit(device.remove)

    def go_on(self, chunks):
        """Activates both sides and writes to these chunks of the origin."""
        self.settle(0)
        used = volume.Volume(self.origin, "crashed-origin")
        try:
            used.snapshot(self.cow, self.layout.sectors)
            fd = os.open(used.path, os.O_WRONLY | os.O_DIRECT)
            with mmap.mmap(-1, self.layout.bytes) as buffer:
                for chunk in chunks:
                    os.pwritev(fd, [buffer], chunk * self.layout.bytes)
            os.close(fd)
        finally:
            used.deactivate()


def read(device, places):
    """Reads (offset, size) of a device, around the page cache; yields (offset, bytes)."""
    fd = os.open(device.path, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, max(size for _, size in places)) as buffer:
            for offset, size in places:
                view = memoryview(buffer)[:size]
                assert os.preadv(fd, [view], offset) == size
                view.release()
                yield offset, buffer[:size]
    finally:
        os.close(fd)

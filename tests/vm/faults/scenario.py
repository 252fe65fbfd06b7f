# SPDX-License-Identifier: GPL-2.0-only
"""What a snapshot goes through on a COW device that may fail: `now` is what the origin holds, `then` what the snapshot
must read as, unless it is Invalid."""

import errno
import os
import time

import cow
import disks
import merge
import module
import volume

CHUNK = 1
BYTES = 512
BLOCKS = 64
OLD = 29  # records on a device that was used before: three more fill the area


def used_before(rng, content, size):
    """A COW device with OLD records, and what its snapshot of an origin with this content reads as."""
    made = cow.Image(CHUNK, size, fill=0xa5)
    # in three runs, so that a merge has few steps
    olds = [*range(40, 50), *range(0, 10), *range(20, 20 + OLD - 20)]
    pairs = list(zip(olds, made.layout.data_chunks(OLD)))
    made.records(pairs)
    then = bytearray(content)
    for old, new in pairs:
        data = rng.randbytes(BYTES)
        made.chunk(new, data)
        then[old * BYTES:(old + 1) * BYTES] = data
    return made.data, then, [old for old, _ in pairs]


class Scenario:
    def __init__(self, disk, device, aio, rng, old):
        self.volume, self.device, self.aio, self.rng = volume.Volume(disk), device, aio, rng
        self.now = rng.randbytes(BLOCKS * BYTES)
        disk.write(0, self.now)
        self.now, self.then, self.excepted = bytearray(self.now), bytearray(self.now), []
        image = bytes(device.size)
        if old:
            image, self.then, self.excepted = used_before(rng, self.now, device.size)
        device.write(0, image)
        self.snap = volume.Snapshot("snap", disk, device, CHUNK, "P")
        self.volume.snapshots.append(self.snap)
        self.merging = False
        # what blocks of the snapshot had before a write that no flush followed: our targets promise no more of it
        self.unflushed = {}

    # Steps. Each may raise OSError for a failure of the COW device; the origin's writes may not fail.

    def activate(self):
        self.volume.activate()

    def fresh(self, count):
        """Blocks that have no exception yet."""
        blocks = [block for block in range(BLOCKS) if block not in self.excepted][:count]
        self.excepted += blocks
        return blocks

    def write(self, *targets):
        """Writes to "origin" or "snap", each to a block that has no exception, all at once."""
        batch = []
        for target, block in zip(targets, self.fresh(len(targets))):
            path = self.volume.path if target == "origin" else self.snap.path
            batch.append((path, block * BYTES, self.rng.randbytes(BYTES)))
        results = self.aio.write(batch)
        self.aio.release()
        for target, (_, at, data), result in zip(targets, batch, results):
            if target == "origin":
                assert result == BYTES, f"a write to the origin failed: {result}"
                self.now[at:at + BYTES] = data
            elif result == BYTES:
                if module.CORE == "rust":
                    self.unflushed[at] = bytes(self.then[at:at + BYTES])
                self.then[at:at + BYTES] = data
            else:
                assert result == -errno.EIO, result

    def flush(self):
        fd = os.open(self.snap.path, os.O_WRONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        self.unflushed.clear()

    def handover(self):
        self.snap.handover()

    def check(self, blocks=BLOCKS):
        """The snapshot's first blocks are what they must be."""
        size = blocks * BYTES
        found = disks.read(self.snap.path, 0, size)
        for at, before in self.unflushed.items():
            if at < size and found[at:at + BYTES] == before:
                self.then[at:at + BYTES] = before
        assert disks.first_difference(found, self.then[:size]) is None, "the snapshot"

    def invalid(self):
        return self.snap.device is not None and self.snap.status() == "Invalid"

    def deactivate(self):
        self.still_there()
        self.volume.deactivate()

    def still_there(self):
        if self.invalid():
            raise OSError(errno.EIO, "the snapshot was lost")

    def merge(self):
        self.still_there()
        self.volume.drop(self.snap)
        self.volume.merge(self.snap)
        self.merging = True
        try:
            merge.wait_done(self.volume)
        except ValueError:
            assert self.volume.device.status() == "Merge failed"
            raise OSError(errno.EIO, "the merge failed") from None

    # Whatever went before, when the COW device is all right again.

    def check_all(self, excused):
        """Asserts that nothing was lost; `excused` says whether the header of an invalid snapshot may be unwritten."""
        if self.volume.device is None:
            self.check_loaded(lost=False)
            return
        lost = self.invalid()
        if self.snap.device is not None and not lost:
            self.check()
        self.check_origin()
        self.volume.deactivate()
        if self.merging:
            merge.activate(self.volume, self.snap)
            merge.wait_done(self.volume)
            self.now = self.then
            self.check_origin()
            self.volume.deactivate()
            assert disks.first_difference(self.volume.disk.read(), self.now) is None, "the origin's disk"
        elif lost and cow.HEADER.unpack(self.device.read(0, 16))[1]:
            assert excused(), "the snapshot is Invalid, and the device does not say so"
        else:
            self.check_loaded(lost)

    def check_origin(self):
        """It can be read and written, where the snapshot has an exception if it has any."""
        block = self.excepted[0] if self.excepted else 0
        data = self.rng.randbytes(BYTES)
        view = self.then if self.merging else self.now
        try:
            disks.write(self.volume.path, block * BYTES, data)
            view[block * BYTES:(block + 1) * BYTES] = data
        except OSError as e:
            # a record that could not be cleared is on the disk still or not, so that nobody knows which of the two
            # copies counts when the merge is taken up: the Rust core writes to neither before that
            assert (module.CORE, self.merging, e.errno) == ("rust", True, errno.EIO), e
            assert self.volume.device.status() == "Merge failed"
        if not self.excepted:
            # the snapshot is still to be made
            self.then[:] = self.now
        assert disks.first_difference(disks.read(self.volume.path), view) is None, "the origin"

    def check_loaded(self, lost):
        self.snap.target = "snapshot"
        self.volume.activate()
        assert self.invalid() == lost, self.snap.status()
        if not lost:
            self.check()
        self.check_origin()
        self.volume.deactivate()

    def end(self):
        """Removes all, and sees that nobody holds the devices any more."""
        if self.volume.device is not None or self.snap.device is not None:
            self.volume.deactivate()
        for path in self.volume.disk.path, self.device.path:
            deadline = time.monotonic() + 10
            while True:
                try:
                    os.close(os.open(path, os.O_RDWR | os.O_EXCL))
                    break
                except OSError as e:
                    # a store's last reference to a device goes a moment later
                    assert e.errno == errno.EBUSY and time.monotonic() < deadline, f"{path}: {e}"
                    time.sleep(0.005)


def new_snapshot(scenario):
    """A new snapshot."""
    scenario.activate()
    scenario.write("origin")
    scenario.write("origin", "snap", "origin")
    scenario.flush()
    scenario.handover()
    scenario.write("snap")
    scenario.deactivate()
    scenario.activate()
    scenario.check(1)


def used_snapshot(scenario):
    """One that was there before, over the border of an area, and then merged."""
    scenario.activate()
    scenario.write("origin")
    scenario.check(1)
    scenario.write("snap", "origin")
    # the list ends with the area: the next must be zero
    scenario.deactivate()
    scenario.activate()
    scenario.write("snap", "origin", "origin")
    scenario.handover()
    scenario.write("origin")
    scenario.flush()
    scenario.deactivate()
    scenario.activate()
    scenario.check(1)
    scenario.merge()

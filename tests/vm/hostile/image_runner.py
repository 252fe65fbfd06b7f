# SPDX-License-Identifier: GPL-2.0-only
"""Runs images with hostile metadata: an origin that stays, and a COW device that holds one image after another.

Whatever the image, the kernel has nothing to complain of and says little, nothing takes long, and the origin's content
is what was written to it.
"""

import errno
import time

import cow
import disks
import kmsg
import merge

REFUSALS = (errno.EINVAL, errno.ENXIO, errno.EUCLEAN)
# a refusal: why, in a line of ours; then that the target, and that the table, could not be made, in dm's
LINES = 3
SECONDS = 30


class ImageRunner:
    def __init__(self, volume, device, chunk, log, rng):
        self.volume, self.device, self.chunk, self.log, self.rng = volume, device, chunk, log, rng
        self.model = bytearray(volume.content)
        self.said = 0  # lines of the log that were looked at
        self.began = time.monotonic()

    def put(self, image):
        self.device.resize(len(image))
        self.device.write(0, image)
        self.quiet(LINES)
        self.began = time.monotonic()

    def quiet(self, limit):
        """The kernel said no more than `limit` lines since the last time, and did not complain."""
        lines = self.log.lines()[self.said:]
        self.said += len(lines)
        complaints = kmsg.complaints(lines)
        assert not complaints, complaints
        # a loop device says when it is resized
        lines = [line for line in lines if "capacity change" not in line]
        assert len(lines) <= limit, lines
        return lines

    def activate(self):
        """The snapshot; None if it was refused."""
        try:
            snap = self.volume.snapshot(self.device, self.chunk)
        except OSError as e:
            assert e.errno in REFUSALS, e
            said = self.quiet(LINES)
            assert sum("persistent snapshot: " in line for line in said) == 1, said
            return None
        self.quiet(LINES)
        return snap

    def write_origin(self, count):
        for _ in range(count):
            at = self.rng.randrange(0, len(self.model), 512)
            data = self.rng.randbytes(512)
            disks.write(self.volume.path, at, data)
            self.model[at:at + 512] = data

    def write_snapshot(self, snap, content, count):
        for _ in range(count):
            at = self.rng.randrange(0, len(content), 512)
            data = self.rng.randbytes(512)
            try:
                disks.write(snap.path, at, data)
            except OSError as e:
                assert e.errno == errno.EIO and snap.status() == "Invalid", e
                return
            content[at:at + 512] = data

    def content(self, image):
        """What the records of an image that was not refused say that the snapshot reads as, and the bytes, as slices,
        of which they say two things."""
        content, seen, doubtful = bytearray(self.model), set(), []
        found = cow.Cow(image)
        if found.magic == 0:
            return content, doubtful
        size = found.layout.bytes
        for old, new in found.records():
            chunk = slice(old * size, min((old + 1) * size, len(content)))
            content[chunk] = image[new * size:new * size + chunk.stop - chunk.start]
            if old in seen:
                doubtful.append(chunk)
            seen.add(old)
        return content, doubtful

    def check_snapshot(self, snap, content, doubtful):
        read = disks.read(snap.path)
        for chunk in doubtful:
            read[chunk] = content[chunk]
        assert disks.first_difference(read, content) is None, "the snapshot"

    def check_origin(self):
        assert disks.first_difference(disks.read(self.volume.path), self.model) is None, "the origin"
        took = time.monotonic() - self.began
        assert took < SECONDS, f"it took {took:.0f} s"

    def drop(self, snap):
        self.volume.drop(snap)
        self.volume.snapshots.clear()

    def endure(self, image):
        """The image is activated, read, written to on both sides and removed. Returns what became of it."""
        self.put(image)
        snap = self.activate()
        if snap is None:
            self.write_origin(1)
            self.check_origin()
            return "refused"
        try:
            return self.use(snap, image)
        finally:
            self.drop(snap)
            self.check_origin()

    def use(self, snap, image):
        if snap.status() == "Invalid":
            self.write_origin(1)
            try:
                disks.read(snap.path, 0, 512)
            except OSError as e:
                assert e.errno == errno.EIO
                return "invalid"
            raise AssertionError("an invalid snapshot can be read")
        content, doubtful = self.content(image)
        self.check_snapshot(snap, content, doubtful)
        self.write_origin(2)
        self.write_snapshot(snap, content, 2)
        if snap.status() == "Invalid":
            self.quiet(LINES)
            return "filled"
        self.check_snapshot(snap, content, doubtful)
        self.quiet(0)
        return "used"

    def merge(self, image, change=None):
        """The image is merged; `change`, if there is one, is what stands on the device by then. Returns what became of
        it."""
        self.put(image)
        snap = self.activate()
        if snap is None:
            return "refused"
        self.volume.drop(snap)
        if self.device.read(4, 4) == bytes(4):
            self.volume.snapshots.clear()
            return "invalid"
        content, doubtful = self.content(image)
        snap.target = "snapshot-merge"
        self.volume.device.load(snap.line())
        if change is not None:
            self.device.write(0, change)
        self.volume.device.suspend()
        self.volume.device.resume()
        try:
            return self.merged(content, doubtful, change is not None)
        finally:
            self.volume.snapshots.clear()
            self.volume.device.reload([(0, self.volume.disk.sectors, "snapshot-origin", self.volume.disk.path)])
            self.quiet(LINES)
            self.write_origin(2)
            self.check_origin()

    def merged(self, content, doubtful, changed):
        verdict = "merged"
        try:
            merge.wait_done(self.volume)
        except ValueError:
            # no numbers
            verdict = "failed"
            assert self.volume.device.status() == "Merge failed"
        now = disks.read(self.volume.disk.path)
        if not changed and verdict == "failed":
            # two records of one chunk of the origin: dm-snapshot can fail to find the second
            assert doubtful
        elif not changed:
            for chunk in doubtful:
                content[chunk] = now[chunk]
            assert disks.first_difference(now, content) is None, "the merged origin"
        self.model = now
        return verdict

# SPDX-License-Identifier: GPL-2.0-only
"""The n-th read, write or flush of the origin's disk or of a COW device fails, for every fifth n, beside all that begins
copies: a writer in sequence, snapshots with several chunk sizes, writes to parts of chunks, with FUA and without, single
writers. A write to the origin fails only if its disk did; a snapshot whose COW device did nothing wrong is lost only if
the origin could not be read; what is not lost is right, also after it was activated again."""

import os
import random

import disks
import dm
import module
import pytest

pytestmark = pytest.mark.rust_core
CPUS = 1
SIZE, STEP, SECTOR = 1 << 20, 4096, 512
CHUNKS = 8, 32
MOST = 400
# so many that met no failure, one after the other, are enough
MISSED = 3


class Device:
    """A mapped device, and what each of its sectors may be."""

    def __init__(self, path, content):
        self.path = path
        self.may_be = [{bytes(content[at:at + SECTOR])} for at in range(0, len(content), SECTOR)]

    def write(self, offset, data, flags=0):
        """Returns whether it succeeded. What failed may be there or not."""
        try:
            disks.put(self.path, offset, data, flags)
            good = True
        except OSError:
            good = False
        for at in range(0, len(data), SECTOR):
            sector = data[at:at + SECTOR]
            place = (offset + at) // SECTOR
            self.may_be[place] = {sector} if good else self.may_be[place] | {sector}
        return good

    def check(self, path):
        found = bytes(disks.read(path))
        for n, may_be in enumerate(self.may_be):
            assert found[n * SECTOR:(n + 1) * SECTOR] in may_be, f"{self.path}: sector {n}"


class Run:
    def __init__(self, volume, rng):
        self.volume, self.rng = volume, rng
        content = volume.content
        self.origin = Device(volume.path, content)
        self.snaps = [Device(snap.path, content) for snap in volume.snapshots]
        self.origin_failed = False

    def to_origin(self, offset, size):
        self.origin_failed |= not self.origin.write(offset, self.rng.randbytes(size))

    def steps(self):
        rng = self.rng
        # a writer in sequence: copies ahead, of both sizes
        for at in range(0, SIZE // 2, STEP):
            self.to_origin(at, STEP)
        # chunks that nobody has yet
        fresh = rng.sample(range(SIZE // 2 // (CHUNKS[1] * SECTOR), SIZE // (CHUNKS[1] * SECTOR)), 10)
        for chunk in fresh[:4]:
            at = chunk * CHUNKS[1] * SECTOR
            self.to_origin(at + rng.randrange(8) * SECTOR, SECTOR)
            for snap in self.snaps:
                snap.write(at + rng.randrange(16, 24) * SECTOR, rng.randbytes(SECTOR), rng.choice([0, os.O_DSYNC]))
        for chunk in fresh[4:]:
            at = chunk * CHUNKS[1] * SECTOR
            for snap in self.snaps:
                snap.write(at + rng.randrange(8) * SECTOR, rng.randbytes(SECTOR), rng.choice([0, os.O_DSYNC]))
            self.to_origin(at + 8 * SECTOR, STEP)

    def lost(self):
        return [snap.status() == "Invalid" for snap in self.volume.snapshots]

    def flush(self):
        """What was written to the snapshots is to be there for ever."""
        for snap in self.snaps:
            fd = os.open(snap.path, os.O_WRONLY)
            try:
                os.fsync(fd)
            except OSError:
                pass  # it was lost
            finally:
                os.close(fd)

    def check(self, lost):
        self.origin.check(self.volume.path)
        for snap, snapshot, is_lost in zip(self.snaps, self.volume.snapshots, lost):
            if not is_lost:
                snap.check(snapshot.path)


@pytest.mark.parametrize("times", [1, None], ids=["once", "from-then-on"])
@pytest.mark.parametrize("which,kind", [("origin", "read"), ("origin", "write")]
                         + [(cow, kind) for cow in ("cow0", "cow1") for kind in ("write", "flush")])
def test_every_one_fails(origin, recorder, which, kind, times):
    devices = {"origin": recorder(SIZE, name="origin"), "cow0": recorder(2 * SIZE, name="cow0"),
               "cow1": recorder(2 * SIZE, name="cow1")}
    module.copy_ahead(True)
    volume = origin(SIZE, target=devices["origin"])
    nth, missed, lost_ever = 1, 0, False
    try:
        while missed < MISSED:
            assert nth < MOST
            rng = random.Random(f"{which} {kind} {nth} {times}")
            volume.content = rng.randbytes(SIZE)
            devices["origin"].write(0, volume.content)
            for number, chunk in enumerate(CHUNKS):
                devices[f"cow{number}"].write(0, bytes(2 * SIZE))
                volume.snapshot(devices[f"cow{number}"], chunk)
            run = Run(volume, rng)
            bad = devices[which]
            last = bad.counts[kind] + nth
            bad.fail(kind, nth, times)
            run.steps()
            met = bad.counts[kind] >= last
            bad.mend()
            lost = run.lost()
            what = f"{nth}: {lost}"
            assert met or not any(lost), what
            assert not run.origin_failed or which == "origin" and kind == "write", what
            if which == "origin":
                assert not any(lost) or kind == "read", what
            else:
                assert not lost[1 - int(which[-1])], what
            run.flush()
            run.check(lost)
            volume.deactivate()
            # of one that is lost, a header that could not be written says nothing
            volume.activate()
            assert not any(now and not before for now, before in zip(run.lost(), lost)), what
            run.check(lost)
            volume.deactivate()
            volume.snapshots.clear()
            lost_ever |= any(lost)
            missed = 0 if met else missed + 1
            # those from then on differ little from each other
            nth += 5 if times else 13
    finally:
        module.copy_ahead(False)
        volume.deactivate()
    assert lost_ever or (which, kind) == ("origin", "write")
    assert dm.names() == []

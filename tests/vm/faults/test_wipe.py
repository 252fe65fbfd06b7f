# SPDX-License-Identifier: GPL-2.0-only
"""The next area is zeroed in the background, on a device that takes its time: who waits for it, and who does not."""

import threading
import time

import cow
import disks
import nbd
import pytest

GUEST = "faults"
STORES = ["rust"]
CHUNK = 8
BYTES = CHUNK * 512
PER_AREA = BYTES // 16
HALF = PER_AREA // 2
CHUNKS = 2 * PER_AREA
GARBAGE = 0xa5
PROMPT, SOON = 60, 1  # seconds; the emulator may be slow


NEXT_AREA = (1 + PER_AREA + 1) * BYTES  # where area 1 is


class Holding(nbd.Disk):
    """A disk that keeps what zeroes area 1 waiting while it is told to, and does it no earlier."""

    def __init__(self, size):
        self.holding, self.held, self.lock = False, [], threading.Lock()
        super().__init__(size, name="cow")

    def _do(self, op):
        if not self._holds(op):
            super()._do(op)

    def _holds(self, op):
        return self.holding and op.offset == NEXT_AREA and op.kind in ("write", "zeroes")

    def _reply(self, op):
        with self.lock:
            if self._holds(op):
                self.held.append(op)
            else:
                super()._reply(op)

    def wait_held(self):
        deadline = time.monotonic() + PROMPT
        while not self.held:
            assert time.monotonic() < deadline, "nothing is being zeroed"
            time.sleep(0.01)

    def release(self, failed=False):
        with self.lock:
            self.holding = False
            for op in self.held:
                op.failed = failed
                if not failed:
                    super()._do(op)
                super()._reply(op)
            self.held = []


class Task(threading.Thread):
    """Something that may take long."""

    def __init__(self, function, *arguments):
        super().__init__(target=self._run, args=(function, arguments), daemon=True)
        self.error = None
        self.start()

    def _run(self, function, arguments):
        try:
            function(*arguments)
        except Exception as e:  # told in the thread that asked
            self.error = e

    def done(self, seconds):
        self.join(seconds)
        if self.error:
            raise self.error
        return not self.is_alive()


@pytest.fixture
def half_full(origin, devices, disk_list):
    """A volume with a snapshot half an area of which is in use, and its COW disk, which is zeroing the next area."""
    disk = Holding((CHUNKS + 16) * BYTES)
    disk_list.append(disk)
    disk.write(0, bytes(4) + bytes([GARBAGE]) * (disk.size - 4))
    volume = origin(CHUNKS * BYTES)
    snap = volume.snapshot(disks.Mapped(disk, devices("cow")), CHUNK)
    disk.holding = True
    fill(volume, 0, HALF)
    disk.wait_held()
    yield volume, snap, disk
    disk.release()


def fill(volume, first, count):
    for chunk in range(first, first + count):
        disks.write(volume.path, chunk * BYTES, b"\x11" * 512)


def test_what_is_zeroed_stays_allocated(half_full):
    """On a thin COW device a later record must not run out of space."""
    _, _, disk = half_full
    (op,) = disk.held
    assert (op.kind, op.offset, op.length) == ("write", NEXT_AREA, BYTES)
    assert not any(op.data)


def test_a_snapshot_is_removed_while_its_cow_device_is_suspended(half_full):
    volume, snap, disk = half_full
    suspension = Task(snap.cow.device.suspend)
    # what is submitted from here on waits until the device is resumed, whatever submits it
    assert not suspension.done(SOON)
    disk.release(failed=True)
    assert suspension.done(PROMPT)
    removal = Task(volume.drop, snap)
    prompt = removal.done(PROMPT)
    snap.cow.device.resume()
    assert removal.done(PROMPT)
    assert prompt, "the removal waited for the COW device"
    assert len(cow.Cow(disk.read()).check()) == HALF


def test_a_snapshot_is_invalidated_while_an_area_is_being_zeroed(half_full):
    volume, snap, disk = half_full
    disk.fail("write")
    write = Task(fill, volume, HALF, 1)
    prompt = write.done(PROMPT)
    header = cow.HEADER.unpack(disk.read(0, 16))
    disk.release()
    assert write.done(PROMPT)
    assert prompt, "the invalidation waited for the zeroing"
    assert header == (cow.MAGIC, 0, 1, CHUNK)
    assert snap.status() == "Invalid"
    assert disks.read(volume.path, HALF * BYTES, 512) == b"\x11" * 512


def test_a_snapshot_that_is_removed_waits_for_what_is_under_way(half_full):
    volume, snap, disk = half_full
    removal = Task(volume.drop, snap)
    assert not removal.done(SOON)
    disk.release()
    assert removal.done(PROMPT)
    assert len(cow.Cow(disk.read()).check()) == HALF


@pytest.mark.parametrize("failed", [False, True])
def test_the_record_that_fills_an_area_waits_for_the_next_to_be_zero(half_full, failed):
    volume, snap, disk = half_full
    fill(volume, HALF, HALF - 1)
    last = Task(fill, volume, PER_AREA - 1, 1)
    assert not last.done(SOON)
    found = cow.Cow(disk.read())
    assert len(found.records()) == PER_AREA - 1
    assert found.area(1) == bytes([GARBAGE]) * BYTES
    disk.release(failed)
    assert last.done(PROMPT)
    found = cow.Cow(disk.read())
    assert len(found.records()) == PER_AREA
    assert found.area(1) == bytes(BYTES)
    fill(volume, PER_AREA, 2)
    assert disks.first_difference(disks.read(snap.path), volume.content) is None
    volume.deactivate()
    assert len(cow.Cow(disk.read()).check()) == PER_AREA + 2

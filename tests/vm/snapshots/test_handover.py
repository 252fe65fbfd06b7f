# SPDX-License-Identifier: GPL-2.0-only
"""The table of a live snapshot is reloaded, under I/O and many times: the store goes over to the new table and no
content is lost."""

import contextlib
import os
import random
import threading
import time

import cow
import disks
import dm
import pytest
from conftest import CORE

GUEST = "snapshots"
CHUNK = 8
BYTES = CHUNK * 512
CHUNKS = 1024


def test_handover_keeps_content_records_and_usage(snapshot):
    volume, snap = snapshot(CHUNKS * BYTES, 2 * CHUNKS * BYTES, CHUNK)
    for count in range(1, 301):
        disks.write(volume.path, (count * 7 % CHUNKS) * BYTES, b"\x11" * 512)
        if count % 25 in (0, 6):
            before = snap.usage()
            volume.device.suspend()
            snap.handover()
            volume.device.resume()
            assert snap.usage() == before
    assert disks.read(snap.path) == volume.content
    assert snap.device.table()[0][3].endswith(" P 8")
    volume.deactivate()
    assert [old for old, _ in cow.Cow(snap.cow.read()).check()] == [count * 7 % CHUNKS for count in range(1, 301)]


def test_handover_takes_the_new_tables_overflow_option(snapshot):
    volume, snap = snapshot(64 * BYTES, 128 * BYTES, CHUNK)
    snap.options = "PO"
    snap.handover()
    assert snap.device.table()[0][3].endswith(" PO 8")
    snap.options = "P"
    snap.handover()
    assert snap.device.table()[0][3].endswith(" P 8")


def test_handover_of_an_invalid_snapshot(snapshot):
    volume, snap = snapshot(64 * BYTES, 8 * BYTES, CHUNK)
    for chunk in range(16):
        disks.write(volume.path, chunk * BYTES, b"\x11" * 512)
    assert snap.status() == "Invalid"
    snap.handover()
    assert snap.status() == "Invalid"


def test_a_handover_that_is_called_off(snapshot):
    volume, snap = snapshot(64 * BYTES, 128 * BYTES, CHUNK)
    disks.write(volume.path, 0, b"\x11" * 512)
    snap.device.load(snap.line())
    snap.device.clear()
    disks.write(volume.path, BYTES, b"\x11" * 512)
    assert disks.read(snap.path) == volume.content
    assert snap.usage()[0] == 4 * CHUNK


def test_a_loaded_table_goes_with_its_device(snapshot):
    volume, snap = snapshot(64 * BYTES, 128 * BYTES, CHUNK)
    disks.write(volume.path, 0, b"\x11" * 512)
    snap.device.load(snap.line())
    volume.deactivate()
    volume.activate()
    assert disks.read(snap.path) == volume.content


def test_a_table_for_another_device_with_the_same_cow_is_refused(snapshot):
    """Two snapshots on one COW device would destroy each other."""
    volume, snap = snapshot(64 * BYTES, 128 * BYTES, CHUNK)
    with pytest.raises(OSError):
        dm.Device("second", snap.line())
    disks.write(volume.path, 0, b"\x11" * 512)
    assert disks.read(snap.path) == volume.content


class Side(threading.Thread):
    """Writes to one side of a snapshot without a pause, except while somebody else has `gate`."""

    def __init__(self, aio, path, content, seed, gate):
        super().__init__()
        self.aio, self.path, self.content, self.gate = aio, path, bytearray(content), gate
        self.rng, self.noise = random.Random(seed), os.urandom(1 << 16)
        self.stopped, self.batches, self.failure = threading.Event(), 0, None
        self.start()

    def run(self):
        try:
            while not self.stopped.is_set() and not self.failure:
                with self.gate:
                    self.write()
                time.sleep(0.001)  # somebody else may want the gate
        except OSError as e:
            self.failure = e

    def write(self):
        batch = []
        for block in self.rng.sample(range(CHUNKS), 16):
            start = self.rng.randrange(len(self.noise) - 1024)
            offset = block * BYTES + 512 * self.rng.randrange(6)
            self.content[offset:offset + 1024] = self.noise[start:start + 1024]
            batch.append((self.path, offset, self.noise[start:start + 1024]))
        results = self.aio.write(batch)
        if results != [1024] * len(batch):
            self.failure = results
        self.batches += 1

    def stop(self):
        self.stopped.set()
        self.join()
        self.aio.release()
        assert not self.failure
        assert self.batches > 10


@pytest.mark.parametrize("flags", [dm.SKIP_LOCKFS, dm.SKIP_LOCKFS | dm.NOFLUSH], ids=["flush", "noflush"])
def test_handover_under_io_many_times(snapshot, writer, flags):
    """Writers on both sides never stop while the table is reloaded again and again.

    With the C core, that of the origin does while the table is taken into use: the core lets the origin go on in
    snapshot_resume() before the new table's snapshot counts as active, and what is written then is not copied out."""
    volume, snap = snapshot(CHUNKS * BYTES, 2 * CHUNKS * BYTES, CHUNK)
    gate = threading.Lock() if CORE == "c" else contextlib.nullcontext()
    origin = Side(writer(16, BYTES), volume.path, volume.content, 5, gate)
    changed = Side(writer(16, BYTES), snap.path, volume.content, 6, contextlib.nullcontext())
    handovers = 0
    try:
        while handovers < 150 and not (origin.failure or changed.failure):
            snap.device.load(snap.line())
            snap.device.suspend(flags)
            with gate:
                snap.device.resume()
            handovers += 1
    finally:
        origin.stop()
        changed.stop()
    assert disks.first_difference(disks.read(volume.path), origin.content) is None
    assert disks.first_difference(disks.read(snap.path), changed.content) is None
    volume.deactivate()
    cow.Cow(snap.cow.read()).check()
    volume.activate()
    assert disks.first_difference(disks.read(snap.path), changed.content) is None

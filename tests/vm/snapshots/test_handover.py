# SPDX-License-Identifier: GPL-2.0-only
"""The table of a live snapshot is reloaded, under I/O and many times: the store goes over to the new table and no
content is lost."""

import os
import random
import threading

import cow
import disks
import dm
import pytest

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


@pytest.mark.parametrize("flags", [dm.SKIP_LOCKFS, dm.SKIP_LOCKFS | dm.NOFLUSH], ids=["flush", "noflush"])
def test_handover_under_io_many_times(snapshot, writer, flags):
    """Writers on both sides never stop while the table is reloaded again and again."""
    volume, snap = snapshot(CHUNKS * BYTES, 2 * CHUNKS * BYTES, CHUNK)
    rng = random.Random(5)
    contents = {volume.path: bytearray(volume.content), snap.path: bytearray(volume.content)}
    noise = os.urandom(1 << 16)
    aio = writer(32, BYTES)
    stop = threading.Event()
    failures, batches = [], [0]

    def write():
        try:
            while not stop.is_set():
                batch = []
                for path, content in contents.items():
                    for block in rng.sample(range(CHUNKS), 16):
                        start = rng.randrange(len(noise) - 1024)
                        offset = block * BYTES + 512 * rng.randrange(6)
                        content[offset:offset + 1024] = noise[start:start + 1024]
                        batch.append((path, offset, noise[start:start + 1024]))
                results = aio.write(batch)
                if results != [1024] * len(batch):
                    failures.append(results)
                    return
                batches[0] += 1
        except OSError as e:
            failures.append(e)

    thread = threading.Thread(target=write)
    thread.start()
    handovers = 0
    try:
        while handovers < 150 and not failures:
            snap.handover(flags)
            handovers += 1
    finally:
        stop.set()
        thread.join()
    assert not failures
    assert batches[0] > 10
    aio.release()
    assert disks.first_difference(disks.read(volume.path), contents[volume.path]) is None
    assert disks.first_difference(disks.read(snap.path), contents[snap.path]) is None
    path = snap.path
    volume.deactivate()
    cow.Cow(snap.cow.read()).check()
    volume.activate()
    assert disks.first_difference(disks.read(snap.path), contents[path]) is None

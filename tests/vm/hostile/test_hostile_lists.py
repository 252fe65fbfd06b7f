# SPDX-License-Identifier: GPL-2.0-only
"""Long lists of records that were made to cost a table load as much as they can: in dm-snapshot's table of exceptions,
whose buckets are walked for each insertion, and in the check for chunks that are used twice.

The host's tests count steps of the same lists (tests/host/tests/metadata/hostile.rs); here is what they take.
"""

import errno
import os
import random
import signal
import time
from array import array

import cow
import disks
import dm
import failing
import pytest

CPUS = 1
STORES = ["rust"]
TIMEOUT = 1200

MIB = 1 << 20
CHUNK = 8
BYTES = CHUNK * 512
RECORDS = 262_144
LAYOUT = cow.Layout(CHUNK)
AREAS = RECORDS // LAYOUT.per_area + 1
COW_BYTES = (AREAS * (LAYOUT.per_area + 1) + 1) * BYTES
# in the emulator, beside others; a list that costs nothing takes one or two. The debug kernel keeps books of each of
# the 262,144 regions that our table has of the far old chunks
SECONDS = 500 if failing.DEBUGFS.joinpath("kmemleak").exists() else 25
# neighbours that share a bucket of dm-snapshot's table, and its buckets
BLOCK, BUCKETS = 1 << 8, 1 << 17

pytestmark = pytest.mark.rust_only


def ascending():
    return array("Q", LAYOUT.data_chunks(RECORDS))


def descending():
    return array("Q", reversed(LAYOUT.data_chunks(RECORDS)))


def in_no_order():
    chunks = LAYOUT.data_chunks(RECORDS)
    random.Random(7).shuffle(chunks)
    return array("Q", chunks)


def one_chunk():
    return array("Q", [5]) * RECORDS


def one_bucket():
    return array("Q", range(0, RECORDS * BLOCK * BUCKETS, BLOCK * BUCKETS))


def side_by_side():
    return array("Q", range(RECORDS))


@pytest.fixture
def put(disk):
    """put(old, new) makes a COW device with these records."""
    def make(old, new):
        device = disk(COW_BYTES)
        both = array("Q", bytes(AREAS * BYTES))
        both[0:2 * RECORDS:2], both[1:2 * RECORDS:2] = old, new
        data = memoryview(both).cast("B")
        device.write(0, cow.HEADER.pack(cow.MAGIC, 1, 1, CHUNK))
        for area in range(AREAS):
            device.write(LAYOUT.area_chunk(area) * BYTES, data[area * BYTES:(area + 1) * BYTES])
        return device
    return make


@pytest.fixture
def unknown(devices):
    """An origin whose table is not in use yet, as LVM has one while it activates a snapshot. It has no size: no old
    chunk is beyond its end."""
    made = devices("unknown")
    made.load([(0, 8, "error", "")])
    return made


def line(origin, device, sectors=8):
    return [(0, sectors, "snapshot", f"{origin.path} {device.path} P {CHUNK}")]


@pytest.mark.parametrize("new", [ascending, descending, in_no_order])
@pytest.mark.parametrize("old", [side_by_side, one_bucket])
def test_it_loads_in_time(put, unknown, devices, old, new):
    device = put(old(), new())
    began = time.monotonic()
    loaded = devices("s", line(unknown, device))
    took = time.monotonic() - began
    print(f"{old.__name__}, {new.__name__}: {took:.1f} s")
    assert took < SECONDS
    allocated, metadata = LAYOUT.usage(RECORDS)
    assert loaded.usage() == (allocated, device.sectors, metadata)


@pytest.mark.parametrize("new", [ascending, in_no_order])
def test_one_old_chunk_is_refused_in_time(put, unknown, log, free_memory, new):
    chunks = new()
    device = put(one_chunk(), chunks)
    before, began = free_memory(), time.monotonic()
    with pytest.raises(OSError) as refusal:
        dm.Device("s", line(unknown, device))
    took = time.monotonic() - began
    print(f"one_chunk, {new.__name__}: {took:.1f} s")
    assert took < SECONDS
    assert refusal.value.errno == errno.EUCLEAN
    assert log.matching(f"old chunk 5 is used by two records, with new chunks {chunks[0]} and {chunks[1]}$")
    assert before - free_memory() < 8 * MIB


def test_a_load_can_be_killed(put, unknown, devices, log):
    """Whoever loads a table from a slow device does not wait for the list's end once it was told to die."""
    slow = disks.Mapped(put(side_by_side(), ascending()), devices("cow"))
    slow.delay(read_ms=1000)
    made = devices("s")
    child = os.fork()
    if child == 0:
        try:
            made.load(line(unknown, slow))
        finally:
            os._exit(1)
    time.sleep(2.5)
    began = time.monotonic()
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    took = time.monotonic() - began
    assert os.WTERMSIG(status) == signal.SIGKILL
    # the reads that are under way are waited for
    assert took < 4
    assert log.matching("interrupted while checking the metadata")
    slow.delay()
    made.load(line(unknown, slow))

# SPDX-License-Identifier: GPL-2.0-only
"""A snapshot that is invalidated while records are being written leaves a whole header and whole records, every time.

The C driver once wrote header and records from one buffer. Each round here overflows a small COW device by many writes
at once, so that the header is written beside the records, then reads the device.
"""

import random
import time

import cow
import disks
import pytest

CHUNK = 8
BYTES = CHUNK * 512
CHUNKS = 64
ROUNDS = 500
SLOW = 60  # of the rounds, with a COW device whose writes take long


@pytest.mark.parametrize("rounds,write_ms", [(ROUNDS - SLOW, 0), (SLOW, 4)], ids=["fast", "slow"])
def test_header_and_records_are_whole_after_each_invalidation(origin, mapped, writer, rounds, write_ms):
    volume = origin(CHUNKS * BYTES)
    device = mapped("cow", (2 + CHUNKS) * BYTES)
    fitting, overflowing = writer(CHUNKS, 512), writer(CHUNKS, 512)
    rng = random.Random(rounds)
    offered = recorded = 0
    for n in range(rounds):
        room = 1 + n % 40
        device.write(0, bytes(4) + b"\xa5" * (2 * BYTES - 4))
        size = (2 + room) * CHUNK
        device.device.reload([(0, size, "delay", f"{device.disk.path} 0 0 {device.disk.path} 0 {write_ms}")]
                             if write_ms else [(0, size, "linear", f"{device.disk.path} 0")], disks.MEND)
        snap = volume.snapshot(device, CHUNK)
        value = bytes([n & 0xff]) * 512
        writes = [(volume.path, chunk * BYTES, value) for chunk in range(CHUNKS)]
        # first what there is room for, then, at any moment of its being copied and recorded, what there is not
        fitting.submit(writes[:room])
        time.sleep(rng.random() * write_ms * 3 / 1000)
        assert overflowing.write(writes[room:]) == [512] * (CHUNKS - room)
        assert fitting.wait(room) == [512] * room
        assert snap.status() == "Invalid", f"round {n}"
        volume.drop(snap)
        found = cow.Cow(device.read())
        assert (found.magic, found.valid, found.version, found.sectors) == (cow.MAGIC, 0, 1, CHUNK), f"round {n}"
        assert not any(found.data[16:512]), f"round {n}: the header is followed by something"
        records = found.records()
        assert len({old for old, _ in records}) == len(records) <= room, f"round {n}"
        assert all(old < CHUNKS and 2 <= new < 2 + room for old, new in records), f"round {n}: {records}"
        assert not any(found.area(0)[len(records) * 16:]), f"round {n}"
        offered += room
        recorded += len(records)
        if n % 25 == 0:
            volume.activate()
            assert snap.status() == "Invalid"
            volume.drop(snap)
        volume.snapshots.remove(snap)
    # else one was always done before the other began
    assert 0 < recorded < offered
    content = disks.read(volume.path)
    for chunk in range(CHUNKS):
        assert content[chunk * BYTES:chunk * BYTES + 512] == value
        assert content[chunk * BYTES + 512:(chunk + 1) * BYTES] == \
            volume.content[chunk * BYTES + 512:(chunk + 1) * BYTES]

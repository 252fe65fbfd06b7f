# SPDX-License-Identifier: GPL-2.0-only
"""What the targets say of themselves when they are sent the message `stats`, against counts taken from outside: the
requests that were issued, the block layer's statistics, what is on the COW device."""

import errno
import os
import re
import subprocess

import cow
import disks
import merge
import pytest
from figures import BlockLayer, stats

pytestmark = pytest.mark.rust_core
GUEST = "snapshots"
CHUNK = 8
BYTES = CHUNK * 512


def waits(figures):
    """How many waits there were, of whatever length."""
    return sum(value for name, value in figures.items() if name.startswith("waits_"))


def test_what_is_counted_was_done(origin, disk):
    volume = origin(256 * BYTES)
    cows = [disk(300 * BYTES) for _ in range(2)]
    snaps = [volume.snapshot(device, CHUNK) for device in cows]
    assert not any(value for name, value in stats(volume.device).items() if name != "origin_snapshots")
    below = BlockLayer(volume.disk)
    written = [BlockLayer(device) for device in cows]

    # the origin: 50 chunks, each copied once for both, then 20 of them again
    for chunk in [*range(50), *range(20)]:
        disks.write(volume.path, chunk * BYTES, b"\x11" * 512)
    found = stats(volume.device)
    assert found["origin_snapshots"] == 2
    assert found["origin_copies"] == 50 and found["origin_copied_sectors"] == 50 * CHUNK
    assert below.since() == {"sectors_read": found["origin_copied_sectors"], "sectors_written": 70}
    assert found["origin_writes_waited"] == 50 and found["origin_writes_passed"] == 70
    assert found["origin_chunks_under_way"] == 0
    both = [stats(snap.device) for snap in snaps]
    for figures, device in zip(both, cows):
        records = len(cow.Cow(device.read()).check())
        assert figures["exceptions"] == figures["committed"] == records == 50
        assert 0 < figures["commits"] <= 50
        assert figures["copies"] == figures["copied_chunks"] == waits(figures) == 50
        assert figures["table_bytes"] > 0 and figures["chunk_sectors"] == CHUNK
        assert figures["cow_sectors"] == 300 * CHUNK and figures["cow_sectors_used"] == (50 + 2) * CHUNK
        assert figures["reads_cow"] == figures["reads_origin"] == figures["writes_cow"] == figures["merging"] == 0
        assert {name: figures[name] for name in found} == found
    assert [figures["copies_shared"] for figures in both] == [0, 50]
    for device in written:
        assert device.since()["sectors_written"] >= 50 * CHUNK

    # a snapshot: reads and writes of either kind
    snap = snaps[0]
    for chunk in range(7):
        disks.read(snap.path, chunk * BYTES, BYTES)
    for chunk in range(100, 105):
        disks.read(snap.path, chunk * BYTES, BYTES)
    for chunk in range(3):
        disks.write(snap.path, chunk * BYTES, b"\x22" * BYTES)
    for chunk in range(200, 204):
        disks.write(snap.path, chunk * BYTES, b"\x22" * 512)
    for chunk in range(220, 226):
        disks.write(snap.path, chunk * BYTES, b"\x22" * BYTES)
    now = stats(snap.device)
    assert (now["reads_cow"], now["reads_origin"]) == (7, 5)
    # those that waited become a part of the copy
    assert (now["writes_cow"], now["writes_waited"], now["writes_whole"]) == (3, 4, 6)
    assert now["writes_overlaid"] == 4
    assert now["exceptions"] == now["committed"] == 50 + 4 + 6
    assert now["copies"] == 54 and waits(now) == 60
    assert stats(snaps[1].device)["exceptions"] == 50

    assert snap.device.message("stats reset") == ""
    now = stats(snap.device)
    assert now["copies"] == now["reads_cow"] == now["committed"] == now["commits"] == waits(now) == 0
    assert now["exceptions"] == 60 and now["origin_copies"] == 54, "what is, and what is the origin's, stays"
    volume.device.message("STATS RESET")
    assert stats(volume.device)["origin_copies"] == 0


def test_a_merge_is_counted(snapshot):
    volume, snap = snapshot(256 * BYTES, 300 * BYTES, CHUNK)
    for chunk in range(0, 200, 2):
        disks.write(volume.path, chunk * BYTES, b"\x11" * 512)
    volume.drop(snap)
    volume.merge(snap)
    merge.wait_done(volume)
    # the records are gone, the last chunks leave the table
    volume.device.suspend()
    volume.device.resume()
    found = stats(volume.device)
    assert found["merging"] == 1 and found["merged"] == 100 and found["exceptions"] == 0
    assert 1 <= found["merge_batches"] <= 100
    volume.snapshots.clear()


def test_of_a_transient_snapshot(origin, disk):
    volume = origin(64 * BYTES)
    snap = volume.snapshot(disk(64 * BYTES), CHUNK, options="N")
    disks.write(volume.path, 0, b"\x11" * 512)
    found = stats(snap.device)
    assert found["exceptions"] == found["copies"] == 1 and found["commits"] == 0


@pytest.mark.parametrize("text", ["stat", "stats all", "reset", "stats reset now"])
def test_messages_that_are_not_known(snapshot, text):
    volume, snap = snapshot(64 * BYTES, 64 * BYTES, CHUNK)
    for device in (volume.device, snap.device):
        with pytest.raises(OSError) as caught:
            device.message(text)
        assert caught.value.errno == errno.EINVAL


def test_dmsetup_shows_it_to_root_alone(snapshot):
    volume, snap = snapshot(64 * BYTES, 64 * BYTES, CHUNK)
    command = ["dmsetup", "message", snap.name, "0", "stats"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.search(r"^exceptions 0$", shown, re.M) and re.search(r"^origin_snapshots 1$", shown, re.M)
    refused = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command],
                             capture_output=True, text=True)
    assert refused.returncode != 0 and "exceptions" not in refused.stdout

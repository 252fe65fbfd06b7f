# SPDX-License-Identifier: GPL-2.0-only
"""The three numbers of `dmsetup status` are those that the C store gives: allocated, total, metadata."""

import cow
import disks
import pytest

GUEST = "loading"
CPUS = 1


@pytest.mark.parametrize("chunk,counts", [
    (8, [1, 2, 255, 256, 257, 511, 512, 513, 700]), (2, [63, 64, 65, 127, 128, 129, 192]), (1, [31, 32, 33, 64, 100])])
def test_usage_at_each_step_and_after_reactivation(snapshot, chunk, counts):
    layout = cow.Layout(chunk)
    # sizes that are no multiple of a chunk, or of an area and its data
    volume, snap = snapshot(1024 * layout.bytes, 1200 * layout.bytes + 512 * (chunk - 1), chunk)
    assert snap.usage() == (2 * chunk, snap.cow.sectors, 2 * chunk)
    done = 0
    for count in counts:
        while done < count:
            disks.write(volume.path, done * layout.bytes, bytes(512))
            done += 1
        allocated, metadata = layout.usage(count)
        assert snap.usage() == (allocated, snap.cow.sectors, metadata)
    before = snap.usage()
    volume.deactivate()
    volume.activate()
    assert snap.usage() == before


def test_a_second_write_to_a_chunk_takes_no_room(snapshot):
    volume, snap = snapshot(64 * 4096, 128 * 4096, 8)
    for _ in range(3):
        disks.write(volume.path, 0, bytes(512))
        disks.write(volume.path, 2048, bytes(1024))
        disks.write(snap.path, 512, bytes(512))
    assert snap.usage() == (24, 1024, 16)

# SPDX-License-Identifier: GPL-2.0-only
"""What tests of a merge share."""

import time
from pathlib import Path

import dm

DEADLINE = 240
# per cent of the time that copies may keep the devices busy; either core has it
THROTTLE = Path("/sys/module/dm_snapshot/parameters/snapshot_copy_throttle")


def state(volume):
    """(allocated, metadata) sectors of the merge."""
    allocated, _, metadata = volume.device.usage()
    return allocated, metadata


def _wait(volume, reached):
    deadline = time.monotonic() + DEADLINE
    while not reached(*state(volume)):
        assert time.monotonic() < deadline, f"the merge stands at {volume.device.status()}"
        time.sleep(0.002)


def wait_below(volume, sectors):
    """Until fewer than `sectors` are allocated."""
    _wait(volume, lambda allocated, metadata: allocated < sectors)


def is_done(volume):
    """Whether all is merged, as userspace sees it: nothing but metadata is allocated."""
    allocated, metadata = state(volume)
    return allocated == metadata


def wait_done(volume):
    _wait(volume, lambda allocated, metadata: allocated == metadata)


def wait_failed(volume):
    deadline = time.monotonic() + DEADLINE
    while volume.device.status() != "Merge failed":
        assert time.monotonic() < deadline, volume.device.status()
        time.sleep(0.01)


def activate(volume, snapshot):
    """What LVM does at activation while a merge is not finished: the origin is the merge."""
    snapshot.target = "snapshot-merge"
    volume.device = dm.Device(volume.name, snapshot.line())

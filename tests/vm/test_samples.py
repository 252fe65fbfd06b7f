# SPDX-License-Identifier: GPL-2.0-only
"""The walk-throughs in samples/ run to their end."""

import os
import subprocess

import dm
import pytest

DISKS = {"one": "96M", "two": "96M"}


@pytest.mark.parametrize("name", ["dmsetup-snapshot.sh", "lvm-snapshot.sh"])
def test_sample(name):
    for path in (os.environ["DISK_ONE"], os.environ["DISK_TWO"]):
        subprocess.run(["wipefs", "-a", "-q", path], check=True)
    run = subprocess.run([f"/project/samples/{name}", os.environ["DISK_ONE"], os.environ["DISK_TWO"]],
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(run.stdout)
    assert run.returncode == 0, run.stdout[-3000:]
    assert "snapshot" in run.stdout
    assert dm.names() == []


@pytest.mark.parametrize("name", ["dmsetup-snapshot.sh", "lvm-snapshot.sh"])
def test_sample_without_its_devices_says_what_it_wants(name):
    run = subprocess.run([f"/project/samples/{name}"], capture_output=True, text=True)
    assert run.returncode == 2 and "Usage" in run.stdout

# SPDX-License-Identifier: GPL-2.0-only
"""The walk-throughs in samples/ run to their end."""

import os
import subprocess

import dm
import pytest

CPUS = 1
DISKS = {"one": "96M", "two": "96M", "origin": "8M", "cow": "8M"}


@pytest.mark.parametrize("name,first,second", [("dmsetup-snapshot.sh", "DISK_ORIGIN", "DISK_COW"),
                                               ("lvm-snapshot.sh", "DISK_ONE", "DISK_TWO")])
def test_sample(name, first, second):
    run = subprocess.run([f"/project/samples/{name}", os.environ[first], os.environ[second]],
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(run.stdout)
    assert run.returncode == 0, run.stdout[-3000:]
    assert "snapshot" in run.stdout
    assert dm.names() == []


@pytest.mark.parametrize("name", ["dmsetup-snapshot.sh", "lvm-snapshot.sh"])
def test_sample_without_its_devices_says_what_it_wants(name):
    run = subprocess.run([f"/project/samples/{name}"], capture_output=True, text=True)
    assert run.returncode == 2 and "Usage" in run.stdout

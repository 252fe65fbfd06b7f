# SPDX-License-Identifier: GPL-2.0-only
"""Whose targets the guest has: the kernel's own dm-snapshot, or ours in its place, found by every name it is asked by."""

import os
import subprocess
from pathlib import Path

import module
import pytest
from conftest import CORE

GUEST = "loading"
CPUS = 1
NAMES = ["dm-snapshot", "dm_snapshot", "dm-snapshot-origin", "dm-snapshot-merge"]
MIB = 1 << 20


def modinfo(field, file):
    return subprocess.run(["modinfo", "-F", field, file], check=True, capture_output=True, text=True).stdout.strip()


def found(name):
    """The file that modprobe loads for a name, after what it depends on."""
    run = subprocess.run(["modprobe", "--ignore-install", "--show-depends", name], check=True, capture_output=True, text=True)
    files = [line.split()[1] for line in run.stdout.splitlines() if line.startswith("insmod ")]
    return os.path.relpath(files[-1], f"/lib/modules/{os.uname().release}")


def test_the_loaded_targets_are_this_cores(snapshot):
    """All tests of this guest ran on the core that was asked for."""
    assert module.core() == CORE
    if CORE == "rust":  # Debian's has no version
        assert Path("/sys/module/dm_snapshot/srcversion").read_text().strip() == modinfo("srcversion", module.FILE)
    before = module.refcount("dm_snapshot")
    snapshot(MIB, MIB)
    assert module.refcount("dm_snapshot") > before, "a snapshot is not dm_snapshot's"


@pytest.mark.c_core
@pytest.mark.parametrize("name", NAMES)
def test_modprobe_finds_the_kernels_own(name):
    assert found(name).startswith("kernel/drivers/md/dm-snapshot.ko")


@pytest.mark.rust_core
@pytest.mark.parametrize("name", NAMES)
def test_modprobe_finds_ours_first(name):
    assert found(name) == "updates/dm-snapshot.ko"


@pytest.mark.rust_core
@pytest.mark.parametrize("name", NAMES)
def test_modprobe_loads_ours(name):
    module.unload_patiently()
    subprocess.run(["modprobe", name], check=True)
    assert module.core() == "rust"


@pytest.mark.rust_core
def test_the_kernels_own_is_there_beside_it():
    module.use("c")
    assert module.core() == "c"
    module.use("rust")
    assert module.core() == "rust"

# SPDX-License-Identifier: GPL-2.0-only
"""The administrator's guide says how to count the snapshots that keep C's store: its command, with both stores in use."""

import re
import subprocess
from pathlib import Path

import module
import pytest

CORES = ["c"]
STORES = ["rust"]
MIB = 1 << 20
GUIDE = Path("/project/Documentation/admin-guide.md")


def count():
    command = re.search(r"^echo .*dmsetup table.*$", GUIDE.read_text(), re.MULTILINE)[0]
    return int(subprocess.run(command, shell=True, check=True, stdout=subprocess.PIPE, text=True).stdout)


@pytest.mark.rust_only
def test_what_the_guide_says_counts_the_snapshots_of_cs_store(devices, disk):
    def snapshot(name, letter="P"):
        origin, cow = disk(MIB), disk(MIB)
        return devices(name, [(0, origin.sectors, "snapshot", f"{origin.path} {cow.path} {letter} 8")])

    origin = disk(MIB)
    devices("only-an-origin", [(0, origin.sectors, "snapshot-origin", origin.path)])
    module.unload()
    before = [snapshot("c-1"), snapshot("c-2", "PO")]
    snapshot("transient", "N")
    module.load()
    assert count() == 2
    ours = snapshot("ours")
    assert count() == 2
    before[0].remove()
    assert count() == 1
    before[1].remove()
    assert count() == 0
    ours.remove()
    assert count() == 0

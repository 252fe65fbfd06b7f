# SPDX-License-Identifier: GPL-2.0-only
"""A short soak, the same each time; `make soak` is the long one."""

import re
import subprocess

import pytest

STORES = ["rust"]
TOOLS = True
DISKS = {"one": "256M", "two": "256M"}

pytestmark = pytest.mark.rust_only


def test_some_activations():
    run = subprocess.run(["python3", "tests/soak/soak.py", "--operations", "30", "--seed", "1"],
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(run.stdout)
    last = run.stdout.splitlines()[-1]
    assert run.returncode == 0 and last.startswith("soak: ok"), run.stdout[-6000:]
    for kind in "activations", "snapshots":
        assert int(re.search(rf" (\d+) {kind},", last)[1]) > 0, f"no {kind}: {last}"

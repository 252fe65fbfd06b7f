# SPDX-License-Identifier: GPL-2.0-only
"""The tools, in memory: from the host's file system each run reads all of the program anew, for four fifths of its time."""

import os
import shutil
import subprocess

TARGET = "" if os.uname().machine == "x86_64" else f"{os.uname().machine}-unknown-linux-gnu/"
BUILT = os.environ.get("SNAP_TOOLS", f"/project/build/tools/{TARGET}release/snap_tools")
PROGRAM = "/tmp/snap_tools"

if not os.path.exists(PROGRAM):
    shutil.copy(BUILT, PROGRAM)


def run(*arguments, stdin=None):
    """Runs a tool; what it says are bytes."""
    return subprocess.run([PROGRAM, *map(str, arguments)], input=stdin, capture_output=True)


def tool(*arguments, stdin=None):
    """Runs a tool that must succeed; returns its standard output."""
    done = run(*arguments, stdin=stdin)
    assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stderr.decode()}{done.stdout.decode(errors='replace')[:500]}"
    return done.stdout

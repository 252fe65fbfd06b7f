# SPDX-License-Identifier: GPL-2.0-only
"""Where things are, and what our other scripts make."""

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent.parent
CACHE = Path(os.environ.get("DMSP_CACHE") or
             Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dm-snap-persistent")
STORE_MODULE, TARGETS_MODULE = "dm_snap_persistent.ko", "dm-snapshot.ko"


class Failure(Exception):
    """What the user can do something about."""


def tool(*words, **options):
    """Runs one of our scripts, returns its output; what it says on stderr is for the user."""
    run = subprocess.run([PROJECT / "scripts" / words[0], *words[1:]], stdout=subprocess.PIPE, text=True, **options)
    if run.returncode:
        sys.exit(run.returncode)
    return run.stdout


def settings(text):
    return dict(line.split("=", 1) for line in text.splitlines())


def size(text):
    """512M in bytes"""
    return int(text.rstrip("KMGT")) << (10 * ("KMGT".find(text[-1]) + 1))


def built_modules(kernel, output, *options):
    """The directory of the modules for that kernel, built if they are older than what they are made from."""
    path = PROJECT / "build" / output / STORE_MODULE
    sources = [PROJECT / "Kbuild", PROJECT / "scripts/module", Path(kernel["KERNEL_IMAGE"]),
               *(PROJECT / "src").rglob("*")]
    if not path.exists() or path.stat().st_mtime < max(p.stat().st_mtime for p in sources):
        tool("module", "--kernel", kernel["KERNEL_RELEASE"], *options)
        path.touch()
    return path.parent

# SPDX-License-Identifier: GPL-2.0-only
"""LVM's commands, and the mapped devices that they make."""

import subprocess

import dm
from model import Wrong

VG = "soak"
PATIENCE = 300  # seconds that no command takes, not even under the checkers


def run(*words):
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode:
        raise Wrong(f"{' '.join(words)}: {done.returncode}: {done.stdout}{done.stderr}".strip())
    return done.stdout


class Existing(dm.Device):
    """A mapped device that LVM made."""

    def __init__(self, name):
        self.name = name
        self.path = f"/dev/dm-{dm.ioctl(dm.DEV_STATUS, name).minor}"


def device(volume):
    return Existing(f"{VG}-{volume}")


def exists(volume):
    return f"{VG}-{volume}" in dm.names()


def sectors(volume):
    """How large a volume's device is."""
    return sum(line[1] for line in device(volume).table())


def volumes():
    """The attributes of all logical volumes, and how full they are, by name."""
    found = {}
    for line in run("lvs", "-a", "--noheadings", "--separator", "|", "-o", "lv_name,lv_attr,snap_percent", VG).split():
        name, attributes, percent = line.split("|")
        found[name.strip("[]")] = attributes, percent
    return found

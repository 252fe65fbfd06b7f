# SPDX-License-Identifier: GPL-2.0-only
"""What was done, counted: by the targets, and by the block layer."""

import os


def stats(device):
    """What a device of the Rust core's answers to the message `stats`."""
    lines = device.message("stats").splitlines()
    figures = dict(line.split(" ") for line in lines)
    assert len(figures) == len(lines), "a name stands there twice"
    return {name: int(value) for name, value in figures.items()}


class BlockLayer:
    """What a disk has done, from sysfs: requests may be merged on their way, sectors are what they are."""

    def __init__(self, disk):
        self.path = f"/sys/block/{os.path.basename(disk.path)}/stat"
        self.before = self.now()

    def now(self):
        with open(self.path) as file:
            fields = [int(field) for field in file.read().split()]
        return {"sectors_read": fields[2], "sectors_written": fields[6]}

    def since(self):
        now = self.now()
        return {name: now[name] - value for name, value in self.before.items()}

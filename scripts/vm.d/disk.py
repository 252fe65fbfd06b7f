# SPDX-License-Identifier: GPL-2.0-only
"""What the guest has as a disk."""

import argparse
import re
from pathlib import Path

from project import size


class Disk:
    """--disk NAME:SIZE, fresh and gone with the run, or NAME=FILE, which stays."""

    def __init__(self, text):
        match = re.fullmatch(r"([A-Za-z0-9._-]{1,20})(?::(\d+[KMGT]?)|=(.+))", text)
        if not match or match[1] == "root":
            raise argparse.ArgumentTypeError(f"{text}: say NAME:SIZE (cow:512M) or NAME=FILE")
        self.name, bytes_, file = match.groups()
        self.fresh = bytes_ is not None
        if self.fresh:
            self.size = size(bytes_)
            self.file = None
        else:
            self.file = Path(file).resolve()
            if not self.file.exists():
                raise argparse.ArgumentTypeError(f"{file}: no such file")

    def create(self, directory):
        if self.fresh:
            self.file = directory / f"disk-{self.name}"
            with open(self.file, "wb") as file:
                file.truncate(self.size)

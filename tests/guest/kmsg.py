# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's log, from a moment on."""

import os
import re
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts/vm.d"))

from complaints import COMPLAINT  # noqa: E402 - found in scripts/vm.d

# with a stack that is no complaint; the kernel warns where it has no memory for a module's events
NO_MEMORY = re.compile(r"vmalloc error|page allocation failure|kmem_cache_create\w*\(.*\) failed with error -\d+|"
                       r"WARNING: \S+ at event_define_fields\+")


def complaints(lines):
    """The complaints among them, each with the lines around it."""
    found, excused = [], False
    for n, line in enumerate(lines):
        if NO_MEMORY.search(line):
            excused = True
        elif COMPLAINT.search(line):
            if not excused or "Call Trace:" not in line:
                found.append("\n".join(lines[max(n - 12, 0):n + 12]))
            excused = False
    return found


class Log:
    """What the kernel says from now on."""

    def __init__(self):
        self.fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self.fd, 0, os.SEEK_END)
        self.seen = []

    def lines(self):
        """All lines since this was made."""
        while True:
            try:
                record = os.read(self.fd, 8192)
            except BlockingIOError:
                return self.seen
            except BrokenPipeError:
                # overwritten before it was read: go on with the oldest there is
                self.seen.append("(lines were lost)")
                continue
            self.seen.append(record.decode(errors="replace").split("\n")[0].split(";", 1)[1])

    def matching(self, pattern):
        return [line for line in self.lines() if re.search(pattern, line)]

    def complaints(self):
        return complaints(self.lines())

    def close(self):
        os.close(self.fd)

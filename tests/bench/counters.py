# SPDX-License-Identifier: GPL-2.0-only
"""What the kernel counted, and the CPU time that the machine outside counted."""

import itertools
import re
import time
from pathlib import Path

OUT = Path("/out")


class Block:
    """/sys/block/NAME/stat since the object was made."""

    FIELDS = {"reads": 0, "sectors_read": 2, "writes": 4, "sectors_written": 6, "flushes": 15}

    def __init__(self, name):
        self.file = Path(f"/sys/block/{name}/stat")
        self.before = self._read()

    def _read(self):
        values = self.file.read_text().split()
        return {field: int(values[n]) for field, n in self.FIELDS.items()}

    def since(self):
        now = self._read()
        return {field: now[field] - self.before[field] for field in now}

    @classmethod
    def total(cls, blocks):
        counts = [block.since() for block in blocks]
        return {field: sum(count[field] for count in counts) for field in cls.FIELDS}


_questions = itertools.count()


def cpu_seconds():
    """The CPU time that the whole guest used so far.

    The host answers: in here, time that the host gave to somebody else looks like time used.
    """
    number = next(_questions)
    question, answer = OUT / f"cpu-{number}.new", OUT / f"cpu-{number}.answer"
    question.write_text("")
    question.rename(question.with_suffix(".ask"))
    deadline = time.monotonic() + 30
    while not answer.exists():
        if time.monotonic() > deadline:
            raise TimeoutError("the host does not answer: start this by scripts/bench")
        time.sleep(0.005)
    seconds = float(answer.read_text())
    answer.unlink()
    return seconds


class Memory:
    """Bytes in vmalloc areas, and bytes that are free when caches are empty."""

    def __init__(self):
        Path("/proc/sys/vm/drop_caches").write_text("3")
        pages = re.findall(r" pages=(\d+)", Path("/proc/vmallocinfo").read_text())
        self.vmalloc = sum(map(int, pages)) * 4096
        info = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        self.free = int(info["MemFree"].split()[0]) * 1024

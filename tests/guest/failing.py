# SPDX-License-Identifier: GPL-2.0-only
"""Allocations that fail to order: the debug kernel's knobs."""

import ctypes
import os
import pathlib

DEBUGFS = pathlib.Path("/sys/kernel/debug")
KNOBS = [DEBUGFS / "failslab", DEBUGFS / "fail_page_alloc"]
CACHES = pathlib.Path("/sys/kernel/slab")
# of the console: errors and worse
QUIET, LOUD = 4, 7
CONSOLE_LEVEL = 8

_libc = ctypes.CDLL(None, use_errno=True)


def console(level):
    """A failed allocation that is reported with a stack is no news here; kmsg.py knows it from a complaint."""
    _libc.klogctl(CONSOLE_LEVEL, None, level)


def set_up():
    """Every allocation may fail, sleeping ones and single pages too; none is reported by the knobs themselves."""
    for knob in KNOBS:
        (knob / "verbose").write_text("0")
        (knob / "ignore-gfp-wait").write_text("N")
        (knob / "probability").write_text("0")
    (KNOBS[1] / "ignore-gfp-highmem").write_text("N")
    (KNOBS[1] / "min-order").write_text("0")


class Nth:
    """Within this, the n-th allocation of this thread fails; `met` says afterwards whether there was one, and `seen` how
    many there were up to it."""

    def __init__(self, nth):
        self.nth, self.met, self.seen = nth, None, 0
        self.left = bytearray(32)  # touched already: to read it takes no memory
        self.fd = os.open("/proc/thread-self/fail-nth", os.O_RDWR)

    def __enter__(self):
        os.pwrite(self.fd, b"%d" % self.nth, 0)
        return self

    def __exit__(self, *_):
        size = os.preadv(self.fd, [self.left], 0)
        left = int(self.left[:size])
        self.met, self.seen = left == 0, self.nth - left
        os.pwrite(self.fd, b"0", 0)
        os.close(self.fd)


class Workers:
    """Within this, all allocations of the kernel's workers fail, as far as `knobs` go; with `sparing`, slab caches of
    these names are spared. `failed` counts the failures."""

    MANY = 1 << 30

    def __init__(self, knobs=KNOBS, sparing=()):
        self.knobs, self.sparing, self.failed = knobs, sparing, 0

    def _mark(self, value):
        for comm in pathlib.Path("/proc").glob("[0-9]*/comm"):
            try:
                if comm.read_text().startswith(("kworker", "kcopyd", "ksnaphd")):
                    (comm.parent / "make-it-fail").write_text(value)
            except (FileNotFoundError, ProcessLookupError):
                # it ended
                pass

    def __enter__(self):
        if self.sparing:
            assert all((CACHES / name).is_dir() and not (CACHES / name).is_symlink() for name in self.sparing)
            for cache in CACHES.iterdir():
                if cache.is_symlink():
                    continue
                (cache / "failslab").write_text("0" if cache.name in self.sparing else "1")
        (KNOBS[0] / "cache-filter").write_text("Y" if self.sparing else "N")
        for knob in self.knobs:
            (knob / "task-filter").write_text("Y")
            (knob / "times").write_text(str(self.MANY))
            (knob / "probability").write_text("100")
        self._mark("1")
        return self

    def __exit__(self, *_):
        self._mark("0")
        for knob in self.knobs:
            (knob / "probability").write_text("0")
            (knob / "task-filter").write_text("N")
            self.failed += self.MANY - int((knob / "times").read_text())
            (knob / "times").write_text("-1")
        (KNOBS[0] / "cache-filter").write_text("N")

# SPDX-License-Identifier: GPL-2.0-only
"""The n-th read, write, flush or zeroing of the COW device fails, for every n of a scenario, once and from then
on. The origin keeps all its data and can be written; the snapshot is as it was, or Invalid, or was never made; all can
be removed, and is taken up again when the device is well."""

import random

import dm
import module
import pytest
import scenario
from conftest import STORE

CPUS = 1
SIZE = 64 << 10
# none has as many requests
MOST = 400
# so many that met no failure, one after the other, are enough
MISSED = 3

SCENARIOS = {"new": scenario.new_snapshot, "used": scenario.used_snapshot}


class Sweep:
    def __init__(self, disk, device, aio, log):
        self.disk, self.device, self.aio, self.log = disk, device, aio, log
        self.reached = []  # how far each came

    def log_says(self, before):
        """That a header could not be written, in the words of either store."""
        return any(words in line for line in self.log.lines()[before:]
                   for words in ("cannot mark the snapshot invalid", "write header failed"))

    def run(self, steps, kind, nth, times):
        """One scenario; returns whether the failure was met."""
        seed = f"{steps.__name__} {kind} {nth} {times}"
        one = scenario.Scenario(self.disk, self.device, self.aio, random.Random(seed), steps is scenario.used_snapshot)
        last = self.device.counts[kind] + nth
        before = len(self.log.lines())
        self.device.fail(kind, nth, times)
        try:
            try:
                steps(one)
                end = "whole"
            except OSError as e:
                end = f"cut short: {e}"
            met = self.device.counts[kind] >= last
            self.device.mend()
            if one.invalid():
                end = "invalid"
            assert met or end == "whole", f"{end} without a failure"
            one.check_all(lambda: times is None and self.log_says(before))
            one.end()
        except Exception as e:
            raise AssertionError(f"{seed!r}: {e}") from e
        finally:
            self.device.mend()
        assert dm.names() == []
        if STORE == "rust":
            assert module.refcount() == 0
        if met:
            self.reached.append(end)
        return met


@pytest.fixture
def sweep(disk, recorder, writer, log):
    return lambda **options: Sweep(disk(scenario.BLOCKS * scenario.BYTES), recorder(SIZE, **options), writer(8, 512),
                                   log)


@pytest.mark.parametrize("times", [1, None], ids=["once", "from-then-on"])
@pytest.mark.parametrize("kind", ["read", "write", "flush"])
@pytest.mark.parametrize("steps", SCENARIOS)
def test_every_one_fails(sweep, steps, kind, times):
    ours = sweep()
    nth = missed = 0
    # how many requests there are differs: commits wait for each other or not, and a merge has one write alone at the end
    while missed < MISSED:
        nth += 1
        assert nth < MOST
        missed = 0 if ours.run(SCENARIOS[steps], kind, nth, times) else missed + 1
    # a merge has one write, the last, and how many come before it differs from one time to the next
    for last in [*range(max(nth - 2 * MISSED, 1), nth)] * 5:
        if not any(end.startswith("cut short") for end in ours.reached) and kind != "flush":
            ours.run(SCENARIOS[steps], kind, last, times)
    assert nth > MISSED, f"nobody asked for a {kind}"
    if kind in ("write", "flush"):
        assert "invalid" in ours.reached, ours.reached
    assert any(end.startswith("cut short") for end in ours.reached) or kind == "flush", ours.reached
    if STORE == "rust":
        module.unload_patiently()
        module.load()

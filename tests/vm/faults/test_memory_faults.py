# SPDX-License-Identifier: GPL-2.0-only
"""Memory runs out, at the allocations of a table load, a handover and the module's loading in turn, and altogether
while exceptions are committed. Only the debug kernel can do that; its init looks for leaks in the end."""

import random
import subprocess

import cow
import disks
import dm
import failing
import module
import pytest

STORES = ["rust"]
FLAVOURS = ["debug"]
TIMEOUT = 3000

MIB = 1 << 20
CHUNK = 8
BYTES = CHUNK * 512
CHUNKS = 400
# 70 records of the smallest chunks fill three areas, with as few allocations as that takes
SMALL = 1
SMALL_BYTES, RECORDS = SMALL * 512, 70
# no call allocates as often
MOST = 5000
# The store's own allocations are among the first of a table load, and the last; between them kcopyd fills its pools.
FIRST, LAST, STEP = 110, 40, 32

pytestmark = [pytest.mark.rust_only, pytest.mark.usefixtures("expedited")]


@pytest.fixture(autouse=True)
def knobs():
    failing.set_up()
    failing.console(failing.QUIET)
    yield
    failing.console(failing.LOUD)


def until_whole(act):
    """Calls `act` again and again, with its first, second, … allocation failing, a few of those in the middle where
    there are many, until it makes no more; `act` gets a failing.Nth to do what is to fail in, and returns whether that
    succeeded. Returns how often it failed."""
    def call(nth):
        fault = failing.Nth(nth)
        try:
            return act(fault), fault
        except Exception as e:
            raise AssertionError(f"allocation {nth}: {e}") from e

    succeeded, fault = call(MOST)
    assert succeeded and not fault.met, "it failed with all memory there is"
    last = fault.seen - LAST
    failed, nth = 0, 1
    while True:
        succeeded, fault = call(nth)
        failed += not succeeded
        if not fault.met:
            assert succeeded, "it failed with all memory there is"
            return failed
        nth += STEP if FIRST < nth < last - STEP else 1


def attempt(fault, act, *arguments):
    """Whether `act` succeeds with that fault."""
    with fault:
        try:
            act(*arguments)
        except (OSError, MemoryError):
            return False
    return True


def image(pairs):
    made = cow.Image(SMALL, 2 * CHUNKS * SMALL_BYTES)
    made.records(pairs)
    return bytes(made.data)


def records(count, shuffled):
    """With `shuffled`, new chunks come in any order, which takes memory to check."""
    news = cow.Layout(SMALL).data_chunks(count)
    if shuffled:
        random.Random(count).shuffle(news)
    return list(zip(range(count), news))


@pytest.fixture
def small(disk):
    """A COW device and the table of a snapshot, both small."""
    def make(target="snapshot"):
        origin, device = disk(CHUNKS * SMALL_BYTES), disk(2 * CHUNKS * SMALL_BYTES)
        return device, [(0, origin.sectors, target, f"{origin.path} {device.path} P {SMALL}")]
    return make


def empty_device():
    """A mapped device with a table: loading the first of all does more in device-mapper itself, which does not undo all of
    it when memory runs out (a name in sysfs leaks)."""
    return dm.Device("s", [(0, CHUNKS * SMALL_BYTES // 512, "zero", "")])


@pytest.mark.parametrize("before,target", [
    (bytes(1024), "snapshot"), (image([]), "snapshot"), (image(records(RECORDS, False)), "snapshot"),
    (image(records(RECORDS, True)), "snapshot"), (image(records(RECORDS, True)), "snapshot-merge")],
    ids=["new", "empty", "full", "shuffled", "shuffled-merge"])
def test_loading_a_table(small, before, target):
    device, line = small(target)

    def load(fault):
        device.write(0, before)
        loaded = empty_device()
        try:
            succeeded = attempt(fault, loaded.load, line)
            if not succeeded:
                assert device.read(0, 16) in (before[:16], cow.HEADER.pack(cow.MAGIC, 1, 1, SMALL))
                if any(before):
                    assert device.read(0, len(before)) == before, "the COW device was written to"
        finally:
            loaded.remove()
        assert module.refcount() == 0
        return succeeded

    assert until_whole(load) > 20


def test_a_load_that_failed_can_be_tried_again(small):
    """At every seventh allocation, for time's sake."""
    device, line = small()
    device.write(0, image(records(RECORDS, True)))
    loaded = dm.Device("s", line)
    expected = disks.read(loaded.path)
    loaded.remove()
    nth, met = 1, True
    while met:
        fault = failing.Nth(nth)
        loaded = empty_device()
        if not attempt(fault, loaded.load, line):
            loaded.load(line)
        loaded.resume()
        assert disks.first_difference(disks.read(loaded.path), expected) is None
        loaded.remove()
        nth, met = nth + 7, fault.met


@pytest.mark.parametrize("step", ["load", "suspend", "resume"])
def test_handover(snapshot, step):
    """The live snapshot loses nothing, whichever step of the reload fails."""
    one, snap = snapshot(CHUNKS * BYTES, 2 * CHUNKS * BYTES, CHUNK)
    for chunk in range(50):
        disks.write(one.path, chunk * BYTES, b"\x11" * 512)
    now = disks.read(one.path)

    def reload(fault):
        """Each step again without the fault, if it failed with it."""
        whole = True
        for name, act in (("load", lambda: snap.device.load(snap.line())), ("suspend", snap.device.suspend),
                          ("resume", snap.device.resume)):
            if name == step:
                whole = attempt(fault, act)
            if name != step or not whole:
                act()
        assert disks.read(snap.path, 49 * BYTES, 2 * BYTES) == one.content[49 * BYTES:51 * BYTES]
        return whole

    until_whole(reload)
    assert disks.first_difference(disks.read(snap.path), one.content) is None
    assert disks.first_difference(disks.read(one.path), now) is None


def test_removing_a_snapshot(small):
    """That cannot fail for want of memory, or can be done again."""
    device, line = small()
    device.write(0, image(records(RECORDS, True)))

    def remove(fault):
        loaded = dm.Device("s", line)
        if attempt(fault, loaded.remove):
            return True
        loaded.remove()
        return False

    until_whole(remove)


def owner(origin, device):
    """Whose store a new table gets."""
    made = dm.Device("whose", [(0, origin.sectors, "snapshot", f"{origin.path} {device.path} P {CHUNK}")])
    try:
        return "rust" if module.loaded() and module.refcount() == 1 else "c"
    finally:
        made.remove()


@pytest.mark.rust_core
def test_loading_and_unloading_the_targets():
    """All are registered, or none is and the module is gone."""
    module.unload_patiently()
    # makes the copy that is loaded from
    module.load()

    def unload(fault):
        if not module.loaded():
            module.load()
        succeeded = attempt(fault, module.unload)
        assert module.loaded() != succeeded
        return succeeded

    until_whole(unload)

    def load(fault):
        if module.loaded():
            module.unload_patiently()
        succeeded = attempt(fault, module.insert)
        assert module.loaded() == succeeded
        return succeeded

    assert until_whole(load) > 20
    module.full_seconds(0)
    module.copy_ahead(False)


@pytest.mark.c_core
def test_loading_the_module(disk):
    """It takes both names over, or leaves both where they are."""
    origin, device = disk(MIB), disk(2 * MIB)
    module.unload_patiently()
    # makes the copy that is loaded from
    module.load()
    module.unload_patiently()
    assert owner(origin, device) == "c"

    def load(fault):
        succeeded = attempt(fault, module.insert)
        assert module.loaded() == succeeded
        assert owner(origin, device) == ("rust" if succeeded else "c")
        if succeeded:
            module.unload_patiently()
        return succeeded

    failed = until_whole(load)
    assert failed > 20
    module.load()


@pytest.mark.c_core
def test_unloading_the_module(disk):
    origin, device = disk(MIB), disk(2 * MIB)

    def unload(fault):
        if not module.loaded():
            module.load()
        succeeded = attempt(fault, module.unload)
        assert owner(origin, device) == ("c" if succeeded else "rust")
        return succeeded

    until_whole(unload)
    module.use("rust")


# Commits. kcopyd's worker makes them, or the Rust core's own.

# what the C core allocates for each exception as it is recorded; the Rust core has got all before it copies
SPARED = {"c": ["dm_exception"], "rust": []}[module.CORE]


class RamDisk:
    """A disk that needs no memory to be read or written, once it was written."""

    def __init__(self, number, size):
        self.path, self.size, self.sectors = f"/dev/ram{number}", size, size // 512
        self.write(0, bytes(size))

    def write(self, offset, data):
        disks.write(self.path, offset, data)

    def read(self, offset=0, size=None):
        return bytes(disks.read(self.path, offset, size))


@pytest.fixture
def ram():
    subprocess.run(["modprobe", "brd", "rd_nr=2", f"rd_size={8 * 1024}"], check=True)
    yield lambda number: RamDisk(number, 8 * MIB)
    # the store's last reference to a device goes a moment later
    module.unload_patiently("brd")


@pytest.fixture
def quick(ram, origin):
    """A snapshot on such disks, whose list is about to fill an area, in the workers' hands already."""
    one = origin(8 * MIB, target=ram(0))
    snap = one.snapshot(ram(1), CHUNK)
    for chunk in range(120):
        disks.write(one.path, chunk * BYTES, b"\x11" * 512)
    return one, snap


def test_commits_take_no_memory(quick, writer):
    """Every allocation of the workers fails but that of the C core's exception: over borders of areas, one by one and many
    at once, all exceptions are recorded."""
    one, snap = quick
    aio = writer(32, 512)
    with failing.Workers(failing.KNOBS[:1], sparing=SPARED) as workers:
        for chunk in range(120, 600):
            disks.write(one.path, chunk * BYTES, b"\x22" * 512)
        for start in range(600, 1400, 32):
            batch = [(one.path, chunk * BYTES, b"\x33" * 512) for chunk in range(start, start + 32)]
            assert aio.write(batch) == [512] * 32
        aio.release()
    assert workers.failed > 100, "nothing was to fail"
    assert snap.usage()[0] == cow.Layout(CHUNK).usage(1400)[0]
    assert disks.first_difference(disks.read(snap.path), one.content) is None
    one.deactivate()
    assert len(cow.Cow(snap.cow.read()).check()) == 1400


@pytest.mark.c_core
def test_commits_with_no_memory_at_all(quick, log):
    """dm-snapshot cannot keep an exception without memory, and invalidates the snapshot. Ours it is not: the exception's
    record is on disk, and so is the word that the snapshot is lost."""
    one, snap = quick
    with failing.Workers() as workers:
        for chunk in range(120, 130):
            disks.write(one.path, chunk * BYTES, b"\x22" * 512)
        assert snap.status() == "Invalid"
    assert workers.failed > 0
    assert log.matching("Invalidating snapshot: Unable to allocate exception")
    assert not log.matching("Error reading/writing|cannot mark the snapshot invalid")
    disks.write(one.path, 200 * BYTES, b"\x22" * 512)
    now = disks.read(one.path)
    for chunk in (*range(130), 200):
        now[chunk * BYTES:chunk * BYTES + 512] = one.content[chunk * BYTES:chunk * BYTES + 512]
    assert disks.first_difference(now, one.content) is None
    one.deactivate()
    left = cow.Cow(snap.cow.read())
    assert left.valid == 0
    assert [old for old, _ in left.check()][:121] == list(range(121))


@pytest.mark.rust_core
def test_commits_go_on_with_no_memory_at_all(quick, writer):
    """Not even pages: what a copy takes was there before it began, so that no exception is lost, and no snapshot."""
    one, snap = quick
    aio = writer(32, 512)
    with failing.Workers() as workers:
        for chunk in range(120, 130):
            disks.write(one.path, chunk * BYTES, b"\x22" * 512)
        assert aio.write([(one.path, chunk * BYTES, b"\x33" * 512) for chunk in range(130, 162)]) == [512] * 32
        aio.release()
        assert disks.first_difference(disks.read(snap.path), one.content) is None
    assert workers.failed > 0
    assert snap.usage()[0] == cow.Layout(CHUNK).usage(162)[0]
    assert disks.first_difference(disks.read(snap.path), one.content) is None
    one.deactivate()
    assert len(cow.Cow(snap.cow.read()).check()) == 162

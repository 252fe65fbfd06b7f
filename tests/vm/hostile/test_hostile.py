# SPDX-License-Identifier: GPL-2.0-only
"""COW devices that somebody made to do harm, or that are damaged: more than a thousand are activated, read, written to,
merged and removed. See image_runner.py for what must hold of each. The same images at each run: a failure can be
repeated.

test_load.py has what is refused and why; test_tools.py that snap_check says the same of such images.
"""

import errno
import random

import cow
import disks
import dm
import image_runner
import module
import mutants
import pytest

CPUS = 1
STORES = ["rust"]
TIMEOUT = 2400

MIB = 1 << 20
# chunk, chunks of the COW device, records, chunks of the origin, what is on the device besides
SHAPES = {"4K": (8, 320, 270, 300, 0), "512": (1, 320, 70, 300, 0xa5), "128K": (256, 24, 18, 20, 0)}

pytestmark = pytest.mark.rust_only


@pytest.fixture
def runners(origin, disk, log, free_memory):
    """runners(seed, healthy) makes an ImageRunner for such images. None of them may cost memory for good."""
    before = []

    def make(seed, healthy):
        volume = origin(healthy.origin_bytes)
        made = image_runner.ImageRunner(volume, disk(len(healthy.data)), healthy.layout.sectors, log,
                                        random.Random(seed))
        made.endure(healthy.data)
        before.append(free_memory())
        return made

    yield make
    if before:
        assert before[0] - free_memory() < 32 * MIB


def each(count, seed, healthy, act):
    """Calls `act` for images; returns how often it answered what."""
    tally = {}
    rng = random.Random(seed)
    for n in range(count):
        name, image = mutants.mutate(rng, healthy)
        try:
            answer = act(image)
        except Exception as e:
            raise AssertionError(f"image {n} of seed {seed!r}: {name}: {e}") from e
        tally[answer] = tally.get(answer, 0) + 1
    return tally


@pytest.mark.parametrize("shape,part,count", [
    *(("4K", part, 90) for part in range(4)), *(("512", part, 160) for part in range(4)), ("128K", 0, 40)])
def test_images_in_use(runners, shape, part, count):
    seed = f"use {shape} {part}"
    healthy = mutants.Healthy(random.Random(shape), *SHAPES[shape])
    ours = runners(seed, healthy)
    assert ours.endure(healthy.data) == "used"
    tally = each(count, seed, healthy, ours.endure)
    assert tally["refused"] > count // 4 and tally["used"] > count // 6, tally
    # of few images none may be marked invalid
    assert "invalid" in tally or count < 90, tally


@pytest.mark.parametrize("shape,count", [("4K", 50), ("512", 80)])
def test_images_that_are_merged(runners, shape, count):
    seed = f"merge {shape}"
    healthy = mutants.Healthy(random.Random(shape), *SHAPES[shape])
    ours = runners(seed, healthy)
    assert ours.merge(healthy.data) == "merged"
    tally = each(count, seed, healthy, ours.merge)
    assert tally["merged"] > count // 6, tally


@pytest.mark.parametrize("shape,count", [("4K", 30), ("512", 60)])
def test_images_that_change_before_they_are_merged(runners, shape, count):
    """The merge reads records again: what was checked at activation can be something else by then."""
    seed = f"change {shape}"
    healthy = mutants.Healthy(random.Random(shape), *SHAPES[shape])
    ours = runners(seed, healthy)

    def change(image):
        return ours.merge(healthy.data, image.ljust(len(healthy.data), b"\0"))

    tally = each(count, seed, healthy, change)
    assert tally["failed"] > count // 10 and tally["merged"], tally


def test_an_area_is_not_merged(runners):
    """Records that make one long run with an area's own chunk in it, put there after activation."""
    ours = runners("area", mutants.Healthy(random.Random("512"), *SHAPES["512"]))
    made = cow.Image(1, ours.device.size)
    area = made.layout.per_area
    # two full areas: the window in memory is empty, and the first to be read again is what was changed
    news = made.layout.data_chunks(2 * area)
    made.records(enumerate(news))
    good = bytes(made.data)
    made.records([*enumerate(news[:area]), *((old, old + 2) for old in range(area, 2 * area))])
    assert made.layout.is_metadata(area + 2)
    before = bytes(ours.model)
    assert ours.merge(good, made.data) == "failed"
    changed = sum(before[at:at + 512] != ours.model[at:at + 512] for at in range(0, len(before), 512))
    assert changed <= 2, "more than what was written afterwards"


@pytest.mark.parametrize("shape,count", [("4K", 40), ("512", 60)])
def test_images_that_change_while_they_are_used(runners, shape, count):
    """Records are added over an area's border to what became of the device."""
    seed = f"meanwhile {shape}"
    chunk, chunks, _, origin_chunks, fill = SHAPES[shape]
    per_area = cow.Layout(chunk).per_area
    healthy = mutants.Healthy(random.Random(shape), chunk, chunks, per_area - 2, origin_chunks, fill)
    ours = runners(seed, healthy)
    taken = {old for old, _ in cow.Cow(healthy.data).records()}
    fresh = [old for old in range(origin_chunks) if old not in taken]

    def meanwhile(image):
        ours.put(healthy.data)
        snap = ours.activate()
        ours.device.write(0, image.ljust(len(healthy.data), b"\0"))
        for old in fresh[:6]:
            data = ours.rng.randbytes(512)
            at = old * healthy.layout.bytes
            disks.write(ours.volume.path, at, data)
            ours.model[at:at + 512] = data
        snap.handover()
        assert snap.usage()[0] == healthy.layout.usage(per_area + 4)[0]
        disks.read(snap.path)
        ours.drop(snap)
        ours.quiet(0)
        ours.check_origin()

    meanwhile(healthy.data)
    each(count, seed, healthy, meanwhile)


@pytest.mark.parametrize("left", [1, 2, 20, 40, 60])
def test_a_device_that_shrinks_before_it_is_merged(runners, left):
    """What lies beyond the end now is neither read nor written."""
    healthy = mutants.Healthy(random.Random("512"), *SHAPES["512"])
    ours = runners("shrink", healthy)
    ours.put(healthy.data)
    snap = ours.activate()
    ours.volume.drop(snap)
    snap.target = "snapshot-merge"
    ours.volume.device.load(snap.line())
    ours.device.resize(left * healthy.layout.bytes)
    ours.volume.device.suspend()
    ours.volume.device.resume()
    expected, _ = ours.content(healthy.data)
    assert ours.merged(expected, [], changed=True) == "failed"
    ours.volume.snapshots.clear()
    ours.volume.device.reload([(0, ours.volume.disk.sectors, "snapshot-origin", ours.volume.disk.path)])
    ours.quiet(image_runner.LINES)
    ours.write_origin(10)
    ours.check_origin()


def test_a_chunk_of_a_gigabyte(free_memory, disk, devices):
    """The largest chunk there is, on a device that has room for it, takes no more memory than others do."""
    device, origin = disk(3 << 30), disk(MIB)

    def load(chunk):
        """A snapshot with one exception, and the memory it took."""
        device.write(0, cow.HEADER.pack(cow.MAGIC, 1, 1, chunk))
        device.write(chunk * 512, cow.RECORD.pack(0, 2))
        before = free_memory()
        loaded = devices("s", [(0, origin.sectors, "snapshot", f"{origin.path} {device.path} P 8")])
        return loaded, before - free_memory()

    loaded, ordinary = load(8)
    loaded.remove()
    loaded, taken = load(1 << 21)
    # the debug kernel's own memory changes by megabytes meanwhile
    assert taken < ordinary + 64 * MIB
    assert loaded.usage() == (3 << 21, 3 << 21, 2 << 21)
    disks.write(loaded.path, 0, b"\x11" * 512)
    assert disks.read(loaded.path, 0, 512) == b"\x11" * 512


def test_a_list_without_end(disk, free_memory, log):
    """Sixty thousand records up to the end of the device: refused, and all memory is back."""
    layout = cow.Layout(1)
    made = cow.Image(1, 32 * MIB)
    chunks = len(made.data) // layout.bytes
    for record, new in enumerate(chunk for chunk in range(chunks) if not layout.is_metadata(chunk)):
        made.record(record, record % 2048, new)
    origin, device = disk(MIB), disk(len(made.data))
    # the last area's records that have no chunk of their own
    while layout.record_byte(record + 1) < len(made.data):
        record += 1
        made.record(record, 0, 2)
    device.write(0, made.data)
    before = free_memory()
    with pytest.raises(OSError) as refusal:
        dm.Device("s", [(0, origin.sectors, "snapshot", f"{origin.path} {device.path} P 1")])
    assert refusal.value.errno == errno.EUCLEAN
    # there are not as many chunks as records; the Rust core's table sees before that the old ones recur
    old_twice = "old chunk .* is used by two records, with new chunks"
    assert log.matching(old_twice if module.CORE == "rust" else "new chunk 2 is used by an earlier record")
    assert len(log.matching("device-mapper")) <= image_runner.LINES
    assert before - free_memory() < 8 * MIB

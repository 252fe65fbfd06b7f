# SPDX-License-Identifier: GPL-2.0-only
"""The COW device fails, at any place and time: the snapshot becomes Invalid; the origin never loses a byte and stays
writable; everything can be removed and the module unloaded."""

import errno

import cow
import disks
import merge
import module
import pytest

GUEST = "faults"
CHUNK = 8
BYTES = CHUNK * 512
PER_AREA = BYTES // 16
CHUNKS = 640


def region(name):
    """(first sector, sectors) of a part of the COW device."""
    layout = cow.Layout(CHUNK)
    return {
        "all": (0, None),
        "area-0": (layout.area_chunk(0) * CHUNK, CHUNK),
        "area-1": (layout.area_chunk(1) * CHUNK, CHUNK),
        "data": (2 * CHUNK, PER_AREA * CHUNK),
        "all-but-header": (CHUNK, None),
    }[name]


@pytest.fixture
def failing(snapshot, mapped):
    """failing(count): an origin with a snapshot that holds `count` exceptions and whose COW device can fail."""
    def make(count, options="P"):
        device = mapped("cow", 2 * CHUNKS * BYTES)
        volume, snap = snapshot(CHUNKS * BYTES, 0, CHUNK, options, cow=device)
        volume.model = bytearray(volume.content)
        for chunk in range(count):
            put(volume, chunk, 0x11)
        return volume, snap, device
    return make


def put(volume, chunk, value):
    data = bytes([value]) * 512
    disks.write(volume.path, chunk * BYTES, data)
    volume.model[chunk * BYTES:chunk * BYTES + 512] = data


def check_origin(volume):
    assert disks.first_difference(disks.read(volume.path), volume.model) is None


@pytest.mark.parametrize("target", ["error", "flakey"])
@pytest.mark.parametrize("count,where", [
    (0, "all"), (1, "all"), (100, "all"), (PER_AREA - 1, "all"), (PER_AREA, "all"),
    (10, "area-0"), (PER_AREA - 1, "area-1"), (PER_AREA, "area-1"), (PER_AREA + 10, "area-1"),
    (10, "data"), (10, "all-but-header")])
def test_failing_cow_device(failing, writer, count, where, target):
    volume, snap, device = failing(count)
    assert disks.read(snap.path, 0, BYTES) == volume.content[:BYTES]
    first, sectors = region(where)
    device.fail(first, sectors, target)
    # several at once: some of them meet the failure while others are under way
    aio = writer(16, 512)
    batch = [(volume.path, chunk * BYTES, b"\x22" * 512) for chunk in range(count, count + 16)]
    assert aio.write(batch) == [512] * 16, "the origin's writes succeed"
    aio.release()
    for chunk in range(count, count + 16):
        volume.model[chunk * BYTES:chunk * BYTES + 512] = b"\x22" * 512
    assert snap.status() == "Invalid"
    check_origin(volume)
    with pytest.raises(OSError) as refusal:
        disks.read(snap.path, 0, BYTES)
    assert refusal.value.errno == errno.EIO
    for chunk in range(0, CHUNKS, 7):
        put(volume, chunk, 0x33)
    check_origin(volume)
    volume.deactivate()
    device.mend()
    assert volume.disk.read() == volume.model
    # where the header could be written, it says so
    if where != "all":
        volume.activate()
        assert snap.status() == "Invalid"
        assert cow.HEADER.unpack(device.read(0, 16)) == (cow.MAGIC, 0, 1, CHUNK)
        check_origin(volume)
        volume.deactivate()


@pytest.mark.parametrize("options", ["P", "PO"])
def test_failing_write_to_the_snapshot(failing, options):
    volume, snap, device = failing(5, options)
    device.fail()
    with pytest.raises(OSError):
        disks.write(snap.path, 50 * BYTES, b"\x44" * 512)
    with pytest.raises(OSError):
        # a whole chunk is written without a copy
        disks.write(snap.path, 51 * BYTES, b"\x44" * BYTES)
    assert snap.status() == "Invalid"
    check_origin(volume)
    put(volume, 52, 0x55)
    check_origin(volume)


def test_origin_that_cannot_be_read(snapshot, mapped, disk):
    """What cannot be copied cannot be kept: the snapshot is Invalid, on disk too, and the rest of the origin lives."""
    target = mapped("shaky-origin", CHUNKS * BYTES)
    volume, snap = snapshot(CHUNKS * BYTES, 2 * CHUNKS * BYTES, CHUNK, target=target)
    disks.write(volume.path, 3 * BYTES, b"\x11" * 512)
    target.fail(10 * CHUNK, CHUNK)
    with pytest.raises(OSError):
        disks.write(volume.path, 10 * BYTES, b"\x11" * 512)
    assert snap.status() == "Invalid"
    disks.write(volume.path, 20 * BYTES, b"\x11" * 512)
    assert disks.read(volume.path, 20 * BYTES, 512) == b"\x11" * 512
    target.mend()
    assert cow.HEADER.unpack(snap.cow.read(0, 16))[1] == 0
    volume.deactivate()
    cow.Cow(snap.cow.read()).records()


@pytest.mark.parametrize("where", ["header", "area-0"])
def test_load_from_a_device_that_cannot_be_read(failing, where, log):
    volume, snap, device = failing(20)
    volume.deactivate()
    first, sectors = (0, CHUNK) if where == "header" else region(where)
    device.fail(first, sectors)
    with pytest.raises(OSError) as refusal:
        volume.activate()
    assert refusal.value.errno == errno.EIO
    device.mend()
    volume.activate()
    assert disks.read(snap.path) == volume.content


@pytest.mark.parametrize("first,sectors", [(0, CHUNK), (CHUNK, CHUNK)], ids=["header", "area-0"])
def test_new_snapshot_on_a_device_that_cannot_be_written(origin, mapped, first, sectors):
    volume = origin(CHUNKS * BYTES)
    device = mapped("cow", CHUNKS * BYTES)
    device.fail(first, sectors, "flakey")
    with pytest.raises(OSError) as refusal:
        volume.snapshot(device, CHUNK)
    assert refusal.value.errno == errno.EIO


def test_a_failed_merge_can_be_taken_up_again(snapshot, mapped):
    """Nothing is lost when the COW device fails in the middle of a merge and comes back."""
    device = mapped("cow", 2 * CHUNKS * BYTES)
    volume, snap = snapshot(CHUNKS * BYTES, 0, CHUNK, cow=device)
    for chunk in range(0, CHUNKS, 2):
        disks.write(volume.path, chunk * BYTES, b"\x11" * 512)
    volume.drop(snap)
    # the second half of what there is to merge cannot be read
    device.fail(50 * CHUNK, CHUNK)
    volume.merge(snap)
    merge.wait_failed(volume)
    volume.device.remove()
    volume.device = None
    device.mend()
    merge.activate(volume, snap)
    merge.wait_done(volume)
    assert disks.read(volume.path) == volume.content
    volume.snapshots.clear()


def test_after_a_failed_merge_the_snapshot_can_be_used_again(snapshot, mapped):
    """A table of `snapshot` takes it over from the merge, and knows nothing of the failure."""
    device = mapped("cow", 2 * CHUNKS * BYTES)
    volume, snap = snapshot(CHUNKS * BYTES, 0, CHUNK, cow=device)
    for chunk in range(100):
        disks.write(volume.path, chunk * BYTES, b"\x11" * 512)
    volume.drop(snap)
    device.fail(50 * CHUNK, CHUNK)
    volume.merge(snap)
    merge.wait_failed(volume)
    device.mend()
    snap.target = "snapshot"
    volume.device.reload(snap.line())
    # what cannot be read was copied by the 49th exception
    layout = cow.Layout(CHUNK)
    assert layout.usage(49)[0] <= volume.device.usage()[0] <= layout.usage(100)[0]
    assert disks.read(volume.path) == volume.content
    volume.device.remove()
    volume.device = None
    merge.activate(volume, snap)
    merge.wait_done(volume)
    assert disks.read(volume.path) == volume.content
    volume.snapshots.clear()


@pytest.mark.rust_only
def test_module_can_be_unloaded_after_a_failure(failing):
    volume, snap, device = failing(5)
    device.fail()
    put(volume, 100, 0x22)
    assert snap.status() == "Invalid"
    volume.deactivate()
    module.unload_patiently()
    module.load()

# SPDX-License-Identifier: GPL-2.0-only
"""The header of a COW device: written for a new snapshot, obeyed on an old one, refused when it is none."""

import errno

import cow
import disks
import dm
import pytest

GUEST = "loading"
CPUS = 1
MIB = 1 << 20


@pytest.fixture
def load(disk, devices):
    """load(image bytes or Image, chunk) activates a snapshot on a COW device with these bytes."""
    def make(image, chunk=8, options="P", block=512):
        data = image.data if isinstance(image, cow.Image) else image
        origin = disk(MIB, block)
        device = disk(len(data), block)
        device.write(0, data)
        made = devices("s", [(0, origin.sectors, "snapshot", f"{origin.path} {device.path} {options} {chunk}")])
        made.origin, made.cow = origin, device
        return made
    return make


@pytest.mark.parametrize("chunk", [8, 32, 512])
def test_new_snapshot_writes_header_and_empty_area(load, chunk):
    """Nothing of what was on the device before may look like a record."""
    device = load(bytes(16) + b"\xa5" * (MIB - 16), chunk)
    assert device.usage() == (2 * chunk, MIB // 512, 2 * chunk)
    device.remove()
    found = cow.Cow(device.cow.read())
    assert (found.magic, found.valid, found.version, found.sectors) == (cow.MAGIC, 1, 1, chunk)
    assert found.area(0) == bytes(chunk * 512)
    assert found.check() == []


def test_zero_magic_alone_makes_a_new_snapshot(load):
    """What follows a magic of zero means nothing."""
    data = bytearray(b"\xff" * MIB)
    data[:4] = bytes(4)
    device = load(bytes(data), 16)
    device.remove()
    found = cow.Cow(device.cow.read())
    assert (found.valid, found.version, found.sectors) == (1, 1, 16)


def refused(load, data, chunk=8):
    with pytest.raises(OSError) as refusal:
        load(data, chunk)
    return refusal.value.errno


@pytest.mark.parametrize("magic", [1, 0x70416e54, 0x536e4170, 0xffffffff])
def test_wrong_magic_is_refused(load, magic, log):
    image = cow.Image(8, MIB)
    image.header(magic=magic)
    assert refused(load, image) == errno.ENXIO
    assert len(log.matching("device-mapper: persistent snapshot: ")) == 1


@pytest.mark.parametrize("version", [0, 2, 0x01000000, 0xffffffff])
def test_unknown_version_is_refused(load, version, log):
    image = cow.Image(8, MIB)
    image.header(version=version)
    assert refused(load, image) == errno.EINVAL
    said = log.matching("device-mapper: persistent snapshot: ")
    assert len(said) == 1 and "version" in said[0], said


def test_chunk_size_of_the_header_wins_with_a_warning(load, log):
    image = cow.Image(16, MIB)
    image.records([(3, 2)])
    image.chunk(2, b"\x77" * 8192)
    device = load(image, 64)
    assert device.table()[0][3].endswith(" P 16")
    assert device.usage() == (3 * 16, 2048, 2 * 16)
    assert disks.read(device.path, 3 * 8192, 8192) == b"\x77" * 8192
    said = log.matching("device-mapper: persistent snapshot: ")
    assert len(said) == 1 and "16" in said[0] and "64" in said[0] and "overrid" in said[0], said


def test_no_chunk_size_in_the_table_takes_the_headers(load, log):
    device = load(cow.Image(64, MIB), 0)
    assert device.table()[0][3].endswith(" P 64")
    assert not log.matching("device-mapper: persistent snapshot: "), "nothing to warn of"


def test_no_chunk_size_anywhere_takes_the_default(load):
    device = load(bytes(MIB), 0)
    assert device.table()[0][3].endswith(" P 32")
    device.remove()
    assert cow.Cow(device.cow.read()).sectors == 32


def test_default_chunk_size_with_4096_byte_sectors(load):
    assert load(bytes(MIB), 0, block=4096).table()[0][3].endswith(" P 32")


@pytest.mark.parametrize("options", ["P", "PO"])
def test_invalid_flag_makes_the_snapshot_invalid(load, options, log):
    image = cow.Image(8, MIB)
    image.records([(0, 2)])
    image.header(valid=0)
    device = load(image, 8, options)
    assert device.status() == "Invalid"
    with pytest.raises(OSError) as refusal:
        disks.read(device.path, 0, 4096)
    assert refusal.value.errno == errno.EIO
    device.remove()
    assert device.cow.read() == image.data, "an invalid snapshot is not touched"


def test_a_snapshot_that_cannot_be_loaded_is_not_touched(disk):
    image = cow.Image(8, MIB)
    image.header(version=7)
    origin, device = disk(MIB), disk(MIB)
    device.write(0, image.data)
    with pytest.raises(OSError):
        dm.Device("s", [(0, origin.sectors, "snapshot", f"{origin.path} {device.path} P 8")])
    assert device.read() == image.data

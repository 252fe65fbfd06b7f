# SPDX-License-Identifier: GPL-2.0-only
"""A COW device whose metadata is damaged is refused: with one line in the log that names the device, the field, its
value and its place on disk; with nothing left behind; and without touching the device."""

import errno
import os
import re

import cow
import disks
import dm
import module
import pytest

GUEST = "loading"
CPUS = 1
STORES = ["rust"]

MIB = 1 << 20
CHUNK = 8
BYTES = CHUNK * 512
COW_CHUNKS = 600
ORIGIN_CHUNKS = 512
PER_AREA = BYTES // 16

pytestmark = pytest.mark.rust_only


@pytest.fixture
def refused(disk, log):
    """refused(image, error, message): loading these bytes fails with this error, and says this."""
    def check(image, error, message, chunk=CHUNK, block=512, origin_block=512, size=None, origin_bytes=None):
        origin = disk(origin_bytes or ORIGIN_CHUNKS * BYTES, origin_block)
        device = disk(size or len(image), block)
        device.write(0, image[:device.size])
        before = device.read()
        used = module.refcount()
        with pytest.raises(OSError) as refusal:
            dm.Device("s", [(0, origin.sectors, "snapshot", f"{origin.path} {device.path} P {chunk}")])
        assert refusal.value.errno == error, os.strerror(refusal.value.errno)
        said = log.matching("device-mapper: persistent snapshot: ")
        assert len(said) == 1, said
        text = said[0].split("persistent snapshot: ")[1]
        assert message in text, text
        assert re.search(rf"(?<![\d:]){device.number}(?!\d)", text), f"{text}: it does not name {device.number}"
        assert not log.complaints()
        assert dm.names() == []
        assert module.refcount() == used
        assert device.read() == before, "a refused device was written to"
        # and the devices are free again
        for path in (origin.path, device.path):
            os.close(os.open(path, os.O_RDWR | os.O_EXCL))
    return check


def image(pairs=(), chunks=COW_CHUNKS, chunk=CHUNK, **header):
    made = cow.Image(chunk, chunks * chunk * 512)
    made.records(pairs)
    if header:
        made.header(**header)
    return made


def good(count):
    """The records of a healthy snapshot."""
    return list(zip(range(count), cow.Layout(CHUNK).data_chunks(count)))


def place(record):
    area, index = divmod(record, PER_AREA)
    return f"area {area} record {index} (byte {cow.Layout(CHUNK).record_byte(record)})"


def test_the_undamaged_image_loads(disk, devices):
    """Else all of the refusals below might have another reason."""
    origin, device = disk(ORIGIN_CHUNKS * BYTES), disk(COW_CHUNKS * BYTES)
    device.write(0, image(good(300)).data)
    made = devices("s", [(0, origin.sectors, "snapshot", f"{origin.path} {device.path} P 8")])
    assert made.usage() == (303 * CHUNK, COW_CHUNKS * CHUNK, 3 * CHUNK)


@pytest.mark.parametrize("sectors,why", [
    (0, "zero"), (7, "power of two"), (24, "power of two"), (0xffffffff, "power of two"),
    (1 << 22, "largest"), (1 << 31, "largest")])
def test_chunk_size_of_the_header(refused, sectors, why):
    refused(image(chunk_sectors=sectors).data, errno.EINVAL, f"chunk size {sectors} sectors at byte 12")


def test_chunk_size_below_the_cow_devices_block(refused):
    refused(image(chunk=4).data, errno.EINVAL, "chunk size 4 sectors at byte 12", block=4096)


def test_chunk_size_below_the_origins_block(refused):
    refused(image(chunk=4).data, errno.EINVAL, "chunk size 4 sectors at byte 12", origin_block=4096)


@pytest.mark.parametrize("sectors", [1024, 2048, 1 << 21])
def test_chunk_size_too_large_for_the_device(refused, sectors):
    """A header and an area must fit."""
    data = image(chunk_sectors=sectors).data
    refused(data, errno.EINVAL, f"chunk size {sectors} sectors", size=1024 * 512)


def test_table_chunk_size_too_large_for_a_new_device(refused):
    refused(bytes(MIB), errno.EINVAL, "chunk size 2048 sectors", chunk=2048)


def test_magic(refused):
    refused(image(magic=0xdeadbeef).data, errno.ENXIO, "magic 0xdeadbeef at byte 0")


def test_version(refused):
    refused(image(version=3).data, errno.EINVAL, "version 3 at byte 8")


RECORDS = [0, 1, 100, PER_AREA - 1, PER_AREA, PER_AREA + 43]


def with_record(number, old=None, new=None):
    pairs = good(300)
    pairs[number] = (pairs[number][0] if old is None else old, pairs[number][1] if new is None else new)
    return image(pairs).data


@pytest.mark.parametrize("record", RECORDS)
@pytest.mark.parametrize("new", [1, PER_AREA + 2], ids=["area-0", "area-1"])
def test_new_chunk_is_metadata(refused, record, new):
    refused(with_record(record, new=new), errno.EUCLEAN, f"{place(record)}: new chunk {new} is a metadata chunk")


@pytest.mark.parametrize("record", RECORDS)
@pytest.mark.parametrize("new", [COW_CHUNKS, COW_CHUNKS + 3, 1 << 56, (1 << 64) - 1])
def test_new_chunk_beyond_the_device(refused, record, new):
    refused(with_record(record, new=new), errno.EUCLEAN, f"{place(record)}: new chunk {new} lies beyond")


@pytest.mark.parametrize("record,new", [(1, 2), (2, 2), (PER_AREA - 1, 2), (PER_AREA, 257), (299, 2), (299, 299)])
def test_new_chunk_used_twice(refused, record, new):
    refused(with_record(record, new=new), errno.EUCLEAN, f"{place(record)}: new chunk {new} is used")


@pytest.mark.parametrize("record", RECORDS)
@pytest.mark.parametrize("old", [ORIGIN_CHUNKS, 1 << 56, (1 << 64) - 1])
def test_old_chunk_beyond_the_origin(refused, record, old):
    refused(with_record(record, old=old), errno.EUCLEAN, f"{place(record)}: old chunk {old} lies beyond")


def test_the_last_chunks_are_not_beyond(disk, devices):
    """The edges of the two tests above; the origin's last chunk is a part of one."""
    origin, device = disk(ORIGIN_CHUNKS * BYTES + 512), disk(COW_CHUNKS * BYTES + 512)
    device.write(0, image([(ORIGIN_CHUNKS, COW_CHUNKS - 1)]).data)
    made = devices("s", [(0, origin.sectors, "snapshot", f"{origin.path} {device.path} P 8")])
    assert made.usage()[0] == COW_CHUNKS * CHUNK


@pytest.mark.parametrize("chunks", [PER_AREA + 2, PER_AREA + 1])
def test_area_beyond_the_end_of_the_device(refused, chunks):
    """A full area says that the list goes on in the next one."""
    pairs = good(PER_AREA)
    if chunks == PER_AREA + 1:
        # one data chunk less: still a full area, with records out of order before
        pairs = pairs[:-1] + [(PER_AREA - 1, 2)]
        made = image(pairs, chunks=COW_CHUNKS)
        refused(made.data[:chunks * BYTES], errno.EUCLEAN, "")
        return
    refused(image(pairs).data[:chunks * BYTES], errno.EUCLEAN, "area 1 lies beyond")


def test_the_first_fault_is_the_one_that_is_named(refused):
    pairs = good(300)
    pairs[250] = (250, 1)
    pairs[20] = (ORIGIN_CHUNKS + 5, pairs[20][1])
    refused(image(pairs).data, errno.EUCLEAN, f"{place(20)}: old chunk {ORIGIN_CHUNKS + 5}")


def test_random_bytes_never_do_harm(disk, log):
    """Anything may stand in the areas; the load ends, with success or with an error that names what is wrong."""
    origin = disk(ORIGIN_CHUNKS * BYTES)
    device = disk(COW_CHUNKS * BYTES)
    for round_ in range(40):
        data = bytearray(image(good(300)).data)
        area = cow.Layout(CHUNK).area_chunk(round_ % 2) * BYTES
        at = area + int.from_bytes(os.urandom(2), "little") % (BYTES - 64)
        data[at:at + 64] = os.urandom(64)
        device.write(0, data)
        try:
            dm.Device("s", [(0, origin.sectors, "snapshot", f"{origin.path} {device.path} P 8")]).remove()
        except OSError as e:
            assert e.errno == errno.EUCLEAN, e
    assert not log.complaints()
    assert log.matching("persistent snapshot: .*record")


@pytest.mark.parametrize("terabytes", [1, 64])
def test_a_huge_device_that_is_nearly_empty_loads(disk, devices, terabytes):
    """Neither time nor memory may depend on the size of the COW device."""
    origin = disk(ORIGIN_CHUNKS * BYTES)
    device = disk(terabytes << 40)
    made = image(good(300))
    device.write(0, made.data)
    loaded = devices("s", [(0, origin.sectors, "snapshot", f"{origin.path} {device.path} P 8")])
    assert loaded.usage() == (303 * CHUNK, terabytes << 31, 3 * CHUNK)
    disks.write(loaded.path, 400 * BYTES, b"\x11" * BYTES)
    assert loaded.usage()[0] == 304 * CHUNK


def test_a_new_chunk_far_out_on_a_huge_device(disk, devices, free_memory):
    """One record whose new chunk lies terabytes away costs no memory for all the chunks before it."""
    origin = disk(ORIGIN_CHUNKS * BYTES)
    device = disk(16 << 40)
    made = image([(0, (15 << 40) // BYTES), (1, (14 << 40) // BYTES), (2, 2)])
    device.write(0, made.data)
    before = free_memory()
    loaded = devices("s", [(0, origin.sectors, "snapshot", f"{origin.path} {device.path} P 8")])
    assert before - free_memory() < 64 * MIB
    assert disks.read(loaded.path, 0, BYTES) == bytes(BYTES)

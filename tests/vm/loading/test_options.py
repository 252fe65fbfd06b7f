# SPDX-License-Identifier: GPL-2.0-only
"""What a table line may say, what is refused, and what dmsetup shows of it."""

import errno
import subprocess

import disks
import dm
import pytest

GUEST = "loading"
CPUS = 1
MIB = 1 << 20


def dmsetup(*words):
    return subprocess.run(["dmsetup", *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def pair(disk):
    return disk(MIB), disk(MIB)


def table(pair, options, chunk=8):
    origin, cow = pair
    return [(0, origin.sectors, "snapshot", f"{origin.path} {cow.path} {options} {chunk}")]


@pytest.mark.parametrize("options,shown", [("P", "P"), ("PO", "PO"), ("p", "P"), ("po", "PO"), ("Po", "PO")])
def test_accepted_options_are_shown_in_the_table(devices, pair, options, shown):
    device = devices("s", table(pair, options))
    origin, cow = pair
    assert device.table() == [(0, 2048, "snapshot", f"{origin.number} {cow.number} {shown} 8")]
    assert device.status() == "16/2048 16"
    assert dmsetup("table", "s") == f"0 2048 snapshot {origin.number} {cow.number} {shown} 8\n"
    assert dmsetup("status", "s") == "0 2048 snapshot 16/2048 16\n"


@pytest.mark.parametrize("options,named", [
    ("PX", "X"), ("P8", "8"),
    # dm-snapshot's own looks at the first letter only
    pytest.param("POO", "OO", marks=pytest.mark.rust_only),
    pytest.param("POX", "OX", marks=pytest.mark.rust_only),
    pytest.param("Persistent", "ersistent")])
def test_other_options_are_refused_and_named(pair, options, named, log):
    with pytest.raises(OSError) as refusal:
        dm.Device("s", table(pair, options))
    assert refusal.value.errno == errno.EINVAL
    said = log.matching("device-mapper: persistent snapshot: ")
    assert len(said) == 1 and named in said[0].split("persistent snapshot: ")[1], said
    assert pair[1].read() == bytes(MIB), "a refused table changed the COW device"


def test_transient_snapshots_still_work(devices, pair):
    device = devices("s", table(pair, "N"))
    assert device.table()[0][3].endswith(" N 8")
    assert device.status() == "0/2048 0"


@pytest.mark.parametrize("chunk", ["7", "-1", "x", "4294967296"])
def test_bad_chunk_size_in_the_table_is_refused(pair, chunk):
    with pytest.raises(OSError) as refusal:
        dm.Device("s", table(pair, "P", chunk))
    assert refusal.value.errno == errno.EINVAL


def test_features_follow_the_store_in_the_table(devices, pair):
    # dm-snapshot takes the sectors of a chunk for bytes here, and divides by zero if these are less than a sector
    device = devices("s", table(pair, "PO", "512 2 discard_zeroes_cow discard_passdown_origin"))
    assert device.table()[0][3].endswith(" PO 512 2 discard_zeroes_cow discard_passdown_origin")


def test_a_table_that_waits_for_handover_shows_no_chunk_size(devices, pair):
    device = devices("s", table(pair, "PO"))
    device.load(table(pair, "PO"))
    assert device.table(inactive=True)[0][3].endswith(" PO 0")
    device.clear()
    assert device.table()[0][3].endswith(" PO 8")


def test_a_used_snapshot_loads_before_its_origin_has_a_size(devices, pair):
    """LVM loads the tables of a volume from the bottom up and resumes them later: the origin's size is 0 by then."""
    origin, cow = pair
    device = devices("s", table(pair, "P"))
    disks.write(device.path, 5 * 4096, b"\x11" * 512)
    device.remove()
    lower = devices("lower")
    lower.load([(0, origin.sectors, "linear", f"{origin.path} 0")])
    upper = devices("upper")
    upper.load([(0, origin.sectors, "snapshot", f"{lower.path} {cow.path} P 8")])
    lower.resume()
    upper.resume()
    assert upper.usage()[0] == 24
    assert disks.read(upper.path, 5 * 4096, 512) == b"\x11" * 512

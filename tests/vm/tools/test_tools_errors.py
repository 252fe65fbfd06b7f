# SPDX-License-Identifier: GPL-2.0-only
"""A device that cannot be read or written: the tools name it and the place, mark what they began, and lose nothing."""

import re
import subprocess
from pathlib import Path

import cow
import disks
import pytest
from program import PROGRAM

GUEST = "faults"
STORES = ["rust"]
TOOLS = True

CHUNK = 8
BYTES = CHUNK * 512
CHUNKS = 256
BAD = cow.Layout(CHUNK).data_chunks(40)[20] * CHUNK  # sector of an exception's data

pytestmark = pytest.mark.rust_only


def run(*arguments):
    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True)


def refused(path, action, sector, *arguments):
    """The tool gives up because of `path`, and says where: at the bad sector or where its read or write began."""
    done = run(*arguments)
    assert done.returncode == 1, f"{arguments}: {done.returncode} {done.stderr}"
    message = re.fullmatch(rf"snap_{arguments[0]}: {path}: cannot {action} at byte (\d+): Input/output error .*\n",
                           done.stderr)
    assert message, f"{arguments}: {done.stderr}"
    at = int(message[1])
    assert at <= sector * 512 < at + (4 << 20), f"{arguments}: {done.stderr}"
    return done


@pytest.fixture
def kept(snapshot, mapped):
    """A COW device with 40 exceptions and its origin, both behind tables and not in use; what the snapshot reads, and
    what the origin does."""
    target, device = mapped("origin-below", CHUNKS * BYTES), mapped("cow-below", 2 * CHUNKS * BYTES)
    volume, snap = snapshot(CHUNKS * BYTES, 0, CHUNK, cow=device, target=target)
    for chunk in range(40):
        disks.write(volume.path, chunk * BYTES, b"\x77" * BYTES)
    content = bytes(disks.read(snap.path))
    volume.deactivate()
    return target, device, content


@pytest.fixture
def out():
    """A name for what a tool writes; nothing is left of it."""
    path = Path(disks.DIRECTORY, "out")
    yield path
    for name in (path, partial(path)):
        name.unlink(missing_ok=True)


def partial(path):
    return path.with_name(path.name + ".partial")


@pytest.mark.parametrize("sector", [0, CHUNK], ids=["header", "area"])
def test_metadata_that_cannot_be_read(kept, out, sector):
    target, device, _ = kept
    device.fail(sector, CHUNK)
    before = target.read()
    for arguments in (["check", device.path], ["dump", device.path], ["stat", device.path], ["delta", device.path],
                      ["export", "-i", device.path, "--origin", target.path, "-o", out],
                      ["merge", "-i", device.path, "--origin", target.path]):
        refused(device.path, "read", sector, *arguments)
        assert not out.exists()
    assert target.read() == before


def test_repair_keeps_what_can_be_read(kept, out):
    """What cannot be read is not made up, and named."""
    _, device, _ = kept
    device.fail(CHUNK, CHUNK)
    done = run("repair", "-i", device.path, "-o", out)
    assert done.returncode == 0, done.stderr
    assert f"{device.path}: cannot read at byte {BYTES}: Input/output error" in done.stdout
    assert done.stderr == f"0 records kept, {cow.Layout(CHUNK).per_area} dropped\n"
    assert cow.Cow(out.read_bytes()).check() == []
    out.unlink()
    device.fail(0, CHUNK)
    refused(device.path, "read", 0, "repair", "-i", device.path, "-o", out)
    assert not out.exists()


def test_export_of_data_that_cannot_be_read_is_marked_and_goes_on(kept, out):
    target, device, content = kept
    device.fail(BAD, CHUNK)
    refused(device.path, "read", BAD, "export", "-i", device.path, "--origin", target.path, "-o", out)
    assert not out.exists() and partial(out).exists()
    device.mend()
    done = run("export", "-i", device.path, "--origin", target.path, "-o", out)
    assert done.returncode == 0, done.stderr
    assert disks.first_difference(out.read_bytes(), content) is None


@pytest.mark.parametrize("which", ["cow", "origin"])
def test_merge_that_fails_can_be_run_again(kept, which):
    target, device, content = kept
    if which == "cow":
        device.fail(BAD, CHUNK)
        refused(device.path, "read", BAD, "merge", "-i", device.path, "--origin", target.path)
    else:
        target.fail(20 * CHUNK, CHUNK, "flakey")
        refused(target.path, "write", 20 * CHUNK, "merge", "-i", device.path, "--origin", target.path)
    device.mend()
    target.mend()
    done = run("merge", "-i", device.path, "--origin", target.path)
    assert done.returncode == 0, done.stderr
    assert disks.first_difference(target.read(), content) is None


def test_restore_to_a_device_that_cannot_be_written(kept, mapped, out):
    _, device, _ = kept
    out.write_text(run("dump", device.path).stdout)
    blank = mapped("blank", 2 * CHUNKS * BYTES)
    blank.fail(CHUNK, CHUNK, "flakey")
    done = run("restore", "-i", out, "-o", blank.path)
    # the system may have said that a write went well, and say otherwise when it is asked to make it safe
    message = rf"snap_restore: {blank.path}: cannot (write at byte \d+|flush): Input/output error .*\n"
    assert done.returncode == 1 and re.fullmatch(message, done.stderr), f"{done.returncode} {done.stderr}"
    blank.mend()
    checked = run("check", blank.path)
    # a torn restore is no snapshot: nothing, or something that says what is missing
    assert checked.returncode == 1, checked.stdout

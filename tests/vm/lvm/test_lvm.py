# SPDX-License-Identifier: GPL-2.0-only
"""LVM on top: what administrators do with snapshots all works, and LVM understands what the store reports."""

import os
import re
import subprocess
import time

import disks
import merge
import module
import pytest
from conftest import STORE
from program import PROGRAM

TOOLS = True
DISKS = {"one": "96M", "two": "96M"}
MIB = 1 << 20
TARGET = "/tmp/mounted"


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


def lvs(volume, *fields):
    return run("lvs", "--noheadings", "--separator", "|", "-o", ",".join(fields), volume).strip().split("|")


@pytest.fixture
def vg():
    pair = os.environ["DISK_ONE"], os.environ["DISK_TWO"]
    run("vgcreate", "-y", "vg", *pair)
    yield "vg"
    subprocess.run(["umount", "-q", TARGET])
    run("vgchange", "-an", "vg")
    run("vgremove", "-ff", "-y", "vg")
    for path in pair:
        run("wipefs", "-a", "-q", path)


def noise(path, megabytes):
    with open(path, "wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(MIB))
        os.fsync(file.fileno())


def random_volume(name, megabytes):
    """A logical volume with random content; its digest."""
    run("lvcreate", "-y", "-q", "-an", "-Zn", "-L", f"{megabytes}M", "-n", name, "vg")
    run("lvchange", "-ay", f"vg/{name}")
    noise(f"/dev/vg/{name}", megabytes)
    return disks.digest(f"/dev/vg/{name}")


def overwrite(path, megabytes, at=0):
    with open(path, "r+b") as file:
        file.seek(at * MIB)
        for _ in range(megabytes):
            file.write(os.urandom(MIB))
        os.fsync(file.fileno())


def test_snapshot_of_a_mounted_file_system(vg):
    run("lvcreate", "-y", "-q", "-L", "32M", "-n", "data", vg)
    run("mkfs.ext4", "-q", "/dev/vg/data")
    os.makedirs(TARGET, exist_ok=True)
    run("mount", "/dev/vg/data", TARGET)
    for n in range(4):
        noise(f"{TARGET}/file{n}", 2)
    before = {n: disks.digest(f"{TARGET}/file{n}") for n in range(4)}
    run("lvcreate", "-y", "-q", "-s", "-L", "28M", "-n", "snap", "vg/data")
    assert module.serves() == (STORE == "rust"), "the snapshot is the other store's"
    for n in range(4):
        noise(f"{TARGET}/file{n}", 2)
    os.unlink(f"{TARGET}/file0")
    after = {n: disks.digest(f"{TARGET}/file{n}") for n in range(1, 4)}
    run("umount", TARGET)

    attr, origin, percent = lvs("vg/snap", "lv_attr", "origin", "snap_percent")
    assert attr.startswith("swi-a-s") and origin == "data"
    assert 10 < float(percent.replace(",", ".")) < 100
    run("fsck.ext4", "-f", "-n", "/dev/vg/data")
    run("mount", "/dev/vg/snap", TARGET)
    assert {n: disks.digest(f"{TARGET}/file{n}") for n in range(4)} == before
    run("umount", TARGET)
    run("mount", "/dev/vg/data", TARGET)
    assert {n: disks.digest(f"{TARGET}/file{n}") for n in range(1, 4)} == after
    assert not os.path.exists(f"{TARGET}/file0")
    run("umount", TARGET)


def test_dmsetup_shows_what_lvm_made(vg):
    random_volume("data", 8)
    run("lvcreate", "-y", "-q", "-s", "-c", "16k", "-L", "16M", "-n", "snap", "vg/data")
    overwrite("/dev/vg/data", 1)
    table = run("dmsetup", "table", "vg-snap")
    assert re.fullmatch(r"0 16384 snapshot \d+:\d+ \d+:\d+ P 32\n", table), table
    # LVM makes it no larger than all of the origin needs: 8 MiB, the metadata, rounded up to an extent
    status = run("dmsetup", "status", "vg-snap")
    assert status == "0 16384 snapshot 2112/24576 64\n", "64 chunks, the header and an area"


def test_deactivation_and_activation(vg):
    before = random_volume("data", 8)
    run("lvcreate", "-y", "-q", "-s", "-L", "16M", "-n", "snap", "vg/data")
    overwrite("/dev/vg/data", 4)
    after = disks.digest("/dev/vg/data")
    percent = lvs("vg/snap", "snap_percent")
    for _ in range(2):
        run("vgchange", "-an", vg)
        run("vgchange", "-ay", vg)
        assert disks.digest("/dev/vg/snap") == before
        assert disks.digest("/dev/vg/data") == after
        assert lvs("vg/snap", "snap_percent") == percent


def test_overflow_shows_in_lvs_and_leaves_the_origin_alone(vg):
    random_volume("data", 16)
    run("lvcreate", "-y", "-q", "-s", "-L", "4M", "-n", "snap", "vg/data")
    overwrite("/dev/vg/data", 12)
    after = disks.digest("/dev/vg/data")
    attr, percent = lvs("vg/snap", "lv_attr", "snap_percent")
    assert attr.startswith("swi-I-s") and float(percent) == 100
    run("vgchange", "-an", vg)
    run("vgchange", "-ay", vg)
    assert lvs("vg/snap", "lv_attr")[0].startswith("swi-I-s")
    assert disks.digest("/dev/vg/data") == after
    overwrite("/dev/vg/data", 4)
    run("lvremove", "-y", "-q", "vg/snap")
    assert lvs("vg/data", "lv_attr")[0].startswith("-wi-a-")


def test_extending_an_active_snapshot_makes_room(vg):
    before = random_volume("data", 16)
    run("lvcreate", "-y", "-q", "-s", "-L", "4M", "-n", "snap", "vg/data")
    overwrite("/dev/vg/data", 3)
    used = float(lvs("vg/snap", "snap_percent")[0])
    run("lvextend", "-q", "-L", "24M", "vg/snap")
    assert float(lvs("vg/snap", "snap_percent")[0]) < used / 4
    # far more than there was room for before
    overwrite("/dev/vg/data", 13, at=3)
    assert disks.digest("/dev/vg/snap") == before
    run("vgchange", "-an", vg)
    run("vgchange", "-ay", vg)
    assert disks.digest("/dev/vg/snap") == before


def test_merge_brings_the_old_content_back(vg):
    before = random_volume("data", 16)
    run("lvcreate", "-y", "-q", "-s", "-L", "24M", "-n", "snap", "vg/data")
    overwrite("/dev/vg/data", 10, at=2)
    assert disks.digest("/dev/vg/data") != before
    run("lvconvert", "-q", "-y", "--merge", "-i", "1", "vg/snap")
    assert disks.digest("/dev/vg/data") == before
    assert run("lvs", "--noheadings", "-o", "lv_name", vg).split() == ["data"]
    assert lvs("vg/data", "lv_attr")[0].startswith("-wi-a-")
    run("vgchange", "-an", vg)
    run("vgchange", "-ay", vg)
    assert disks.digest("/dev/vg/data") == before


def test_merges_one_after_the_other_while_the_origin_is_written(vg):
    """An origin with three snapshots becomes one of them after the other, and what is written meanwhile stays."""
    random_volume("data", 16)
    contents = []
    for number in range(3):
        contents.append(disks.read("/dev/vg/data"))
        run("lvcreate", "-y", "-q", "-s", "-L", "20M", "-n", f"snap{number}", "vg/data")
        overwrite("/dev/vg/data", 5, at=3 * number)
    if module.CORE == "rust":
        # else it is over before anybody writes
        merge.THROTTLE.write_text("1")
    for number in 1, 2, 0:
        content, written = contents[number], 0
        lvconvert = subprocess.Popen(["lvconvert", "-q", "-y", "--merge", "-i", "1", f"vg/snap{number}"])
        while "snapshot-merge" not in run("dmsetup", "table", "vg-data"):
            assert lvconvert.poll() is None, "it was over before anything was written"
            time.sleep(0.01)
        with open("/dev/vg/data", "r+b", buffering=0) as data:
            while lvconvert.poll() is None:
                at = 4096 * (written * 37 % 4096)
                block = os.urandom(4096)
                data.seek(at)
                data.write(block)
                os.fdatasync(data.fileno())
                content[at:at + 4096] = block
                written += 1
        assert lvconvert.returncode == 0
        assert written > 3
        assert disks.read("/dev/vg/data") == content, f"after merging snapshot {number}, and {written} writes"
    merge.THROTTLE.write_text("100")
    assert run("lvs", "--noheadings", "-o", "lv_name", "vg").split() == ["data"]


def test_merge_waits_for_the_next_activation_of_an_origin_in_use(vg):
    before = random_volume("data", 8)
    run("lvcreate", "-y", "-q", "-s", "-L", "16M", "-n", "snap", "vg/data")
    overwrite("/dev/vg/data", 6)
    with open("/dev/vg/data", "rb"):
        run("lvconvert", "-y", "--merge", "vg/snap")
        assert lvs("vg/data", "lv_attr")[0].startswith("Owi-")
    run("vgchange", "-an", vg)
    run("vgchange", "-ay", "--poll", "n", vg)
    # the origin is the snapshot at once
    assert disks.digest("/dev/vg/data") == before
    run("lvchange", "--poll", "y", "vg/data")
    for _ in range(200):
        if "snap" not in run("lvs", "-a", "--noheadings", "-o", "lv_name", vg):
            break
    assert run("lvs", "-a", "--noheadings", "-o", "lv_name", vg).split() == ["data"]
    assert disks.digest("/dev/vg/data") == before


def test_two_snapshots_of_one_origin(vg):
    first = random_volume("data", 8)
    run("lvcreate", "-y", "-q", "-s", "-c", "4k", "-L", "16M", "-n", "one", "vg/data")
    overwrite("/dev/vg/data", 2)
    second = disks.digest("/dev/vg/data")
    run("lvcreate", "-y", "-q", "-s", "-c", "512k", "-L", "16M", "-n", "two", "vg/data")
    overwrite("/dev/vg/data", 4, at=1)
    assert disks.digest("/dev/vg/one") == first
    assert disks.digest("/dev/vg/two") == second
    run("lvremove", "-y", "-q", "vg/one")
    assert disks.digest("/dev/vg/two") == second


def test_a_cow_device_is_split_off_checked_and_put_back(vg):
    """As tools/README.md has it."""
    random_volume("origin", 8)
    run("lvcreate", "-y", "-q", "-s", "-L", "8M", "-n", "snap", "vg/origin")
    overwrite("/dev/vg/origin", 2)
    expected = disks.digest("/dev/vg/snap")
    run("lvchange", "-an", "vg/origin")
    run("lvconvert", "-y", "--splitsnapshot", "vg/snap")
    run("lvchange", "-ay", "vg/snap", "vg/origin")
    assert "the kernel would load the snapshot" in run(PROGRAM, "check", "--origin", "/dev/vg/origin", "/dev/vg/snap")
    run("lvchange", "-an", "vg/snap", "vg/origin")
    run("lvconvert", "-y", "-s", "-Zn", "vg/origin", "vg/snap")
    run("lvchange", "-ay", "vg/origin")
    assert disks.digest("/dev/vg/snap") == expected


def test_tools_know_volumes_by_name(vg):
    """What a tool takes out of a snapshot it puts back, as it was; of what is active it keeps its hands off."""
    random_volume("origin", 8)
    names = ["one", "two"]
    for name, chunk in zip(names, ("4k", "64k")):
        run("lvcreate", "-y", "-q", "-s", "-c", chunk, "-L", "12M", "-n", name, "vg/origin")
        overwrite("/dev/vg/origin", 2, at=2 * names.index(name))
    expected = {name: disks.digest(f"/dev/vg/{name}") for name in [*names, "origin"]}
    chunks = {name: lvs(f"vg/{name}", "chunk_size") for name in names}

    refused = subprocess.run([PROGRAM, "check", "vg/one"], capture_output=True, text=True)
    assert refused.returncode == 1 and "lvchange -an vg/origin" in refused.stderr, refused
    run("lvchange", "-an", "vg/origin")
    for name in names:
        assert "the kernel would load the snapshot" in run(PROGRAM, "check", f"vg/{name}")
        run(PROGRAM, "export", "-i", f"vg/{name}", "-o", "/tmp/image")
        assert disks.digest("/tmp/image") == expected[name]
        os.unlink("/tmp/image")
    run(PROGRAM, "delta", "--compare", "vg/one", "vg/two")
    # a file is no device of the size: what was taken is put back all the same
    refused = subprocess.run([PROGRAM, "export", "-i", "vg/one", "-o", "/"], capture_output=True, text=True)
    assert refused.returncode == 1 and "directory" in refused.stderr, refused
    assert {lvs(f"vg/{name}", "lv_active", "origin")[1].strip() for name in names} == {"origin"}
    assert {name: lvs(f"vg/{name}", "chunk_size") for name in names} == chunks
    run("lvchange", "-ay", "vg/origin")
    assert {name: disks.digest(f"/dev/vg/{name}") for name in expected} == expected

    run("lvremove", "-y", "-q", "vg/two")
    run("lvchange", "-an", "vg/origin")
    run(PROGRAM, "merge", "-i", "vg/one")
    run("lvchange", "-ay", "vg/origin")
    assert disks.digest("/dev/vg/origin") == disks.digest("/dev/vg/one") == expected["one"]


def send(name, base, *options):
    """Sends a snapshot, or the origin, over a pipe to who has the base, in vg/copy."""
    line = [PROGRAM, "send"]
    if base:
        line += ["--base", f"vg/{base}"]
    if name != "origin":
        line += ["-i", f"vg/{name}"]
    with subprocess.Popen(line, stdout=subprocess.PIPE) as sender:
        receive = [PROGRAM, "receive", "-o", "vg/copy", "--state", "/tmp/copy.state", *options]
        received = subprocess.run(receive, stdin=sender.stdout, capture_output=True, text=True)
        sender.stdout.close()
    return sender.returncode, received


def test_snapshots_are_sent_by_name(vg):
    """A chain of ten, and the origin as it is now, to another volume."""
    random_volume("origin", 8)
    names = [f"snap{n}" for n in range(10)]
    for n, name in enumerate(names):
        run("lvcreate", "-y", "-q", "-s", "-c", ("4k", "64k")[n % 2], "-L", "12M", "-n", name, "vg/origin")
        overwrite("/dev/vg/origin", 1, at=n % 7)
    expected = {name: disks.digest(f"/dev/vg/{name}") for name in [*names, "origin"]}
    run("lvcreate", "-y", "-q", "-Wn", "-L", "8M", "-n", "copy", "vg")
    run("lvchange", "-an", "vg/origin")
    base = None
    for name in [*names, "origin"]:
        code, received = send(name, base, *([] if base else ["--force"]))
        assert (code, received.returncode) == (0, 0), received
        assert disks.digest("/dev/vg/copy") == expected[name]
        base = name
    # it has become another one
    code, received = send("snap2", "snap1")
    assert received.returncode == 1 and "it is not the base" in received.stderr, received
    assert disks.digest("/dev/vg/copy") == expected["origin"]
    run("lvchange", "-ay", "vg/origin")
    assert {name: disks.digest(f"/dev/vg/{name}") for name in expected} == expected

# SPDX-License-Identifier: GPL-2.0-only
"""LVM's own autoextend, by dmeventd, keeps a snapshot whose origin is written as fast as it goes.

RUNS=20 MIB=64 in the environment repeats it, with a snapshot that is as large at first. With `--core c` the same is a
measurement: run it by hand with -s, and it says how many of the snapshots were lost.
"""

import mmap
import os
import subprocess
import time

import disks
import module
import pytest
from conftest import CORE

DISKS = {"one": "512M"}
RUNS = int(os.environ.get("RUNS", "1"))
MIB = int(os.environ.get("MIB", "32"))
SYSTEM = "/tmp/lvm-monitored"
CONF = """
activation {
	monitoring = 1
	snapshot_autoextend_threshold = 70
	snapshot_autoextend_percent = 20
"""


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"LVM_SYSTEM_DIR": SYSTEM})
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


@pytest.fixture
def monitored():
    """A volume group that dmeventd watches."""
    os.makedirs(SYSTEM)
    with open("/etc/lvm/lvm.conf") as conf, open(f"{SYSTEM}/lvm.conf", "w") as ours:
        ours.write(conf.read().replace("monitoring = 0\n", "").replace("activation {\n", CONF.lstrip()))
    daemon = subprocess.Popen(["dmeventd", "-f"], env=os.environ | {"LVM_SYSTEM_DIR": SYSTEM})
    run("vgcreate", "-q", "-y", "vg", os.environ["DISK_ONE"])
    yield "vg"
    run("vgchange", "-q", "-an", "vg")
    run("vgremove", "-q", "-ff", "-y", "vg")
    daemon.terminate()
    daemon.wait(20)


def overwrite(path):
    """All of it, one MiB after the other, as fast as it goes; returns the longest that one took."""
    longest = 0
    fd = os.open(path, os.O_WRONLY | os.O_DIRECT)
    with mmap.mmap(-1, 1 << 20) as buffer:
        buffer[:] = os.urandom(1 << 20)
        for number in range(os.lseek(fd, 0, os.SEEK_END) >> 20):
            began = time.monotonic()
            assert os.pwrite(fd, buffer, number << 20) == 1 << 20
            longest = max(longest, time.monotonic() - began)
    os.close(fd)
    return longest


def test_a_fast_writer_does_not_outrun_autoextend(monitored):
    run("lvcreate", "-q", "-y", "-L", f"{3 * MIB}M", "-n", "data", monitored)
    overwrite("/dev/vg/data")
    module.full_seconds(10)
    lost = 0
    for _ in range(RUNS):
        before = disks.digest("/dev/vg/data")
        run("lvcreate", "-q", "-y", "-s", "-L", f"{MIB}M", "-n", "snap", "vg/data")
        began = time.monotonic()
        longest = overwrite("/dev/vg/data")
        seconds = time.monotonic() - began
        attr, size = run("lvs", "--noheadings", "--units", "m", "-o", "lv_attr,lv_size", "vg/snap").split()
        kept = not attr.startswith("swi-I")
        print(f"{'kept' if kept else 'lost'}: {size}, {seconds:.1f} s, the longest write {longest:.2f} s")
        if kept:
            assert disks.digest("/dev/vg/snap") == before
            assert float(size.rstrip("m").replace(",", ".")) > MIB, "it was not extended"
        lost += not kept
        run("lvremove", "-q", "-y", "vg/snap")
    module.full_seconds(0)
    assert CORE == "c" or not lost

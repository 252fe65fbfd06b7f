# SPDX-License-Identifier: GPL-2.0-only
"""Runs fio and reads its JSON."""

import json
import random
import subprocess
from pathlib import Path

LOG = Path("/tmp/fio.log")
BLOCK = 4096


class Result:
    def __init__(self, job, kind):
        side = job[kind]
        self.iops = side["total_ios"] / (side["runtime"] / 1000) if side["runtime"] else 0.0
        self.count = side["total_ios"]
        self.bytes = side["io_bytes"]
        self.mean_us = side["lat_ns"]["mean"] / 1000
        percentile = side["lat_ns"].get("percentile", {})
        self.p50_us = percentile.get("50.000000", 0) / 1000
        self.p99_us = percentile.get("99.000000", 0) / 1000


def run(path, *options, kind="write"):
    command = ["fio", "--name=bench", f"--filename={path}", "--direct=1", "--ioengine=libaio", "--thread=1",
               "--lat_percentiles=1", "--clat_percentiles=0", "--output-format=json", "--disable_slat=1",
               "--disk_util=0", "--allow_mounted_write=1", *options]
    # a warning may precede the JSON
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    job = json.loads(text[text.index("{"):])["jobs"][0]
    if job["error"]:
        raise RuntimeError(f"fio: error {job['error']}: {' '.join(command)}")
    return Result(job, kind)


def fresh_chunks(path, chunks, chunk_kib, depth, kib=4):
    """Writes `kib` KiB to each of the first `chunks` chunks once, in random order; the same order each time."""
    order = list(range(chunks))
    random.Random(chunks).shuffle(order)
    lines = ["fio version 2 iolog", f"{path} add", f"{path} open"]
    lines += [f"{path} write {n * chunk_kib * 1024} {kib * 1024}" for n in order]
    LOG.write_text("\n".join([*lines, f"{path} close"]) + "\n")
    return run(path, f"--read_iolog={LOG}", "--replay_no_stall=1", f"--iodepth={depth}")


def sequential(path, megabytes, depth):
    return run(path, "--rw=write", "--bs=1M", f"--size={megabytes}M", f"--iodepth={depth}")


def poisson(path, rate, chunk_kib, seconds, megabytes):
    """An open loop: writes come when they come, however long those before take.

    Many slow writers, each a Poisson process, together are one. fio's own way, one job that hands its writes to
    threads, does not always end.
    """
    writers = 100
    return run(path, "--rw=randwrite", f"--bs={BLOCK}", f"--blockalign={chunk_kib}k", "--norandommap=1",
               "--ioengine=psync", f"--numjobs={writers}", "--group_reporting", f"--rate_iops={rate // writers}",
               "--rate_process=poisson", "--time_based", f"--runtime={seconds}", f"--size={megabytes}M")


def steadily(path, rw, kib, megabytes, depth, seconds):
    """Requests of one size to the first part of a device, as fast as they go."""
    kind = "read" if "read" in rw else "write"
    return run(path, f"--rw={rw}", f"--bs={kib}k", f"--size={megabytes}M", f"--iodepth={depth}", "--norandommap=1",
               "--time_based", f"--runtime={int(seconds * 1000)}ms", kind=kind)


def synced(path, megabytes, writes):
    """Writes of 4 KiB to places of a file, with an fsync after every 16th."""
    return run(path, "--rw=randwrite", f"--bs={BLOCK}", f"--size={megabytes}M", f"--io_size={writes * 4}k",
               "--ioengine=psync", "--fsync=16", "--fallocate=none", "--overwrite=1", "--norandommap=1")


def one_by_one(path, kind, kib, count, *options):
    """One request at a time."""
    rw = {"read": "randread", "write": "randwrite"}[kind]
    size = min(256, max(1, kib * 4)) * 1024
    return run(path, f"--rw={rw}", f"--bs={kib}k", f"--size={size}k", f"--io_size={count * kib}k", "--norandommap=1",
               "--iodepth=1", *options, kind=kind)

#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""The benchmark, inside the guest. scripts/bench starts it, and after a run that hung once more, with --first."""

import argparse
import gzip
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "guest"))

import file_systems  # noqa: E402
import module  # noqa: E402 - found in tests/guest
import whole  # noqa: E402
import writes  # noqa: E402
from cases import ALL, cases  # noqa: E402
from machine import Machine  # noqa: E402

OUT = Path("/out")
RESULTS, NOW = OUT / "results.json", OUT / "now.json"
WORKLOADS = {
    "randwrite": writes.randwrite, "seqwrite": writes.seqwrite,
    "snapwrite-whole": writes.snapwrite_whole, "snapwrite": writes.snapwrite,
    "fs-": file_systems.run,
    "poisson": writes.poisson, "multi": writes.multi, "chain": writes.chain,
    "covered": writes.covered, "origin-read": writes.origin_read,
    "activate": whole.activate, "snapread": whole.snapread, "memory": whole.memory,
    "merge-writes": whole.writes_while_merging, "merge": whole.merge,
}
FIELDS = ("iops", "p50_us", "p99_us", "metadata_sectors_per_exception", "flushes_per_exception",
          "cow_writes_per_exception", "cpu_us_per_exception", "cpu_us_per_request", "origin_sectors_read_per_write",
          "requests_per_mib", "seconds")


def one(machine, case, store):
    """The results of one run, as they stand in results.json."""
    # the chain of requests is what the bare device gives
    workload, shown = ("chain", "raw") if store == "chain" else (case.workload, store)
    run = next(run for name, run in WORKLOADS.items() if workload.startswith(name))
    found = run(machine, case, store)
    # one run can be several workloads
    parts = found if all(isinstance(value, dict) for value in found.values()) else {workload: found}
    return [{"store": shown, "workload": name, "chunk_kib": case.chunk_kib, "queue_depth": case.queue_depth,
             "latency_us": case.latency_us, "mbps": case.mbps} | dict.fromkeys(FIELDS) |
            {field: round(value, 6 if field == "seconds" else 3) for field, value in figures.items()}
            for name, figures in parts.items()]


def shown(results):
    """The first figure of each that says most, for the line of progress."""
    figures = []
    for result in results:
        for field, unit in ("iops", "/s"), ("seconds", " s"), ("memory_kib_per_snapshot", " KiB"):
            if result.get(field) is not None:
                figures.append(f"{result[field]:.{0 if result[field] >= 100 else 2}f}{unit}")
                break
    return " and ".join(figures)


def clock_tick():
    """What the kernel was configured with, not what it tells programs."""
    config = Path("/proc/config.gz")
    if config.exists():
        text = gzip.decompress(config.read_bytes()).decode()
    else:
        text = Path(f"/lib/modules/{os.uname().release}/config").read_text()
    return int(re.search(r"^CONFIG_HZ=(\d+)$", text, re.M)[1])


def about():
    """On what this was taken."""
    cpu = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith(("model name", "host"))), "unknown")
    fio = subprocess.run(["fio", "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    return {"kernel": os.uname().release, "hz": clock_tick(), "guest_cpus": os.cpu_count(), "cpu": cpu, "fio": fio,
            "date": time.strftime("%Y-%m-%d")}


def whole_file(path, text):
    """Whoever reads it sees the old text or the new one."""
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").rename(path)


def stacks():
    """Those that this build has."""
    present = [store for store in ALL if store != "targets" or os.path.exists(module.FILES[module.TARGETS])]
    if "targets" not in present:
        print("there is no dm-snapshot.ko in this build: what needs it is not measured", flush=True)
    return present


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--only", default="", help="cases whose line of progress matches this expression")
    parser.add_argument("--first", type=int, default=1, metavar="N", help="go on with the N-th case")
    parser.add_argument("--slowness", type=int, default=1, metavar="N", help="what limits are stretched by")
    options = parser.parse_args()
    subprocess.run(["modprobe", "null_blk", "nr_devices=0"], check=True)
    for name in "dm-thin-pool", "ext4", "xfs":
        subprocess.run(["modprobe", name], check=True)
    wanted = [case for case in cases(options.quick, options.rounds, stacks())
              if re.search(options.only, str(case)) and case.stores]
    whole_file(OUT / "about.json", json.dumps(about(), indent=1))

    results = json.loads(RESULTS.read_text()) if options.first > 1 and RESULTS.exists() else []
    machine, begin, failed = Machine(), time.monotonic(), 0
    for number, case in enumerate(wanted, 1):
        if number < options.first:
            continue
        line = {}
        for turn in range(case.rounds):
            # who goes first changes from round to round
            for store in case.stores if turn % 2 == 0 else reversed(case.stores):
                # scripts/bench ends a guest in which this takes longer than its limit
                whole_file(NOW, json.dumps({"number": number, "of": len(wanted), "case": f"{case}: {store}",
                                            "turn": turn, "limit": case.limit(store) * options.slowness}))
                try:
                    found = one(machine, case, store)
                except (OSError, RuntimeError, ValueError, subprocess.CalledProcessError) as error:
                    failed += 1
                    print(f"FAILED  {case}: {store}: {error!r}", flush=True)
                    machine.close()  # whatever state it is in
                    continue
                results += found
                line.setdefault(store, []).append(shown(found))
                whole_file(RESULTS, "[\n" + ",\n".join(map(json.dumps, results)) + "\n]\n")
        figures = "; ".join(f"{store} {', '.join(values)}" for store, values in line.items())
        print(f"[{time.monotonic() - begin:4.0f} s, {number}/{len(wanted)}] {case}: {figures}", flush=True)
    machine.close()
    return 1 if failed else 0


sys.exit(main())

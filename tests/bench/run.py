#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""The benchmark, inside the guest. scripts/bench starts it."""

import argparse
import faulthandler
import json
import os
import re
import subprocess
import time
from pathlib import Path

import whole
import writes
from cases import cases
from machine import Machine

OUT = Path("/out")
HANGS = 900  # seconds
WORKLOADS = {
    "randwrite": writes.randwrite, "seqwrite": writes.seqwrite, "snapwrite": writes.snapwrite,
    "poisson": writes.poisson, "multi": writes.multi, "chain": writes.chain,
    "activate": whole.activate, "merge": whole.merge, "memory": whole.memory,
}
FIELDS = ("iops", "p50_us", "p99_us", "metadata_sectors_per_exception", "flushes_per_exception",
          "cow_writes_per_exception", "cpu_us_per_exception", "seconds")


def one(machine, case, store):
    """One run, as it stands in results.json."""
    # the chain of requests is what the bare device gives
    workload, shown = ("chain", "raw") if store == "chain" else (case.workload, store)
    figures = WORKLOADS[workload.split("-")[0]](machine, case, store)
    result = {"store": shown, "workload": workload, "chunk_kib": case.chunk_kib, "queue_depth": case.queue_depth,
              "latency_us": case.latency_us, "mbps": case.mbps} | dict.fromkeys(FIELDS)
    for name, value in figures.items():
        result[name] = round(value, 6 if name == "seconds" else 3)
    return result


def shown(result):
    for field, unit in ("iops", "/s"), ("seconds", " s"), ("memory_kib_per_snapshot", " KiB"):
        if result.get(field) is not None:
            return f"{result[field]:.{0 if result[field] >= 100 else 2}f}{unit}"
    return "?"


def about():
    """On what this was taken."""
    cpu = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith(("model name", "host"))), "unknown")
    fio = subprocess.run(["fio", "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    return {"kernel": os.uname().release, "guest_cpus": os.cpu_count(), "cpu": cpu, "fio": fio,
            "date": time.strftime("%Y-%m-%d")}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--only", default="", help="cases whose line of progress matches this expression")
    options = parser.parse_args()
    subprocess.run(["modprobe", "null_blk", "nr_devices=0"], check=True)
    for module in "dm-snapshot", "dm-thin-pool":
        subprocess.run(["modprobe", module], check=True)
    wanted = [case for case in cases(options.quick, options.rounds)
              if re.search(options.only, str(case))]
    (OUT / "about.json").write_text(json.dumps(about(), indent=1))

    results, machine, begin = [], Machine(), time.monotonic()
    for number, case in enumerate(wanted, 1):
        line = {}
        for turn in range(case.rounds):
            # who goes first changes from round to round
            for store in case.stores if turn % 2 == 0 else reversed(case.stores):
                # a run that hangs says where
                faulthandler.dump_traceback_later(HANGS, exit=True)
                result = one(machine, case, store)
                faulthandler.cancel_dump_traceback_later()
                results.append(result)
                line.setdefault(store, []).append(shown(result))
        (OUT / "results.json").write_text("[\n" + ",\n".join(map(json.dumps, results)) + "\n]\n")
        figures = "; ".join(f"{store} {' '.join(values)}" for store, values in line.items())
        print(f"[{time.monotonic() - begin:4.0f} s, {number}/{len(wanted)}] {case}: {figures}", flush=True)
    machine.close()


main()

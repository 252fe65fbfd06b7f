#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Usage: plot.py RESULTS.JSON

Draws a benchmark's medians beside the file, as SVG, with the least and the most of the rounds. Needs matplotlib: on Debian,
apt-get install python3-matplotlib, and run this with /usr/bin/python3.
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as pyplot  # noqa: E402 - after what it draws with was chosen
from matplotlib.ticker import FuncFormatter  # noqa: E402
from results import Results  # noqa: E402

COLOURS = {"c": "#7a8ca5", "rust": "#c4622d", "targets": "#8f2d56", "thin": "#6a9a5b", "raw": "#c9c9c9"}
NAMES = {"c": "C store", "rust": "Rust store", "targets": "Rust targets", "thin": "thin snapshot", "raw": "bare device"}
STORES, EVERYBODY = ("c", "rust", "targets"), ("c", "rust", "targets", "thin")
# the same file each time, and text that can be searched
matplotlib.rcParams.update({"svg.hashsalt": "bench", "svg.fonttype": "none", "font.size": 9, "font.family": "sans-serif",
                            "axes.spines.top": False, "axes.spines.right": False})


def number(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def device(key):
    return f"{key[3] / 1000:g} ms" + (f", {key[4]} MB/s" if key[4] else "")


def save(figure, path):
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    text = path.read_text().replace("<svg ", "<!-- SPDX-License-Identifier: GPL-2.0-only -->\n<svg ", 1)
    path.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n")


class Group:
    """Bars that stand together: of each store, the median and the spread, both multiplied by `scale`."""

    def __init__(self, results, key, field, label, stores, scale=1):
        self.label, self.bars = label, {}
        for store in stores:
            median = results.get(key, store, field)
            if median:
                least, most = results.spread(key, store, field)
                self.bars[store] = (median * scale, least * scale, most * scale)


def bars(title, unit, groups, path):
    """Groups side by side; what was not measured has no bar."""
    stores = [store for store in COLOURS if any(store in group.bars for group in groups)]
    count = sum(len(group.bars) for group in groups)
    figure, axes = pyplot.subplots(figsize=(max(6.0, 0.55 * count), 3.6))
    at, middles = 0.0, []
    for group in groups:
        first = at
        for store in stores:
            if store not in group.bars:
                continue
            median, least, most = group.bars[store]
            axes.bar(at, median, width=0.86, color=COLOURS[store])
            axes.errorbar(at, median, yerr=[[median - least], [most - median]], color="black", linewidth=0.8, capsize=2)
            axes.annotate(number(median), (at, most), xytext=(0, 3), textcoords="offset points", ha="center", fontsize=7)
            at += 1
        middles.append((first + at - 1) / 2)
        at += 0.8
    axes.set_xticks(middles, [group.label for group in groups], fontsize=8)
    axes.set_ylabel(unit)
    axes.set_ylim(bottom=0)
    axes.margins(y=0.12)
    axes.grid(axis="y", color="#e3e3e3")
    axes.set_axisbelow(True)
    axes.set_title(title, loc="left", fontweight="bold")
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=COLOURS[store]) for store in stores]
    axes.legend(handles, [NAMES[store] for store in stores], frameon=False, fontsize=8, ncols=len(stores),
                loc="upper left", bbox_to_anchor=(0, -0.11 - 0.055 * max(group.label.count("\n") for group in groups)))
    save(figure, path)


# for the README: what, which runs, the figure, whether less is better
HEADLINES = [
    ("merge of scattered 4 KiB chunks", "merge-scattered", {"chunk_kib": 4, "latency_us": 1000}, "us_per_exception", True),
    ("activation of 10 million exceptions", "activate-10m", {}, "us_per_exception", True),
    ("1 MiB reads of a snapshot", "snapread-seq", {"latency_us": 100}, "iops", False),
    ("writes beside four snapshots, 100 MB/s", "multi", {"mbps": 100}, "iops", False),
    ("1 MiB writes in sequence", "seqwrite", {"queue_depth": 1, "mbps": 0}, "iops", False),
    ("random writes, 32 at a time", "randwrite", {"chunk_kib": 64, "queue_depth": 32, "latency_us": 1000}, "iops", False),
    ("random writes, one at a time", "randwrite", {"chunk_kib": 64, "queue_depth": 1, "latency_us": 1000}, "iops", False),
    ("writes of whole chunks to a snapshot", "snapwrite-whole", {"queue_depth": 1}, "iops", False),
]


def headline(results, path):
    """One picture: how many times as fast as the kernel's, on one scale for all."""
    rows = []
    for title, workload, wanted, field, less in HEADLINES:
        for key in results.find(workload, **wanted)[:1]:
            c = results.get(key, "c", field)
            found = {store: results.get(key, store, field) for store in ("targets", "thin")}
            rows.append((title, {"c": 1.0} | {store: c / value if less else value / c
                                              for store, value in found.items() if value and c}))
    if not rows:
        return False
    figure, axes = pyplot.subplots(figsize=(7.6, 0.62 * len(rows) + 0.9))
    place, places = 0.0, []
    for title, values in reversed(rows):
        first = place
        for store in ("thin", "c", "targets"):
            if store in values:
                axes.barh(place, values[store], height=0.84, color=COLOURS[store])
                axes.annotate(f"{values[store]:.3g}", (values[store], place), xytext=(3, 0), textcoords="offset points",
                              va="center", fontsize=7)
                place += 1
        places.append((first + place - 1) / 2)
        place += 0.7
    axes.set_xscale("log")
    axes.set_xlim(left=0.5)
    for set_formatter in axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter:
        set_formatter(FuncFormatter(lambda value, _: f"{value:g}" if str(value)[0] in "125" else ""))
    axes.set_yticks(places, [title for title, _ in reversed(rows)])
    axes.set_xlabel("times as fast as the kernel's snapshots (logarithmic)")
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=COLOURS[store]) for store in ("targets", "c", "thin")]
    axes.legend(handles, ["Rust targets", "the kernel's", "thin snapshot"], frameon=False, fontsize=8, loc="lower right")
    save(figure, path)
    return True


def plots(results):
    """File, title, unit and groups of each plot."""
    def groups(keys, field, label, stores=STORES, scale=1):
        found = [Group(results, key, field, label(key), stores, scale) for key in keys]
        return [group for group in found if "c" in group.bars]

    find, chunks = results.find, (4, 64, 256)
    one = [key for chunk in chunks for key in find("randwrite", chunk_kib=chunk, queue_depth=1)]

    def size_and_depth(key):
        return f"{key[1]} KiB\nQD{key[2]}"

    def size_and_device(key):
        return f"{key[1]} KiB\n{device(key)}"

    for name, wanted, what in (("iops-narrow", {"mbps": 100}, "0.1 ms and 100 MB/s"),
                               ("iops-depth", {"latency_us": 1000, "mbps": 0}, "1 ms")):
        yield name, f"Random writes to fresh chunks, {what}", "IOPS", groups(
            [key for chunk in chunks for key in find("randwrite", chunk_kib=chunk, **wanted)], "iops", size_and_depth,
            EVERYBODY)
    yield "metadata", "Metadata written per exception, one write at a time", "sectors", groups(
        one, "metadata_sectors_per_exception", size_and_device)
    yield "cpu", "CPU per exception, one write at a time", "µs", groups(one, "cpu_us_per_exception", size_and_device)
    yield "latency", "Writes that arrive at random: 99th percentile", "ms", groups(
        [key for rate in (400, 1600) for key in find(f"poisson-{rate}")], "p99_us",
        lambda key: f"{key[0].split('-')[1]}/s\n{device(key)}", EVERYBODY, 1e-3)
    yield "activate", "Activation", "seconds", groups(
        [key for size in ("10k", "100k", "1m", "10m") for key in find(f"activate-{size}")], "seconds",
        lambda key: f"{key[0].split('-')[1]}\n{device(key)}")
    yield "merge", "Merge", "µs an exception", groups(
        [key for kind in ("scattered", "sequential") for key in find(f"merge-{kind}")], "us_per_exception",
        lambda key: f"{key[0].split('-')[1]}\n{key[1]} KiB\n{device(key)}")
    streams = [key for name in ("seqwrite", "multi", "snapwrite", "snapwrite-whole") for key in find(name)]
    yield "writes", "Streams, four snapshots, writes to a snapshot", "IOPS", groups(
        streams, "iops", lambda key: f"{key[0]}\nQD{key[2]}\n{device(key)}", EVERYBODY + ("raw",))
    yield "file-systems", "Synced writes (transactions of SQLite) on an origin with a snapshot", "per second", groups(
        [key for kind in ("ext4", "xfs", "sqlite") for key in find(f"fs-{kind}")], "iops",
        lambda key: key[0].removeprefix("fs-"), EVERYBODY + ("raw",))


def main():
    path = Path(sys.argv[1])
    results = Results(json.loads(path.read_text()))
    for name, title, unit, found in plots(results):
        if found:
            file = path.parent / f"{name}.svg"
            bars(title, unit, found, file)
            print(f"plot: {file}")
    file = path.parent / "headline.svg"
    if headline(results, file):
        print(f"plot: {file}")


main()

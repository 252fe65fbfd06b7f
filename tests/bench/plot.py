# SPDX-License-Identifier: GPL-2.0-only
"""Bars, as SVG."""

import math
from xml.sax.saxutils import escape

COLOURS = {"c": "#7a8ca5", "rust": "#c4622d", "targets": "#8f2d56", "thin": "#6a9a5b", "raw": "#c9c9c9"}
NAMES = {"c": "C store", "rust": "Rust store", "targets": "Rust targets", "thin": "thin snapshot", "raw": "bare device"}
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 860, 330, 70, 56, 52


def _nice(top):
    """A round number not below `top`."""
    power = 10 ** math.floor(math.log10(top))
    return next(factor * power for factor in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if factor * power >= top)


def _number(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def bars(title, unit, groups):
    """`groups`: (label, {store: value}); what has no value has no bar."""
    stores = [store for store in COLOURS if any(values.get(store) for _, values in groups)]
    top = _nice(max(value for _, values in groups for value in values.values() if value))
    height = HEIGHT - TOP - BOTTOM
    out = ["<!-- SPDX-License-Identifier: GPL-2.0-only -->",
           f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
           f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
           f'<text x="{LEFT}" y="20" font-size="14" font-weight="bold">{escape(title)}</text>']
    for n, store in enumerate(stores):
        x = LEFT + n * 110
        out += [f'<rect x="{x}" y="30" width="10" height="10" fill="{COLOURS[store]}"/>',
                f'<text x="{x + 15}" y="39">{NAMES[store]}</text>']
    out.append(f'<text x="{WIDTH - 14}" y="39" text-anchor="end">{escape(unit)}</text>')
    for n in range(5):
        value, y = top * n / 4, HEIGHT - BOTTOM - height * n / 4
        out += [f'<line x1="{LEFT}" x2="{WIDTH - 14}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e3e3e3"/>',
                f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_number(value)}</text>']
    step = (WIDTH - LEFT - 14) / len(groups)
    for n, (label, values) in enumerate(groups):
        present = [store for store in stores if values.get(store)]
        width = min(34, step * 0.84 / len(stores))
        left = LEFT + step * n + (step - width * len(present)) / 2
        for m, store in enumerate(present):
            tall = height * values[store] / top
            x, y = left + m * width, HEIGHT - BOTTOM - tall
            out += [f'<rect x="{x:.1f}" y="{y:.1f}" width="{width - 2:.1f}" height="{tall:.1f}" '
                    f'fill="{COLOURS[store]}"/>',
                    f'<text x="{x + width / 2 - 1:.1f}" y="{y - 3:.1f}" text-anchor="middle" font-size="9">'
                    f'{_number(values[store])}</text>']
        for row, line in enumerate(label.split("\n")):
            out.append(f'<text x="{LEFT + step * (n + 0.5):.1f}" y="{HEIGHT - BOTTOM + 16 + 14 * row}" '
                       f'text-anchor="middle">{escape(line)}</text>')
    return "\n".join([*out, "</svg>", ""])


def _device(key):
    return f"{key[3] / 1000:g} ms" + (f", {key[4]} MB/s" if key[4] else "")


def draw(results, directory):
    """Draws what there are figures for; yields the files."""
    def groups(keys, field, label, stores=("c", "rust", "targets")):
        found = [(label(key), {store: results.get(key, store, field) for store in stores}) for key in keys]
        return [group for group in found if all(group[1][store] is not None for store in ("c", "rust"))]

    find, everybody = results.find, ("c", "rust", "targets", "thin")
    chunks = (4, 64, 256)
    depth_one = [key for chunk in chunks for key in find("randwrite", chunk_kib=chunk, queue_depth=1)]
    plots = {
        "iops-narrow": ("Random writes to fresh chunks, 0.1 ms and 100 MB/s", "IOPS", groups(
            [key for chunk in chunks for key in find("randwrite", chunk_kib=chunk, mbps=100)], "iops",
            lambda key: f"{key[1]} KiB\nQD{key[2]}", everybody)),
        "iops-depth": ("Random writes to fresh chunks, 1 ms", "IOPS", groups(
            [key for chunk in chunks for key in find("randwrite", chunk_kib=chunk, latency_us=1000, mbps=0)], "iops",
            lambda key: f"{key[1]} KiB\nQD{key[2]}", everybody)),
        "metadata": ("Metadata written per exception, one write at a time", "sectors", groups(
            depth_one, "metadata_sectors_per_exception", lambda key: f"{key[1]} KiB\n{_device(key)}")),
        "cpu": ("CPU per exception, one write at a time", "µs", groups(
            depth_one, "cpu_us_per_exception", lambda key: f"{key[1]} KiB\n{_device(key)}")),
        "latency": ("Writes that arrive at random: 99th percentile", "ms", [
            (label, {store: value / 1000 for store, value in values.items() if value})
            for label, values in groups([key for rate in (400, 1600) for key in find(f"poisson-{rate}")], "p99_us",
                                        lambda key: f"{key[0].split('-')[1]}/s\n{_device(key)}", everybody)]),
        "activate": ("Activation", "seconds", groups(
            [key for size in ("10k", "100k", "1m", "10m") for key in find(f"activate-{size}")], "seconds",
            lambda key: f"{key[0].split('-')[1]}\n{_device(key)}")),
        "merge": ("Merge", "µs an exception", groups(
            [key for kind in ("scattered", "sequential") for key in find(f"merge-{kind}")], "us_per_exception",
            lambda key: f"{key[0].split('-')[1]}\n{key[1]} KiB, {_device(key)}")),
    }
    for name, (title, unit, found) in plots.items():
        if found:
            file = directory / f"{name}.svg"
            file.write_text(bars(title, unit, found))
            yield file

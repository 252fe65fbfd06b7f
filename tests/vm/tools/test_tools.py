# SPDX-License-Identifier: GPL-2.0-only
"""What the tools say of a COW device, and what they make of one, is what the kernel does with it."""

import errno
import json
import random
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import cow
import disks
import dm
import merge
import module
import mutants
import pytest
from program import run, tool

CPUS = 1
STORES = ["rust"]
TOOLS = True
TIMEOUT = 3000

CORPUS = Path("/project/tests/fuzz/corpus")
SECTOR, PAGE, MIB = 512, 4096, 1 << 20

pytestmark = pytest.mark.rust_only


@pytest.fixture(autouse=True)
def rust_again():
    yield
    module.use("rust")


def stat_by_name(name):
    """snap_stat of an active snapshot. The devicemapper crate refuses to ask for anything where udev has no socket; this
    guest has no udev, and what is asked needs none."""
    socket = Path("/run/udev/control")
    socket.parent.mkdir(exist_ok=True)
    socket.touch()
    try:
        return run("stat", "--json", name)
    finally:
        socket.unlink()


def test_what_is_not_active():
    for name, told in ("nowhere", "there is no such file or active device"), ("x" * 200, "cannot ask device-mapper"):
        refused = stat_by_name(name)
        assert (refused.returncode, refused.stdout) == (1, b"") and told in refused.stderr.decode(), refused
    refused = run("stat", "nowhere")
    assert refused.returncode == 1 and b"udev is not running" in refused.stderr, refused


class Made:
    """An origin and its snapshots after random writes to all of them, still active."""

    def __init__(self, volume, aio, rng):
        self.volume, self.aio, self.rng = volume, aio, rng
        self.expected = []

    def snapshot(self, device, chunk):
        """A new snapshot, of what the origin is now."""
        now = disks.read(self.volume.path)
        self.volume.snapshot(device, chunk)
        self.expected.append(now)

    def write(self, blocks):
        """Random bytes, a sector or a page of each block, to the origin or one of the snapshots."""
        blocks = list(blocks)
        for start in range(0, len(blocks), self.aio.depth):
            batch = []
            for block in blocks[start:start + self.aio.depth]:
                data = self.rng.randbytes(self.rng.choice([SECTOR, PAGE]))
                target = self.rng.randrange(-2, len(self.expected))
                at = block * PAGE
                if target < 0:
                    batch.append((self.volume.path, at, data))
                else:
                    batch.append((self.volume.snapshots[target].path, at, data))
                    self.expected[target][at:at + len(data)] = data
            assert self.aio.write(batch) == [len(data) for _, _, data in batch]
        self.aio.release()

    def write_tail(self, target, content=None):
        """The last sector, which is in a chunk that is not whole."""
        data = self.rng.randbytes(SECTOR)
        disks.write(target.path, self.volume.disk.size - SECTOR, data)
        if content is not None:
            content[-SECTOR:] = data


@pytest.fixture
def made(origin, writer):
    def make(size, seed):
        return Made(origin(size), writer(64, PAGE), random.Random(seed))
    return make


def merge_by_kernel(disk, device, chunk, content):
    """Merges with the store of the moment, as LVM's activation does."""
    merged = dm.Device("merged", [(0, disk.sectors, "snapshot-merge", f"{disk.path} {device.path} P {chunk}")])
    try:
        merge.wait_done(SimpleNamespace(device=merged))
        assert disks.first_difference(disks.read(merged.path), content) is None
    finally:
        merged.remove()


def read_by_kernel(disk, device, chunk):
    """(content, usage) of the snapshot as the store of the moment loads it."""
    loaded = dm.Device("loaded", [(0, disk.sectors, "snapshot", f"{disk.path} {device.path} P {chunk}")])
    try:
        return disks.read(loaded.path), loaded.usage()
    finally:
        loaded.remove()


def differing(a, b, grain):
    """The sectors, as (begin, length), of the stretches of grains in which two contents differ."""
    found = []
    for at in range(0, len(a), grain):
        end = min(at + grain, len(a))
        if a[at:end] != b[at:end]:
            if found and found[-1][1] == at:
                found[-1][1] = end
            else:
                found.append([at, end])
    return [[start // SECTOR, (end - start) // SECTOR] for start, end in found]


def kept(records, size, *chunk_bytes):
    """The same of the chunks that lists of records keep."""
    sectors = set()
    for pairs, chunk in zip(records, chunk_bytes):
        for old, _ in pairs:
            sectors.update(range(old * chunk // SECTOR, min((old + 1) * chunk, size) // SECTOR))
    found = []
    for sector in sorted(sectors):
        if found and sum(found[-1]) == sector:
            found[-1][1] += 1
        else:
            found.append([sector, 1])
    return found


@pytest.mark.parametrize("chunk,size,blocks", [(8, 6 * MIB, 900), (128, 18 * MIB, 260)], ids=["4K", "64K"])
@pytest.mark.parametrize("store", ["c", "rust"])
def test_tools_and_kernel_agree(made, disk, store, chunk, size, blocks):
    module.use(store)
    size += 5 * SECTOR
    chunk_bytes = chunk * SECTOR
    one = made(size, seed=f"{store}{chunk}")
    volume = one.volume
    one.snapshot(disk(size + 40 * chunk_bytes), chunk)
    pages = one.rng.sample(range(size // PAGE), blocks)
    one.write(pages[:blocks // 2])
    # a second one, with other chunks, from the middle on
    other = 136 - chunk
    one.snapshot(disk(size + 40 * other * SECTOR), other)
    one.write(pages[blocks // 3:])
    snap, second = volume.snapshots
    one.write_tail(snap, one.expected[0])
    one.write_tail(volume)

    live = disks.read(snap.path)
    assert disks.first_difference(live, one.expected[0]) is None
    second_live = disks.read(second.path)
    allocated, total, metadata = snap.usage()
    stat = stat_by_name(snap.name)
    assert stat.returncode == 0, stat.stderr
    told = json.loads(stat.stdout)
    # what the target counts is in test_top.py
    assert told.pop("figures", 0) != 0 and told.pop("waits", 0) != 0
    assert told == {"status": "active", "chunk_size": chunk, "total": total, "used": allocated,
                    "free": total - allocated, "metadata": metadata}
    volume.deactivate()

    now = volume.disk.read()
    image = snap.cow.read()
    records = cow.Cow(image).check()
    areas = len(records) // cow.Layout(chunk).per_area + 1
    assert areas > 2 if chunk == 8 else len(records) > 100

    # check
    for arguments in [], ["--origin", volume.disk.path]:
        checked = json.loads(tool("check", "--json", *arguments, snap.cow.path))
        assert (checked["verdict"], checked["records"], checked["fault_count"]) == ("loads", len(records), 0)
        assert checked["warning_count"] == 0, checked["warnings"]
        assert checked["header"]["chunk_size"] == chunk

    # stat, of what is not active
    offline = json.loads(tool("stat", "--json", snap.cow.path))
    assert (offline["used"], offline["metadata"], offline["records"]) == (allocated, metadata, len(records))
    assert offline["total"] == total // chunk * chunk

    # export
    exported, qcow2 = Path(disks.DIRECTORY, "exported"), Path(disks.DIRECTORY, "exported.qcow2")
    try:
        tool("export", "-i", snap.cow.path, "--origin", volume.disk.path, "-o", exported)
        assert disks.first_difference(exported.read_bytes(), live) is None
        tool("export", "--format", "qcow2", "-i", snap.cow.path, "--origin", volume.disk.path, "-o", qcow2)
        for command in ["check", "-f", "qcow2", qcow2], ["compare", "-f", "raw", "-F", "qcow2", exported, qcow2]:
            subprocess.run(["qemu-img", *command], check=True)
    finally:
        exported.unlink(missing_ok=True)
        qcow2.unlink(missing_ok=True)
    target = disk(size)
    tool("export", "--force", "-i", snap.cow.path, "--origin", volume.disk.path, "-o", target.path)
    assert disks.first_difference(target.read(), live) is None

    # dump and restore
    for format_ in "json", "xml", "text":
        fresh = disk(snap.cow.size)
        dump = tool("dump", "-f", format_, snap.cow.path)
        tool("restore", "-i", "-", "-o", fresh.path, "--origin", volume.disk.path, stdin=dump)
        restored = cow.Cow(fresh.read())
        assert restored.chunk(0) == cow.Cow(image).chunk(0), f"the header by way of {format_}"
        for area in range(areas):
            assert restored.area(area) == cow.Cow(image).area(area), f"area {area} by way of {format_}"
    for _, new in records:
        fresh.write(new * chunk_bytes, cow.Cow(image).chunk(new))
    assert tool("dump", fresh.path) == dump
    content, usage = read_by_kernel(volume.disk, fresh, chunk)
    assert disks.first_difference(content, live) is None, "the restored snapshot"
    assert usage == (allocated, total, metadata)

    # delta
    def delta(*arguments):
        return json.loads(tool("delta", "-f", "json", "--origin", volume.disk.path, *arguments))

    assert delta(snap.cow.path) == kept([records], size, chunk_bytes)
    assert delta("--compare", snap.cow.path) == differing(live, now, chunk_bytes)
    lines = tool("delta", "--origin", volume.disk.path, snap.cow.path).decode().splitlines()
    assert [list(map(int, line.split())) for line in lines] == delta(snap.cow.path)
    second_records = cow.Cow(second.cow.read()).check()
    both = [snap.cow.path, second.cow.path]
    assert delta(*both) == kept([records, second_records], size, chunk_bytes, other * SECTOR)
    assert delta("--compare", *both) == differing(live, second_live, min(chunk_bytes, other * SECTOR))

    # merge: the tool on copies, the kernel on the originals
    merged, emptied = disk(size), disk(snap.cow.size)
    merged.write(0, now)
    emptied.write(0, image)
    tool("merge", "-i", emptied.path, "--origin", merged.path)
    merge_by_kernel(volume.disk, snap.cow, chunk, live)
    assert disks.first_difference(merged.read(), live) is None, "the origin after snap_merge"
    assert disks.first_difference(volume.disk.read(), live) is None, "the origin after the kernel's merge"
    for device in emptied, snap.cow:
        assert cow.Cow(device.read()).check() == []
        assert json.loads(tool("check", "--json", device.path))["warning_count"] == 0
    content, usage = read_by_kernel(merged, emptied, chunk)
    assert disks.first_difference(content, live) is None, "the emptied snapshot"
    assert usage == (2 * chunk, total, 2 * chunk)
    volume.snapshots.clear()


def test_a_merge_that_one_begins_the_other_finishes(made, disk):
    """The kernel's merge, removed in the middle; then the tool's."""
    size = 8 * MIB
    one = made(size, seed=5)
    one.snapshot(disk(size + 40 * PAGE), 8)
    one.write(one.rng.sample(range(size // PAGE), 1500))
    (snap,) = one.volume.snapshots
    total = snap.usage()[0]
    one.volume.drop(snap)
    one.volume.merge(snap)
    merge.wait_below(one.volume, total * 3 // 4)
    one.volume.device.remove()
    one.volume.device = None
    assert 0 < len(cow.Cow(snap.cow.read()).check()) < total // 8, "the merge was not in the middle"
    tool("merge", "-i", snap.cow.path, "--origin", one.volume.disk.path)
    assert disks.first_difference(one.volume.disk.read(), one.expected[0]) is None
    assert cow.Cow(snap.cow.read()).check() == []
    one.volume.snapshots.clear()


@pytest.mark.parametrize("store", ["c", "rust"])
def test_an_overflowed_snapshot_is_invalid_to_both(made, disk, store):
    module.use(store)
    one = made(MIB, seed=6)
    one.snapshot(disk(16 * PAGE), 8)
    for block in range(32):
        disks.write(one.volume.path, block * PAGE, bytes(PAGE))
    (snap,) = one.volume.snapshots
    assert snap.status() == "Invalid"
    # the name is known, the status no success
    asked = stat_by_name(snap.name)
    assert (asked.returncode, json.loads(asked.stdout)["status"]) == (1, "Invalid")
    one.volume.deactivate()
    checked = run("check", "--json", "--origin", one.volume.disk.path, snap.cow.path)
    assert (checked.returncode, json.loads(checked.stdout)["verdict"]) == (1, "invalid")
    out = Path(disks.DIRECTORY, "exported")
    refused = run("export", "-i", snap.cow.path, "--origin", one.volume.disk.path, "-o", out)
    assert refused.returncode == 1 and b"invalid" in refused.stderr and not out.exists()


# Hostile images

TABLE_CHUNK = 8
REFUSALS = (errno.EINVAL, errno.ENXIO, errno.EUCLEAN)


class Judges:
    """The tool and the kernel, on the same devices."""

    SAYS = "device-mapper: persistent snapshot: "

    def __init__(self, origin, device, log):
        self.origin, self.device, self.log = origin, device, log
        self.verdicts = []

    def tool(self):
        done = run("check", "--json", "--chunk-size", TABLE_CHUNK, "--origin", self.origin.path, self.device.path)
        assert done.returncode in (0, 1) and done.stdout, f"{done.returncode}: {done.stderr.decode()}"
        checked = json.loads(done.stdout)
        lost = "header-lost" in [warning["kind"] for warning in checked["warnings"]]
        assert (done.returncode == 0) == (checked["verdict"] in ("loads", "new") and not lost)
        return checked

    def kernel(self):
        """(verdict, usage, what it says when it refuses)"""
        before = len(self.log.matching(self.SAYS))
        table = [(0, self.origin.sectors, "snapshot", f"{self.origin.path} {self.device.path} P {TABLE_CHUNK}")]
        try:
            loaded = dm.Device("hostile", table)
        except OSError as e:
            assert e.errno in REFUSALS, e
            said = self.log.matching(self.SAYS)[before:]
            return "refused", None, said[-1] if said else "without a word"
        try:
            status = loaded.status()
            return ("invalid", None, "") if status == "Invalid" else ("loads", loaded.usage(), "")
        finally:
            loaded.remove()

    def agree(self, name, image):
        """Asks both about `image`; the tool first, which changes nothing."""
        self.device.resize(len(image))
        self.device.write(0, image)
        checked = self.tool()
        magic, _, _, _ = cow.HEADER.unpack_from(image)
        verdict, usage, said = self.kernel()
        if verdict == "loads" and magic == 0:
            verdict = "new"
        told = [fault["message"] for fault in checked["faults"]]
        # the kernel names one fault: the first, but of old chunks used twice any
        named = told if checked["faults"] and checked["faults"][0]["kind"] == "old-used-twice" else told[:1]
        disagreement = []
        if checked["verdict"] != verdict:
            disagreement.append(f"{name}: snap_check says {checked['verdict']} {told[:3]}, the kernel {verdict} {said}")
        elif verdict == "refused" and not any(message in said for message in named):
            disagreement.append(f"{name}: snap_check says {told[0]}, the kernel {said}")
        elif verdict == "loads":
            chunk = checked["header"]["chunk_size"]
            areas = checked["records"] // cow.Layout(chunk).per_area + 1
            if usage[2] != (areas + 1) * chunk:
                disagreement.append(f"{name}: {checked['records']} records, but a usage of {usage}")
        self.verdicts.append((verdict, checked["faults"][0]["kind"] if told else None))
        return disagreement


def test_the_fuzzers_corpus(disk, disk_list, log):
    """Each image on a device of its own size."""
    origin = disk(1 << 29)
    disagreements, verdicts = [], set()
    files = sorted(CORPUS.glob("walk/*")) + sorted(CORPUS.glob("header/*"))
    assert len(files) >= 18
    for file in files:
        image = file.read_bytes()
        least = 1 if file.parent.name == "walk" else 256
        image = image.ljust(max(-(-len(image) // SECTOR), least) * SECTOR, b"\0")
        judges = Judges(origin, disk(len(image)), log)
        disagreements += judges.agree(f"{file.parent.name}/{file.name}", image)
        verdicts.update(judges.verdicts)
        disk_list.pop().close()
    assert not disagreements, "\n".join(disagreements)
    assert {"new", "loads", "invalid", "refused"} == {verdict for verdict, _ in verdicts}
    assert len(verdicts) > 8, verdicts


@pytest.mark.parametrize("chunk,chunks,count,fill", [(8, 320, 270, 0), (1, 320, 70, 0xa5)], ids=["4K", "512"])
def test_mutated_images(disk, log, chunk, chunks, count, fill):
    """The same images at each run: a failure can be repeated. test_hostile.py puts many more to use."""
    rng = random.Random(f"mutants {chunk}")
    healthy = mutants.Healthy(rng, chunk, chunks, count, 300, fill)
    judges = Judges(disk(healthy.origin_bytes), disk(len(healthy.data)), log)
    disagreements = judges.agree("undamaged", healthy.data)
    assert not disagreements and judges.verdicts == [("loads", None)], disagreements
    for n in range(100):
        name, image = mutants.mutate(rng, healthy)
        disagreements += judges.agree(f"image {n}: {name}", image)
    assert not disagreements, "\n".join(disagreements)
    tally = {}
    for verdict in judges.verdicts:
        tally[verdict] = tally.get(verdict, 0) + 1
    assert sum(n for (verdict, _), n in tally.items() if verdict == "refused") > 30, tally
    assert sum(n for (verdict, _), n in tally.items() if verdict == "loads") > 10, tally
    assert len(tally) > 7, tally


# Devices in use

def test_devices_in_use_are_refused(made, disk):
    one = made(MIB, seed=8)
    one.snapshot(disk(2 * MIB), 8)
    one.write(range(0, 100, 3))
    (snap,) = one.volume.snapshots
    origin_path, cow_path = one.volume.disk.path, snap.cow.path
    content, usage = disks.read(snap.path), snap.usage()
    free, dump, out = (Path(disks.DIRECTORY, name) for name in ("free", "dump", "out"))
    try:
        # the same bytes, in use by nobody
        free.write_bytes(snap.cow.read())
        dump.write_bytes(tool("dump", free))
        cases = [
            (cow_path, ["check", cow_path]),
            (cow_path, ["check", "--header-only", cow_path]),
            (origin_path, ["check", "--origin", origin_path, free]),
            (cow_path, ["dump", cow_path]),
            (cow_path, ["restore", "--force", "-i", dump, "-o", cow_path]),
            (cow_path, ["repair", "-i", cow_path, "-o", out]),
            (cow_path, ["repair", "--force", "-i", free, "-o", cow_path]),
            (cow_path, ["export", "-i", cow_path, "--cow-only", "-o", out]),
            (origin_path, ["export", "-i", free, "--origin", origin_path, "-o", out]),
            (origin_path, ["export", "--force", "-i", free, "--cow-only", "--origin-size", one.volume.disk.sectors,
                           "-o", origin_path]),
            (origin_path, ["merge", "-i", free, "--origin", origin_path]),
            (cow_path, ["merge", "-i", cow_path, "--origin", out]),
            (cow_path, ["delta", cow_path]),
            (origin_path, ["delta", "--compare", "--origin", origin_path, free]),
            (cow_path, ["stat", cow_path]),
        ]
        for path, arguments in cases:
            if arguments[0] == "merge":
                out.write_bytes(bytes(MIB))
            done = run(*arguments)
            out.unlink(missing_ok=True)
            message = done.stderr.decode()
            assert done.returncode == 1, f"{arguments}: {done.returncode} {message}"
            assert re.fullmatch(rf"snap_{arguments[0]}: {path}: it is in use; .*\n", message), f"{arguments}: {message}"
            assert done.stdout == b"", arguments
    finally:
        for path in free, dump, out:
            path.unlink(missing_ok=True)
    assert list(Path(disks.DIRECTORY).glob("*.partial*")) == []
    assert disks.read(snap.path) == content and snap.usage() == usage
    # and no longer, once they are not
    one.volume.deactivate()
    tool("check", "--origin", origin_path, cow_path)

# SPDX-License-Identifier: GPL-2.0-only
"""snap_send and snap_receive on block devices: what is written meanwhile is not sent, what is refused stays as it is, and
killed wherever it is, snap_receive goes on.

SEED says which kills, POINTS how many of all kinds of devices.
"""

import json
import os
import random
import re
import subprocess
import time
from pathlib import Path

import disks
import dm
import pytest
from program import PROGRAM, run, tool

CPUS = 1
STORES = ["rust"]
TOOLS = True
TIMEOUT = 1800

SECTOR, PAGE, MIB = 512, 4096, 1 << 20
BYTES = 2 * MIB + 3 * SECTOR
MORE = MIB - 3 * SECTOR  # of the copy's device, behind the copy
SEED = int(os.environ.get("SEED", "17"))
DEVICES = ["loop", "4096", "linear"]
KILLS = int(os.environ.get("POINTS", "48")) // len(DEVICES)
SECONDS = 120  # for what takes a moment
MOUNTED = Path("/tmp/mounted")

pytestmark = pytest.mark.rust_only


class Copy:
    """A device larger than what it is a copy of, and the state beside it."""

    def __init__(self, device, below, state):
        self.path, self.below, self.state = device.path, below, state

    def read(self):
        """What it holds as far as it is a copy; what is behind that nobody has written."""
        content = self.below.read()
        behind = content[BYTES:]
        assert behind == b"\xa5" * len(behind), "it was written behind the copy"
        return content[:BYTES]

    def holds(self, content, behind=b"\xa5"):
        self.below.write(0, content + behind * (self.below.size - len(content)))

    def receive(self, stream, *options):
        """Receives a stream to it; returns the exit status and what was said."""
        done = run("receive", "-o", self.path, "--state", self.state, "--batch", "64k", *options, stdin=stream)
        return done.returncode, done.stderr.decode()

    def refuses(self, stream, why, *options):
        before = self.below.read()
        status, said = self.receive(stream, *options)
        assert status == 1 and re.search(why, said), said
        assert self.below.read() == before

    def feed(self, stream, *options):
        return subprocess.Popen([PROGRAM, "receive", "-q", "-o", self.path, "--state", self.state, "--batch", "64k", *options],
                                stdin=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.fixture
def streams(origin, disk):
    """What two snapshots of an origin hold, and the streams of both, of which the second needs the first."""
    rng = random.Random(SEED)
    volume = origin(BYTES)
    contents = []
    for _ in range(2):
        volume.snapshot(disk(2 * BYTES // PAGE * PAGE))
        contents.append(bytes(disks.read(volume.path)))
        for page in rng.sample(range(BYTES // PAGE), 160):
            data = rng.choice([bytes(PAGE), rng.randbytes(SECTOR), rng.randbytes(PAGE)])
            disks.write(volume.path, page * PAGE, data)
        disks.write(volume.path, BYTES - SECTOR, rng.randbytes(SECTOR))
    cows = [snapshot.cow.path for snapshot in volume.snapshots]
    origin_path = volume.disk.path
    volume.deactivate()
    send = ["send", "-q", "--origin", origin_path]
    whole = tool(*send, "-i", cows[0])
    increment = tool(*send, "-i", cows[1], "--base", cows[0])
    back = tool(*send, "-i", cows[0], "--base", cows[1])
    return contents, whole, increment, back


@pytest.fixture(params=DEVICES)
def copy(request, disk, devices, tmp_path):
    """A loop device, with blocks of 512 or 4096 bytes, or one as LVM makes them."""
    below = disk(BYTES + MORE, block=4096 if request.param == "4096" else 512)
    below.write(0, b"\xa5" * below.size)
    device = below
    if request.param == "linear":
        device = devices("copy", [(0, below.sectors, "linear", f"{below.path} 0")])
    return Copy(device, below, tmp_path / "state")


@pytest.fixture
def loop(disk, tmp_path):
    below = disk(BYTES + MORE)
    return Copy(below, below, tmp_path / "state")


def differing(a, b):
    """The pages in which two contents differ, in their first sector."""
    return [at for at in range(0, BYTES, PAGE) if a[at:at + SECTOR] != b[at:at + SECTOR]]


def kill_somewhere(rng, copy, stream, *options):
    """Begins to receive, and kills it somewhere; whether it had ended by then."""
    process = copy.feed(stream, *options)
    part = rng.choice([rng.randrange(len(stream) + 1), len(stream)])
    try:
        process.stdin.write(stream[:part])
        process.stdin.flush()
        if part == len(stream):
            # so that it may come to its end
            process.stdin.close()
    except BrokenPipeError:
        pass
    time.sleep(rng.random() * rng.choice([0, 0.02, 0.2, 2]))
    process.kill()
    said = process.stderr.read().decode()
    process.stdin.close()
    process.stderr.close()
    status = process.wait(SECONDS)
    assert status in (0, -9), said
    return status == 0


def test_killed_anywhere_it_goes_on(streams, copy):
    contents, whole, increment, back = streams
    rng = random.Random(f"{SEED} {copy.path}")
    # a whole snapshot knows no state, and begins anew
    for _ in range(KILLS // 4):
        copy.holds(b"")
        kill_somewhere(rng, copy, whole, "--force")
        assert not copy.state.exists()
    assert copy.receive(whole, "--force")[0] == 0
    assert disks.first_difference(copy.read(), contents[0]) is None

    now, resumed, kills = 0, 0, 0
    ways = [increment, back]
    while kills < KILLS:
        base, snapshot = contents[now], contents[1 - now]
        resumed += copy.state.exists()
        ended = kill_somewhere(rng, copy, ways[now])
        kills += not ended
        content = copy.read()
        if ended:
            assert disks.first_difference(content, snapshot) is None and not copy.state.exists()
        elif not copy.state.exists():
            # nothing was begun, or all is done
            assert content in (base, snapshot), f"kill {kills} left something that no state tells of"
            ended = content == snapshot
        else:
            window = json.loads(copy.state.read_text())["window"]
            start, end = window["start"], window["end"]
            assert content[:start] == snapshot[:start] and content[end:] == base[end:], f"kill {kills}: {window}"
            for at in range(start, min(end, BYTES), SECTOR):
                may_be = base[at:at + SECTOR], snapshot[at:at + SECTOR]
                assert content[at:at + SECTOR] in may_be, f"kill {kills}: sector {at // SECTOR} of {window}"
            if rng.random() < 0.3:
                # nothing else may come between
                copy.refuses(ways[1 - now], "")
                status, said = copy.receive(ways[now])
                assert status == 0 and "gone on with" in said, said
                assert disks.first_difference(copy.read(), snapshot) is None and not copy.state.exists()
                ended = True
        if ended:
            now = 1 - now
    print(f"{kills} kills, {resumed} went on")
    assert resumed
    status, said = copy.receive(ways[now])
    assert status == 0, said
    assert disks.first_difference(copy.read(), contents[1 - now]) is None
    assert not copy.state.exists()


@pytest.mark.parametrize("kind", ["write", "flush"])
def test_a_device_that_fails_is_gone_on_with(streams, recorder, tmp_path, kind):
    contents, whole, increment, back = streams
    disk = recorder(BYTES + MORE)
    copy = Copy(disk, disk, tmp_path / "state")
    copy.holds(contents[0])
    now, resumed = 0, 0
    for count in 1, 2, 3, 5, 9:
        disk.fail(kind, count)
        status, said = copy.receive([increment, back][now])
        disk.mend()
        if status:
            assert re.search(r"/dev/nbd\d+: cannot (write at byte \d+|flush): Input/output error", said), said
            state = copy.state.exists()
            assert state or copy.read() == contents[now]
            status, said = copy.receive([increment, back][now])
            assert status == 0 and ("gone on with" in said) == state, said
            resumed += state
        now = 1 - now
        assert disks.first_difference(copy.read(), contents[now]) is None and not copy.state.exists()
    assert resumed >= 2
    # a whole snapshot fails, and is written once more
    disk.fail(kind, 1)
    assert copy.receive(whole, "--force")[0] == 1
    disk.mend()
    assert copy.receive(whole, "--force")[0] == 0
    assert disks.first_difference(copy.read(), contents[0]) is None


def test_what_cannot_be_read_is_not_written(streams, mapped, tmp_path):
    contents, _, increment, _ = streams
    device = mapped("copy", BYTES + MORE)
    copy = Copy(device, device.disk, tmp_path / "state")
    copy.holds(contents[0])
    device.fail(differing(*contents)[-1] // SECTOR, PAGE // SECTOR)
    copy.refuses(increment, "cannot read at byte")
    assert not copy.state.exists()


def test_what_is_in_use_is_refused(streams, loop, devices):
    contents, whole, increment, _ = streams
    loop.holds(contents[0])
    in_use = rf"^snap_receive: {loop.path}: it is in use; "
    every = [(whole, ["--force"]), (whole, ["--force", "--dry-run"]), (increment, []), (increment, ["--dry-run"]),
             (increment, ["--force"])]
    # held by device-mapper
    held = devices("held", [(0, loop.below.sectors, "linear", f"{loop.path} 0")])
    for stream, options in every:
        loop.refuses(stream, in_use, *options)
    # as an origin is
    held.reload([(0, loop.below.sectors, "snapshot-origin", loop.path)])
    for stream, options in every:
        loop.refuses(stream, in_use, *options)
    held.remove()
    # mounted
    loop.holds(b"")
    subprocess.run(["mkfs.ext4", "-q", loop.path], check=True)
    MOUNTED.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "ro,noload", loop.path, MOUNTED], check=True)
    try:
        for stream, options in every:
            loop.refuses(stream, in_use, *options)
    finally:
        subprocess.run(["umount", MOUNTED], check=True)
    # not in use any more, but it holds something, and not the base
    loop.refuses(whole, "it holds data; give --force")
    loop.refuses(whole, "it holds data; give --force", "--dry-run")
    loop.refuses(increment, "it is not the base", "--force")
    assert not loop.state.exists()


def test_what_is_received_to_is_in_use(streams, loop):
    """As long as it takes: nobody mounts it, nobody maps it, and no other tool gets at it."""
    contents, whole, increment, _ = streams
    loop.holds(contents[0])
    process = loop.feed(increment)
    process.stdin.write(increment[:-40])
    process.stdin.flush()
    deadline = time.monotonic() + SECONDS
    while not loop.state.exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    for stream, options in (whole, ["--force"]), (increment, []):
        status, said = loop.receive(stream, *options)
        assert status == 1 and "it is in use" in said, said
    with pytest.raises(OSError, match="busy"):
        dm.Device("thief", [(0, loop.below.sectors, "linear", f"{loop.path} 0")])
    MOUNTED.mkdir(exist_ok=True)
    mount = subprocess.run(["mount", "-t", "ext4", loop.path, MOUNTED], capture_output=True, text=True)
    assert mount.returncode and re.search("busy|Can't open blockdev", mount.stderr), mount
    said = process.communicate(increment[-40:], SECONDS)[1].decode()
    assert process.returncode == 0, said
    assert loop.below.read(0, BYTES) == contents[1] and not loop.state.exists()


def test_what_cannot_become_the_copy_is_refused(streams, disk, tmp_path):
    contents, whole, increment, _ = streams
    every = [(whole, ["--force"]), (whole, ["--force", "--dry-run"]), (increment, []), (increment, ["--dry-run"])]
    state = tmp_path / "state"
    for size in SECTOR, BYTES // 2 // SECTOR * SECTOR, BYTES - SECTOR:
        small = disk(size)
        small.write(0, contents[0][:size])
        for stream, options in every:
            Copy(small, small, state).refuses(stream, rf"it has {size} bytes, but what is received has {BYTES}", *options)
    # exactly what it needs
    exact = disk(BYTES)
    exact.write(0, contents[0])
    assert Copy(exact, exact, state).receive(increment)[0] == 0
    assert exact.read() == contents[1]
    # read-only
    exact.write(0, contents[0])
    subprocess.run(["blockdev", "--setro", exact.path], check=True)
    for stream, options in (whole, ["--force"]), (increment, []):
        Copy(exact, exact, state).refuses(stream, "it is read-only", *options)
    subprocess.run(["blockdev", "--setrw", exact.path], check=True)
    assert not state.exists()


def test_what_is_not_the_base_is_refused(streams, disk, loop):
    contents, whole, increment, back = streams
    base, snapshot = contents
    differs = differing(base, snapshot)
    same = next(at for at in range(0, BYTES, PAGE) if at not in differs)
    for at, why in (differs[0], "it is not the base"), (differs[-1], "it is not the base"), (same, "not as a whole"):
        other = bytearray(base)
        other[at + SECTOR - 1] ^= 1
        loop.holds(bytes(other))
        for options in [], ["--force"], ["--dry-run"]:
            loop.refuses(increment, why, *options)
    loop.holds(base)
    loop.refuses(back[:-1], "")
    middle = differs[len(differs) // 2]
    loop.holds(snapshot[:middle] + base[middle:])
    loop.refuses(increment, "in part the base and in part the snapshot")
    assert not loop.state.exists()
    # without a state it could not be gone on with
    loop.holds(base)
    done = run("receive", "-o", loop.path, stdin=increment)
    assert done.returncode == 1 and b"give --state FILE" in done.stderr
    assert loop.read() == base
    # one that is about another device, with the same content
    assert loop.receive(increment[:-40])[0] == 1 and loop.state.exists()
    other = disk(BYTES + MORE)
    other = Copy(other, other, loop.state)
    other.holds(base)
    other.refuses(increment, "notes how far another output is replaced")
    noted = loop.state.read_text()
    # nor is it on a device
    states = disk(MIB)
    done = run("receive", "-o", other.path, "--state", states.path, stdin=increment)
    assert done.returncode == 1 and b"a state must be a file" in done.stderr
    # somebody wrote to it meanwhile, where nothing is replaced any more
    content = loop.read()
    window = json.loads(noted)["window"]
    loop.below.write(differs[0], bytes([content[differs[0]] ^ 0x55]))
    assert differs[0] < window["start"]
    loop.refuses(increment, "are not what an earlier receive left there")
    assert loop.state.read_text() == noted
    # it can be given up
    assert loop.receive(whole, "--force")[0] == 0
    assert loop.read() == base and not loop.state.exists()


class Written:
    """Bytes that somebody writes to a device, though it holds them already."""

    def __init__(self, path, at, cached):
        self.path, self.at, self.cached = path, at, cached
        self.bytes = bytes(disks.read(path, at, PAGE))
        self.file = None

    def write(self):
        if not self.cached:
            disks.put(self.path, self.at, self.bytes)
            return
        # it stays in the page cache until somebody reads it past that
        self.file = open(self.path, "r+b", buffering=0)
        self.file.seek(self.at)
        self.file.write(self.bytes)

    def close(self):
        if self.file:
            self.file.close()


@pytest.mark.parametrize("cached", [False, True], ids=["direct", "cached"])
@pytest.mark.parametrize("which", ["origin", "cow", "linear"])
def test_what_is_written_meanwhile_is_not_sent(origin, disk, devices, tmp_path, which, cached):
    volume = origin(BYTES)
    snapshot = volume.snapshot(disk(2 * BYTES // PAGE * PAGE))
    for page in range(0, 400, 3):
        disks.write(volume.path, page * PAGE, b"\x77" * SECTOR)
    content = bytes(disks.read(snapshot.path))
    cow, path = snapshot.cow.path, volume.disk.path
    volume.deactivate()
    if which == "linear":
        path = devices("below", [(0, volume.disk.sectors, "linear", f"{path} 0")]).path
    command = [PROGRAM, "send", "-q", "--origin", path, "-i", cow]
    written = Written(cow if which == "cow" else path, 64 * PAGE, cached)
    # what was written before does not matter, though it be on its way
    written.write()
    before = subprocess.run(command, capture_output=True)
    assert before.returncode == 0, before.stderr
    written.close()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        head = process.stdout.read(PAGE)
        written.write()
        stream = head + process.stdout.read()
        said = process.stderr.read().decode()
        assert process.wait(SECONDS) == 1, said
    written.close()
    assert said == f"snap_send: {written.path}: somebody wrote to it while it was read; the stream is not complete\n"
    copy = disk(BYTES)
    copy = Copy(copy, copy, tmp_path / "state")
    status, said = copy.receive(stream)
    assert status == 1 and "it ends there" in said, said
    assert copy.receive(before.stdout, "--force")[0] == 0
    assert disks.first_difference(copy.below.read(), content) is None

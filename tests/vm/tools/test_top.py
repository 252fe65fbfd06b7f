# SPDX-License-Identifier: GPL-2.0-only
"""snap_top, and snap_stat of what is active: what they show is what the targets say, and the terminal is as before."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import disks
import merge
import module
import pytest
from program import PROGRAM

GUEST = "faults"
STORES = ["rust"]
TOOLS = True

CHUNK = 8
BYTES = CHUNK * 512
COLUMNS, LINES = 80, 24
SECONDS = 60
LONG = "a-name-that-is-much-longer-than-any-column-" + "x" * 70
REFUSAL = "does not support messages"
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]

pytestmark = pytest.mark.rust_only


@pytest.fixture(autouse=True)
def udev(log):
    """The devicemapper crate refuses to ask for anything where udev has no socket; this guest has no udev, and what is
    asked needs none. Who asks the kernel's own targets for what they do not know fills the log."""
    socket = Path("/run/udev/control")
    socket.parent.mkdir(exist_ok=True)
    socket.touch()
    yield
    socket.unlink()
    assert not log.matching(REFUSAL)


# Runs its arguments as a shell with job control does: in a group of their own, in the foreground.
SHELL = """
import os, signal, sys
child = os.fork()
if not child:
    os.setpgid(0, 0)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    os.tcsetpgrp(0, os.getpgrp())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(sys.argv[1], sys.argv[1:])
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def run(*arguments, prefix=(), **options):
    return subprocess.run([*prefix, PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=SECONDS,
                          **options)


def once(*names):
    """What --once --json says, by name."""
    done = run("top", "--once", "--json", *names)
    assert (done.returncode, done.stderr) == (0, ""), done
    return {snapshot["name"]: snapshot for snapshot in json.loads(done.stdout)}


def asked(device):
    """(figures, waits) as the target answers to `dmsetup message`; the kernel's own knows no such message."""
    if module.CORE == "c":
        return None, None
    done = subprocess.run(["dmsetup", "message", device.name, "0", "stats"], capture_output=True, text=True, check=True)
    figures, waits = {}, []
    for line in done.stdout.splitlines():
        name, number = line.split()
        bound = re.fullmatch(r"waits_(?:below_(\d+)_us|longer)", name)
        if bound:
            waits.append({"below_us": int(bound[1]) if bound[1] else None, "count": int(number)})
        else:
            figures[name] = int(number)
    return figures, waits


def test_what_is_shown_is_what_the_targets_say(origin, disk):
    volume = origin(256 * BYTES)
    names = "one", LONG
    snaps = [volume.snapshot(disk(300 * BYTES), CHUNK, name=name) for name in names]
    small = volume.snapshot(disk(16 * BYTES), CHUNK, name="small")
    for chunk in range(50):
        disks.write(volume.path, chunk * BYTES, b"\x11" * 512)
    disks.write(snaps[0].path, 100 * BYTES, b"\x22" * 512)
    assert small.status() == "Invalid"
    found = once()
    assert list(found) == sorted([*names, "small"])
    for snap in snaps:
        used, total, metadata = snap.usage()
        figures, waits = asked(snap.device)
        shown = found[snap.name]
        assert shown["status"] == "active" and shown["origin"] == volume.name and shown["merge"] is None
        assert (shown["used"], shown["total"], shown["metadata"]) == (used, total, metadata)
        assert (shown["chunk_size"], shown["free"]) == (CHUNK, total - used)
        assert (shown["figures"], shown["waits"]) == (figures, waits)
        assert shown["growth"] is shown["full_in"] is shown["commits_per_second"] is None
        stat = json.loads(run("stat", "--json", snap.name).stdout)
        assert (stat["figures"], stat["waits"], stat["used"]) == (figures, waits, used)
        text = run("stat", snap.name).stdout
        if figures:
            assert figures["exceptions"] == 50 + (snap is snaps[0])
            assert shown["exceptions_per_commit"] == figures["committed"] / figures["commits"]
            assert all(re.search(rf"^  {name} +{number}$", text, re.M) for name, number in figures.items()), text
        else:
            assert shown["wait_p50"] is shown["exceptions_per_commit"] is None and "counted" not in text
    shown = found["small"]
    assert (shown["status"], shown["used"]) == ("Invalid", None)

    table = run("top", "--once").stdout.splitlines()
    assert len(table) == 4 and table[0].split()[:3] == ["NAME", "ORIGIN", "FILL"]
    assert re.match(rf"one +{volume.name} ", table[2]) and re.match(r"small .* Invalid ", table[3])
    assert table[1].startswith(f"{LONG} "), "cut, though nothing asks for it"

    # by name
    assert list(once("one")) == ["one"]
    done = run("top", "--once", "one", "nowhere")
    assert (done.returncode, done.stderr) == (1, "warning: nowhere: no such snapshot is active\n")
    assert len(done.stdout.splitlines()) == 2


def test_none_is_active(devices, disk):
    device = disk(BYTES)
    devices("other", [(0, CHUNK, "linear", f"{device.path} 0")])
    done = run("top", "--once")
    assert (done.returncode, done.stdout) == (0, "no snapshot is active\n")
    assert once() == {}
    assert run("top", "--once", "other").returncode == 1


def test_a_merge_is_shown(snapshot):
    volume, snap = snapshot(256 * BYTES, 300 * BYTES, CHUNK)
    for chunk in range(0, 200, 2):
        disks.write(volume.path, chunk * BYTES, b"\x11" * 512)
    volume.drop(snap)
    volume.merge(snap)
    merge.wait_done(volume)
    shown = once()[volume.name]
    assert (shown["origin"], shown["merge"]) == (volume.name, {"left": 0, "share": 1, "done_in": None})
    table = run("top", "--once").stdout.splitlines()
    assert table[2] == "  merging: 100% done, 0 chunks left"
    volume.snapshots.clear()


def test_an_ordinary_user_is_told_nothing(snapshot):
    volume, snap = snapshot(64 * BYTES, 64 * BYTES, CHUNK)
    for arguments in [], ["--json"], ["--prometheus", "/tmp/of-nobody.prom"], [snap.name]:
        done = run("top", "--once", *arguments, prefix=NOBODY)
        assert (done.returncode, done.stdout) == (1, ""), done
        assert done.stderr == "snap_top: /dev/mapper/control: cannot open: Permission denied (os error 13)\n"
    assert not Path("/tmp/of-nobody.prom").exists()


def test_prometheus_reads_it(origin, disk, tmp_path):
    volume = origin(256 * BYTES)
    snaps = [volume.snapshot(disk(300 * BYTES), CHUNK) for _ in range(2)]
    for chunk in range(50):
        disks.write(volume.path, chunk * BYTES, b"\x11" * 512)
    path = tmp_path / "snapshots.prom"
    done = run("top", "--once", "--quiet", "--prometheus", path, umask=0o077)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert os.listdir(tmp_path) == [path.name] and path.stat().st_mode & 0o777 == 0o644
    text = path.read_text()
    values, kinds = {}, {}
    for line in text.splitlines():
        kind = re.fullmatch(r"# TYPE (\w+) (counter|gauge)", line)
        if kind:
            kinds[kind[1]] = kind[2]
        elif not re.fullmatch(r"# HELP \w+ \S.*", line):
            series, value = line.rsplit(" ", 1)
            assert series.split("{")[0] in kinds and series not in values, line
            values[series] = int(value)
    assert values["dm_snapshots"] == 2
    for snap in snaps:
        labels = f'name="{snap.name}",origin="{volume.name}"'
        used, total, metadata = snap.usage()
        assert values[f"dm_snapshot_cow_used_bytes{{{labels}}}"] == used * 512
        assert values[f"dm_snapshot_cow_bytes{{{labels}}}"] == total * 512
        figures, waits = asked(snap.device)
        if figures is None:
            assert not any("_total" in series for series in values)
            continue
        for name in "copies", "commits", "committed", "copied_chunks":
            assert values[f"dm_snapshot_{name}_total{{{labels}}}"] == figures[name]
        assert values[f'dm_snapshot_waits_total{{{labels},le="+Inf"}}'] == sum(wait["count"] for wait in waits) == 50
        of_origin = f'dm_snapshot_origin_writes_passed_total{{origin="{volume.name}"}}'
        assert values[of_origin] == figures["origin_writes_passed"] == 50

    # each interval a new one, until it is told to end
    command = [PROGRAM, "top", "--quiet", "--interval", "0.2", "--prometheus", str(path)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        deadline = time.monotonic() + SECONDS
        seen = set()
        while len(seen) < 3:
            assert time.monotonic() < deadline
            # never a part of one
            assert path.read_text().count("\n") == text.count("\n")
            seen.add(path.stat().st_mtime_ns)
        process.terminate()
        assert (process.wait(SECONDS), process.stdout.read()) == (0, b"")
    assert os.listdir(tmp_path) == [path.name]


def test_an_array_each_interval(snapshot):
    volume, snap = snapshot(256 * BYTES, 300 * BYTES, CHUNK)
    command = [PROGRAM, "top", "--json", "--interval", "0.5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        (first,) = json.loads(process.stdout.readline())
        assert first["growth"] is None
        for chunk in range(20):
            disks.write(volume.path, chunk * BYTES, b"\x11" * 512)
        last = first
        while last["used"] < first["used"] + 20 * CHUNK:
            before = last
            (last,) = json.loads(process.stdout.readline())
            grown = (last["used"] - before["used"]) * 512
            assert 0 <= last["growth"] <= grown / 0.4 and (last["growth"] > 0) == (grown > 0)
        assert last["full_in"] == pytest.approx(last["free"] * 512 / last["growth"])
        if module.CORE == "rust":
            assert last["commits_per_second"] > 0 and last["wait_p50"]["below_us"] > 0
        # a device that goes away ends nothing
        volume.deactivate()
        volume.snapshots.clear()
        while json.loads(process.stdout.readline()):
            pass
        # nor does it matter to anybody that the reader does
        process.stdout.close()
        assert process.wait(SECONDS) == 1 and process.stderr.read() == ""


class Terminal:
    """A terminal of 80 columns on which a program runs."""

    def __init__(self, *arguments, prefix=()):
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("4H", LINES, COLUMNS, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        self.output = b""
        self.process = subprocess.Popen(
            [*prefix, PROGRAM, *arguments], stdin=self.slave, stdout=self.slave, stderr=subprocess.PIPE, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()
        os.close(self.master)
        os.close(self.slave)

    def read(self, seconds):
        if select.select([self.master], [], [], seconds)[0]:
            self.output += os.read(self.master, 65536)

    def frames(self):
        """What was shown, as lists of lines."""
        shown = self.output.decode().split("\x1b[H")[1:]
        return [[re.sub(r"\x1b\[[?0-9]*[A-Za-z]", "", line) for line in frame.split("\r\n")] for frame in shown]

    def wait_for(self, text, after=0):
        """Until a frame has `text`; returns it."""
        deadline = time.monotonic() + SECONDS
        while True:
            # the last one may not be here as a whole
            for frame in self.frames()[after:-1]:
                if re.search(text, "\n".join(frame), re.M):
                    return frame
            assert time.monotonic() < deadline and self.process.poll() is None, (self.output, self.process.poll())
            self.read(0.1)

    def wait_left(self):
        """Until the terminal shows what it did before."""
        deadline = time.monotonic() + SECONDS
        while not self.output.endswith(b"\x1b[?25h\x1b[?1049l"):
            assert time.monotonic() < deadline, self.output
            self.read(0.1)
        assert termios.tcgetattr(self.slave) == self.before
        for on, off in (b"\x1b[?1049h", b"\x1b[?1049l"), (b"\x1b[?25l", b"\x1b[?25h"):
            assert self.output.count(on) == self.output.count(off)

    def press(self, keys):
        os.write(self.master, keys)

    def ended(self):
        """(exit status, what it said), after which the terminal must be as before."""
        deadline = time.monotonic() + SECONDS
        while self.process.poll() is None:
            assert time.monotonic() < deadline
            self.read(0.1)
        self.wait_left()
        return self.process.returncode, self.process.stderr.read().decode()


@pytest.mark.parametrize("end", ["q", "ctrl-c", "TERM", "HUP"])
def test_a_live_view_in_eighty_columns(origin, disk, end):
    volume = origin(256 * BYTES)
    snap = volume.snapshot(disk(300 * BYTES), CHUNK, name=LONG)
    other = volume.snapshot(disk(300 * BYTES), CHUNK, name="other")
    with Terminal("top", "--interval", "0.5") as terminal:
        frame = terminal.wait_for(r"^other ")
        assert frame[0] == "snap_top: 2 active, every 0.5 s; q ends it"
        assert terminal.before != termios.tcgetattr(terminal.slave)
        for chunk in range(40):
            disks.write(volume.path, chunk * BYTES, b"\x11" * 512)
        # 42 of 300 chunks, growing
        frame = terminal.wait_for(r"^other +origin +14\.0% +168k +4k +\d[\d.]*k +\d+[sm] ")
        if module.CORE == "rust":
            assert re.search(r" 40 +[\d.]+ +[\d.]+ +\d+[mu]?s +\d+[mu]?s$", frame[4]), frame
        else:
            assert re.search(r"( +-){5}$", frame[4]), frame
        assert frame[3].startswith("a-name-") and "~ " in frame[3]
        volume.drop(snap)
        volume.snapshots.remove(snap)
        terminal.wait_for(r"^snap_top: 1 active", after=len(terminal.frames()))
        terminal.press(b"xyz\x1b[A")
        # narrower
        fcntl.ioctl(terminal.master, termios.TIOCSWINSZ, struct.pack("4H", 4, 40, 0, 0))
        frame = terminal.wait_for(r"^NAME .{30,35}$", after=len(terminal.frames()))
        assert len(frame) == 4 and max(map(len, frame)) == 40
        assert all(len(line) <= COLUMNS for frame in terminal.frames() for line in frame)
        assert all(len(frame) <= LINES for frame in terminal.frames())
        if end in ("q", "ctrl-c"):
            terminal.press({"q": b"q", "ctrl-c": b"\x03"}[end])
        else:
            terminal.process.send_signal(getattr(signal, f"SIG{end}"))
        assert terminal.ended() == (0, "")
    assert other.status() != "Invalid"


def test_a_view_that_is_stopped_gives_the_terminal_back(snapshot):
    snapshot(64 * BYTES, 64 * BYTES, CHUNK)
    with Terminal("top", "--interval", "0.5", prefix=[sys.executable, "-c", SHELL]) as terminal:
        terminal.wait_for("1 active")
        terminal.press(b"\x1a")
        deadline = time.monotonic() + SECONDS
        group = os.tcgetpgrp(terminal.master)
        status = Path(f"/proc/{group}/stat")
        while status.read_text().rsplit(")", 1)[1].split()[0] != "T":
            assert time.monotonic() < deadline
            terminal.read(0.1)
        terminal.wait_left()
        seen = len(terminal.frames())
        os.killpg(group, signal.SIGCONT)
        terminal.wait_for("1 active", after=seen)
        terminal.press(b"q")
        assert terminal.ended() == (0, "")


def test_a_view_that_nobody_could_wake_does_not_stop(snapshot):
    snapshot(64 * BYTES, 64 * BYTES, CHUNK)
    # it leads its session, as by ssh -t
    with Terminal("top", "--interval", "0.5") as terminal:
        terminal.wait_for("1 active")
        terminal.press(b"\x1a")
        terminal.wait_for("1 active", after=len(terminal.frames()))
        assert terminal.output.count(b"\x1b[?1049h") == 1
        terminal.press(b"q")
        assert terminal.ended() == (0, "")


def test_a_reader_that_stopped_to_read_keeps_nobody(snapshot):
    snapshot(64 * BYTES, 64 * BYTES, CHUNK)
    command = [PROGRAM, "top", "--json", "--interval", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, pipesize=4096) as process:
        waiting = struct.Struct("i")
        unread = [0]
        # full, when nothing comes for as long as fifty lines would take
        while not unread[-1] or len(unread) < 5 or len(set(unread[-5:])) > 1:
            assert len(unread) < SECONDS
            time.sleep(1)
            unread.append(waiting.unpack(fcntl.ioctl(process.stdout, termios.FIONREAD, waiting.pack(0)))[0])
        process.terminate()
        time.sleep(1)
        assert process.poll() is None
        process.terminate()
        assert process.wait(SECONDS) == 1


def test_a_snapshot_that_was_made_anew_did_not_grow(origin, disk):
    volume = origin(256 * BYTES)
    cow = disk(300 * BYTES)
    snap = volume.snapshot(cow, CHUNK, name="nightly")
    command = [PROGRAM, "top", "--json", "--interval", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        (first,) = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGSTOP)
        volume.drop(snap)
        volume.snapshots.remove(snap)
        volume.snapshot(disk(300 * BYTES), CHUNK, name="nightly")
        for chunk in range(20):
            disks.write(volume.path, chunk * BYTES, b"\x11" * 512)
        process.send_signal(signal.SIGCONT)
        (second,) = json.loads(process.stdout.readline())
        assert second["used"] > first["used"] and second["growth"] is None
        process.terminate()
        assert process.wait(SECONDS) == 0


def test_several_in_a_device_are_told_apart(origin, devices, disk, tmp_path):
    volume = origin(256 * BYTES)
    table = [(at, 64 * CHUNK, "snapshot", f"{volume.disk.path} {disk(80 * BYTES).path} P {CHUNK}")
             for at in (0, 64 * CHUNK)]
    devices("two", table)
    found = json.loads(run("top", "--once", "--json", "two").stdout)
    assert [(one["name"], one["start"]) for one in found] == [("two", 0), ("two", 64 * CHUNK)]
    path = tmp_path / "a.prom"
    assert run("top", "--once", "--prometheus", path).returncode == 0
    series = [line.rsplit(" ", 1)[0] for line in path.read_text().splitlines() if not line.startswith("#")]
    assert len(series) == len(set(series))
    done = run("stat", "two")
    assert (done.returncode, done.stdout) == (1, "") and "several snapshots" in done.stderr


def test_an_error_gives_the_terminal_back(snapshot, tmp_path):
    snapshot(64 * BYTES, 64 * BYTES, CHUNK)
    directory = tmp_path / "metrics"
    directory.mkdir()
    with Terminal("top", "--interval", "0.5", "--prometheus", str(directory / "a.prom")) as terminal:
        terminal.wait_for("1 active")
        directory.rename(tmp_path / "elsewhere")
        code, said = terminal.ended()
        assert code == 1 and re.fullmatch(r"snap_top: .*/a\.prom: cannot create: .*\n", said), said


def test_without_a_terminal_it_says_so(snapshot):
    snapshot(64 * BYTES, 64 * BYTES, CHUNK)
    done = run("top")
    assert (done.returncode, done.stdout) == (1, "") and "no terminal; use --once" in done.stderr

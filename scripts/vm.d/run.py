# SPDX-License-Identifier: GPL-2.0-only
"""One run of a guest, whatever the backend."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from complaints import COMPLAINT
from project import PROJECT, STORE_MODULE, TARGETS_MODULE, Failure, tool
from stock import Stock
from uml import Uml

KERNEL_COMPLAINED, GUEST_GONE, SETUP_FAILED, TIMED_OUT = 70, 71, 72, 124

# From here on what happens is the module's or the command's doing.
BOOTED = re.compile(r"guest: running the command|dm_snap_persistent|dm_snapshot")


def backend(options):
    return Stock(options) if options.flavour == "stock" else Uml(options)


class Run:
    """One guest: its directory, its process, and the threads that listen to it."""

    # seconds, and of CPU, in which no kernel that boots says nothing; on a busy machine it has to wait for the CPU
    SILENCE, SILENT_CPU, LONG_SILENCE = 90, 20, 300

    def __init__(self, options):
        self.options = options
        self.backend = backend(options)
        (PROJECT / "build/vm").mkdir(parents=True, exist_ok=True)
        self.directory = Path(tempfile.mkdtemp(prefix=time.strftime("%H%M%S-"), dir=PROJECT / "build/vm"))
        self.console = self.directory / "console.log"
        self.complaints = []  # lines of the console, by number
        self.booted = False
        self.heard, self.heard_cpu = 0.0, 0.0  # when the console last said something, and the CPU time used until then
        self.process = None
        self.status = None

    def prepare(self):
        o = self.options
        shared = self.directory / "vm"
        shared.mkdir()
        if o.out is None:
            o.out = self.directory / "out"
        o.out = Path(o.out).resolve()
        o.out.mkdir(parents=True, exist_ok=True)
        if o.store == "rust":
            self.copy_modules(shared)
        for name in "init", "uml-init":
            shutil.copy(PROJECT / "scripts/guest.d" / name, shared / name)
        (shared / "command").write_text("exec " + shlex.join(o.command) + "\n")
        (shared / "settings").write_text(
            f"core={o.core}\nstore={o.store}\ninteractive={self.backend.terminal if o.interactive else ''}\n" +
            "".join(f"port_{name}={device}\n" for name, device in self.backend.ports.items()))
        for disk in o.disk:
            disk.create(self.directory)

    def copy_modules(self, shared):
        """Gives the guest both modules, if there are both: tests change from one core to the other."""
        o = self.options
        ours = TARGETS_MODULE if o.core == "rust" else STORE_MODULE
        directory = o.module.resolve().parent if o.module else self.backend.build_modules()
        found = {name: directory / name for name in (STORE_MODULE, TARGETS_MODULE)}
        if o.module:
            found[ours] = o.module
        if not found[ours].exists():
            raise Failure(f"there is no {found[ours]}")
        copies = []
        for name, file in found.items():
            if file.exists():
                copies.append(shutil.copy(file, shared / name))
        # as distributions do: nine tenths are of use to debuggers alone, and are read whenever it is loaded
        for copy in copies:
            tool("in-root", "--kernel", o.kernel, "--", "llvm-objcopy", "--strip-debug", copy)
        if o.core == "rust":
            flavour = [] if o.flavour == "stock" else ["--flavour", o.flavour]
            tool("updates", "--kernel", o.kernel, *flavour, shared / ours, shared / "modules")

    def watch(self, source):
        """Keeps the console and notes what the kernel complains of."""
        with open(self.console, "wb", buffering=0) as log:
            for number, line in enumerate(source):
                log.write(line)
                self.heard, self.heard_cpu = time.monotonic(), self.cpu_seconds()
                self.booted = self.booted or bool(BOOTED.search(line.decode(errors="replace")))
                if COMPLAINT.search(line.decode(errors="replace")):
                    self.complaints.append(number)

    @staticmethod
    def forward(source, target):
        while data := source.read1(65536):
            try:
                target.write(data)
                target.flush()
            except BrokenPipeError:
                pass  # nobody listens any more; the guest must not wait for that

    def start(self):
        names = ["console"] + ([] if self.options.interactive else ["stdout", "stderr"])
        pipes = {name: os.pipe() for name in names}
        command = self.backend.command(self.directory, {name: pipe[1] for name, pipe in pipes.items()})
        (self.directory / "command-line").write_text(shlex.join(map(str, command)) + "\n")
        # dies with us, however we die
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *map(str, command)],
            stdin=None if self.options.interactive else subprocess.DEVNULL,
            stdout=None if self.options.interactive else open(self.directory / "backend.log", "wb"),
            stderr=open(self.directory / "backend.log", "ab"),
            pass_fds=[pipe[1] for pipe in pipes.values()],
            # Ctrl-C is for us: we end it
            process_group=None if self.options.interactive else 0)
        threads = []
        for name, (read, write) in pipes.items():
            os.close(write)
            source = open(read, "rb")
            if name == "console":
                thread = threading.Thread(target=self.watch, args=(source,), daemon=True)
            else:
                thread = threading.Thread(target=self.forward, daemon=True,
                                          args=(source, getattr(sys, name).buffer))
            thread.start()
            threads.append(thread)
        return threads

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def wait(self, last):
        """Until the guest ends by itself (None), or why it has to."""
        began = self.heard = time.monotonic()
        self.heard_cpu = 0.0
        while True:
            try:
                self.process.wait(0.5)
                return None
            except subprocess.TimeoutExpired:
                pass
            now = time.monotonic()
            if now - began > self.options.timeout:
                return "timeout"
            if not last and not self.booted and (self.complaints or self.silent(now)):
                return "boot"

    def cpu_seconds(self):
        """What the backend's process used so far."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except (AttributeError, OSError):
            return 0.0  # not yet, or no more
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def silent(self, now):
        seconds, cpu = now - self.heard, self.cpu_seconds() - self.heard_cpu
        return seconds > self.SILENCE and cpu > self.SILENT_CPU or seconds > self.LONG_SILENCE

    def run(self):
        self.prepare()
        for attempt in range(self.backend.REBOOTS + 1):
            last = attempt == self.backend.REBOOTS
            threads = self.start()
            end = self.wait(last)
            self.stop()
            for thread in threads:
                thread.join()
            if last or self.booted or not (self.complaints or end == "boot"):
                break
            print(f"vm: the kernel {'complained' if self.complaints else 'went silent'} before it had booted: "
                  "booting again", file=sys.stderr)
            self.console.rename(self.directory / f"console-{attempt + 1}.log")
            self.complaints.clear()
        return self.judge(end == "timeout")

    def judge(self, timed_out):
        def read(name):
            path = self.directory / "vm" / name
            return path.read_text().strip() if path.exists() else ""

        def excerpt(first):
            lines = self.console.read_text(errors="replace").splitlines()
            sys.stderr.write("".join(f"  {line}\n" for line in lines[max(first, 0):][:60]))

        status = read("status")
        if self.complaints:
            print(f"vm: the kernel complained (the command's own status: {status or 'none'}):", file=sys.stderr)
            excerpt(self.complaints[0] - 3)
            return KERNEL_COMPLAINED
        if timed_out:
            print(f"vm: timed out after {self.options.timeout} s; the end of the console:", file=sys.stderr)
            excerpt(len(self.console.read_bytes().splitlines()) - 10)
            return TIMED_OUT
        if read("failure"):
            print(f"vm: the guest could not be set up: {read('failure')}", file=sys.stderr)
            return SETUP_FAILED
        if not status:
            print("vm: the guest ended before the command did; the end of the console:", file=sys.stderr)
            sys.stderr.write((self.directory / "backend.log").read_text(errors="replace"))
            excerpt(len(self.console.read_bytes().splitlines()) - 10)
            return GUEST_GONE
        return int(status)

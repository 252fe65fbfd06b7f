# SPDX-License-Identifier: GPL-2.0-only
"""The backend for a kernel built as a process."""

import os
import shlex
import shutil
from pathlib import Path

from project import PROJECT, Failure, built_modules, settings, size, tool


class Uml:
    """User-mode Linux, a process of the build root whose libc it is linked to; its root filesystem is the guest's
    directory."""

    REBOOTS = 0
    CPUS, DISKS = 2, 16  # CONFIG_NR_CPUS, MAX_DEV of its disk driver

    def __init__(self, options):
        if not shutil.which("bwrap"):
            raise Failure("bwrap is missing: run scripts/host-deps as root")
        if options.cpus > self.CPUS or len(options.disk) > self.DISKS:
            raise Failure(f"this kernel has at most {self.CPUS} processors and {self.DISKS} disks")
        self.options = options
        self.kernel = settings(tool("uml", "--kernel", options.kernel, "--flavour", options.flavour))
        self.guest = settings(tool("guest", "--kernel", options.kernel))
        self.release = self.kernel["KERNEL_RELEASE"]
        self.terminal = "/dev/tty0"
        self.ports = {"stdout": "/dev/ttyS0", "stderr": "/dev/ttyS1"}

    def build_modules(self):
        flavour = self.options.flavour
        return built_modules(self.kernel, f"{flavour}-{self.release}", "--flavour", flavour)

    def command(self, run, fds):
        o = self.options
        root = Path(self.kernel["BUILD_ROOT"])
        modules = Path(self.kernel["KERNEL_MODULES"])
        line = ["bwrap", "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-net", "--tmpfs", "/"]
        for name in "usr", "etc":
            line += ["--ro-bind", root / name, f"/{name}"]
        for name in "bin", "sbin", "lib", "lib64":
            line += ["--symlink", f"usr/{name}", f"/{name}"]
        # the guest's memory is a file that is executed from; bwrap's tmpfs is no bigger than it has to be
        line += ["--proc", "/proc", "--dev", "/dev", "--size", str(size(o.memory) + (64 << 20)), "--tmpfs", "/dev/shm",
                 "--tmpfs", "/tmp", "--clearenv", "--setenv", "HOME", "/tmp", "--setenv", "TERM", os.environ.get("TERM", "linux"),
                 "--ro-bind", self.kernel["KERNEL_IMAGE"], "/linux",
                 "--ro-bind", self.guest["GUEST_ROOT"], "/guest", "--tmpfs", "/guest/run",
                 "--tmpfs", "/guest/usr/lib/modules", "--ro-bind", modules, f"/guest/usr/lib/modules/{modules.name}",
                 "--ro-bind", PROJECT, "/guest/project", "--bind", o.out, "/guest/out",
                 "--bind", run / "vm", "/guest/run/vm"]
        disks = []
        for n, disk in enumerate(o.disk):
            line += ["--dev-bind", disk.file, f"/disks/{n}"]
            disks.append(f"ubd{n}d=/disks/{n},,{disk.name}")
        # the quick way to run processes does not work when clang compiled the kernel; the debug flavour has one processor
        processes = ["seccomp=off"] if o.flavour == "debug" else [f"ncpus={o.cpus}", "seccomp=on"]
        line += ["--", "/linux", f"mem={o.memory}", *processes, "noreboot",
                 "root=/dev/root", "rootfstype=hostfs", "hostfs=/guest", "ro", "init=/run/vm/uml-init",
                 "con=null", f"con1=null,fd:{fds['console']}", "console=tty1",
                 "panic=-1", "oops=panic", "loglevel=5", "log_buf_len=4M", "rcupdate.rcu_cpu_stall_timeout=120", *disks]
        if o.interactive:
            line += ["con0=fd:0,fd:1"]
        else:
            line += [f"ssl{n}=null,fd:{fds[name]}" for n, name in enumerate(self.ports)]
        return [*line, *shlex.split(o.append)]

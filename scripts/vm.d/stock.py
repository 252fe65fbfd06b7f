# SPDX-License-Identifier: GPL-2.0-only
"""The backend for an unmodified kernel."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from project import CACHE, PROJECT, Failure, built_modules, settings, tool

# The emulated time-stamp counter is the host's: where two host processors disagree, each move of QEMU's thread from one
# to the other puts the guest's clock forward, for good. The HPET is QEMU's own. The boot's check of the timer counts
# ticks while it spins, and a busy host is late with them.
CLOCKS = "tsc=unstable clocksource=hpet no_timer_check"
# uname's name, QEMU, the processor that it emulates (arm64's own pointer authentication takes half of the time), the
# console, what else the kernel must be told
MACHINES = {
    "amd64": ("x86_64", ["qemu-system-x86_64", "-machine", "q35"], "max", "ttyS0", CLOCKS),
    "arm64": ("aarch64", ["qemu-system-aarch64", "-machine", "virt,gic-version=3"], "max,pauth-impdef=on", "ttyAMA0", ""),
}


class Stock:
    """An unmodified Debian kernel in QEMU.

    A backend names the kernel's release and the terminal of an interactive command, builds the modules for its
    kernel, and knows the command line that starts a guest. The rest is the same for all.
    """

    # QEMU's emulation now and then loses a processor early, or runs a breakpoint of text patching that is gone
    REBOOTS = 2

    def __init__(self, options):
        self.options = options
        self.kernel = settings(tool("kernel", "--kernel", options.kernel))
        self.machine_name, self.qemu, self.emulated, self.terminal_line, self.parameters = MACHINES[self.kernel["KERNEL_ARCH"]]
        if not shutil.which(self.qemu[0]):
            raise Failure(f"{self.qemu[0]} is missing: run scripts/host-deps as root, for arm64 install qemu-system-arm")
        self.guest = settings(tool("guest", "--kernel", options.kernel))
        self.release = self.kernel["KERNEL_RELEASE"]
        self.terminal = "/dev/hvc0"
        self.ports = {}  # the guest finds them by their names
        self.has_9p = self.guest["GUEST_SHARES"] == "9p"

    def build_modules(self):
        return built_modules(self.kernel, self.release)

    def machine(self, accelerator):
        return [*self.qemu, *accelerator, "-nodefaults", "-no-user-config",
                "-display", "none", "-no-reboot", "-kernel", self.kernel["KERNEL_IMAGE"],
                "-initrd", self.guest["GUEST_INITRD"]]

    def accelerator(self):
        """KVM if it can run a kernel: the device can be there and yet be of no use."""
        emulation = ["-accel", "tcg,thread=multi", "-cpu", self.emulated]
        virtualization = ["-accel", "kvm", "-cpu", "host"]
        if platform.machine() != self.machine_name or not os.access("/dev/kvm", os.R_OK | os.W_OK):
            return emulation
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        known = CACHE / f"kvm-{boot}-{platform.release()}"
        if not known.exists():
            print("vm: trying whether KVM works here…", file=sys.stderr)
            try:
                probe = subprocess.run(
                    [*self.machine(virtualization), "-m", "512M", "-serial", "stdio",
                     "-append", f"console={self.terminal_line} panic=-1 vm.probe"],
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=15)
                alive = b"vm.probe: alive" in probe.stdout
            except subprocess.TimeoutExpired:
                alive = False
            for old in CACHE.glob("kvm-*"):
                old.unlink()
            known.write_text("yes" if alive else "no")
        return virtualization if known.read_text() == "yes" else emulation

    def command(self, run, fds):
        """The command line, with the file descriptors to write the console, stdout and stderr to."""
        o = self.options
        line = [*self.machine(self.accelerator()), "-m", o.memory, "-smp", str(o.cpus), "-nic", "none",
                # a timer tick that a busy machine is late for is no soft lockup
                "-append", " ".join([f"console={self.terminal_line} panic=-1 oops=panic nokaslr loglevel=5 log_buf_len=4M mitigations=off",
                                     "watchdog_thresh=30 rcupdate.rcu_cpu_stall_timeout=120", self.parameters, o.append]),
                "-chardev", f"file,id=console,path=/dev/fd/{fds['console']},append=on",
                "-serial", "chardev:console", "-device", "virtio-serial-pci"]
        if o.interactive:
            line += ["-chardev", "stdio,id=terminal,signal=off", "-device", "virtconsole,chardev=terminal"]
        else:
            for name in "stdout", "stderr":
                line += ["-chardev", f"file,id={name},path=/dev/fd/{fds[name]},append=on",
                         "-device", f"virtserialport,chardev={name},name={name}"]
        shares = {"modules": self.kernel["KERNEL_MODULES"], "project": PROJECT, "out": o.out, "vm": run / "vm"}
        line += self.nine(shares) if self.has_9p else self.virtiofs(shares, run, o.memory)
        line += ["-drive", f"if=none,id=root,file={self.guest['GUEST_IMAGE']},format=raw,readonly=on",
                 "-device", "virtio-blk-pci,drive=root,serial=root"]
        for n, disk in enumerate(o.disk):
            cache = "unsafe" if disk.fresh else "writeback"
            line += ["-drive", f"if=none,id=disk{n},file={disk.file},format=raw,cache={cache},discard=unmap",
                     "-device", f"virtio-blk-pci,drive=disk{n},serial={disk.name}"]
        if not self.has_9p:
            line = [PROJECT / "scripts/vm.d/virtiofs", run, *(f"{tag}={path}" for tag, path in shares.items()), "--", *line]
        return line

    @staticmethod
    def nine(shares):
        """What the guest mounts by 9p. Two tags are written to."""
        line = []
        for tag, path in shares.items():
            mode = "off" if tag in ("out", "vm") else "on"
            line += ["-virtfs", f"local,path={path},mount_tag={tag},security_model=none,readonly={mode},multidevs=remap"]
        return line

    @staticmethod
    def virtiofs(shares, run, memory):
        """The same by virtiofs, whose servers write to the guest's memory."""
        line = ["-object", f"memory-backend-memfd,id=memory,size={memory},share=on", "-machine", "memory-backend=memory"]
        for tag in shares:
            line += ["-chardev", f"socket,id={tag},path={run / tag}.socket", "-device", f"vhost-user-fs-pci,chardev={tag},tag={tag}"]
        return line

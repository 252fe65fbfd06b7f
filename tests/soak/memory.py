# SPDX-License-Identifier: GPL-2.0-only
"""Whether the kernel's memory grows: coarse, kmemleak knows better where there is one."""

import os

import meminfo
from model import Wrong

MIB = 1 << 20


def used():
    """What only the kernel can free, in bytes, and what is free."""
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3")
    return meminfo.kernels_own(), meminfo.read()["MemAvailable"]


def compare(before, after):
    # KASAN keeps what was freed, kmemleak and lockdep their notes of it
    limit = (256 if os.path.exists("/sys/kernel/debug/kmemleak") else 32) * MIB
    kernel, available = after[0] - before[0], before[1] - after[1]
    print(f"memory: the kernel's own grew by {kernel / MIB:.1f} MiB, available shrank by {available / MIB:.1f} MiB")
    if kernel > limit:
        raise Wrong(f"{kernel} bytes more of the kernel's memory are in use than after the first volume group")

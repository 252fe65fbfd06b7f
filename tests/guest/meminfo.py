# SPDX-License-Identifier: GPL-2.0-only
"""How much memory is in use, in bytes."""


def read():
    with open("/proc/meminfo") as file:
        return {line.split(":")[0]: int(line.split()[1]) << 10 for line in file}


def kernels_own():
    """What only the kernel can free."""
    values = read()
    return values["SUnreclaim"] + values["VmallocUsed"] + values["Percpu"]

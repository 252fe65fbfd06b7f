# SPDX-License-Identifier: GPL-2.0-only
"""What kernels say when something is wrong: for scripts/vm, which watches the console, and for the tests in the guest."""

import re

# What a healthy kernel never prints. Spectre's advice on a machine's mitigations is no complaint.
COMPLAINT = re.compile(
    r"Kernel panic|------------\[ cut here \]|\bBUG:|kernel BUG at|\bOops\b|(?<!V2 : )WARNING: |Call Trace:"
    r"|INFO: task .* blocked|INFO: possible|INFO: trying to register|detected stall|soft lockup|hard LOCKUP"
    r"|general protection fault|Unable to handle kernel|UBSAN:|KASAN:|KCSAN:|KFENCE:|kmemleak: \d+ new"
    r"|rust_kernel: panicked|kernel tried to|list_(add|del) corruption|attempt to access beyond end of device")

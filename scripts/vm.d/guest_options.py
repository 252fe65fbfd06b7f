# SPDX-License-Identifier: GPL-2.0-only
"""The options that choose a guest, the same for all that boots one."""

import os
from pathlib import Path

CORE = "rust"  # what a guest runs on, if nobody says
CORES, STORES, FLAVOURS = ("c", "rust"), ("rust", "c", "none"), ("stock", "uml", "debug", "signed")


def add(parser, flavour="stock", core=True):
    """Adds them to an argparse parser; `flavour` is the default. Without `core`, what is loaded is not to be chosen."""
    parser.add_argument("--kernel", default=os.environ.get("KERNEL", ""), metavar="X.Y|RELEASE")
    parser.add_argument("--flavour", choices=FLAVOURS, default=os.environ.get("FLAVOUR") or flavour,
                        help="stock: Debian's kernel in QEMU; uml: its source as User-mode Linux, which is fast; debug: "
                             "the same with KASAN, lockdep, kmemleak, …; signed: small, and with a key of ours in its "
                             f"keyring (default: {flavour})")
    parser.add_argument("--module", type=Path, metavar="FILE",
                        help="the core's module, built elsewhere; the other is taken from beside it")
    if not core:
        parser.set_defaults(core="c", store="rust")
        return
    parser.add_argument("--core", choices=CORES, default=os.environ.get("CORE") or CORE,
                        help="c: the kernel's dm-snapshot; rust: our dm-snapshot.ko, which modprobe finds in updates/ "
                             f"(default: {CORE})")
    parser.add_argument("--store", choices=STORES, default="rust",
                        help="rust: ours (default), with --core c in a module of its own; c: the kernel's; none: no "
                             "module is loaded")


def check(parser, options):
    """argparse does not look at what the environment says, nor at two options at once."""
    for name, choices in (("core", CORES), ("flavour", FLAVOURS)):
        if getattr(options, name) not in choices:
            parser.error(f"{name} {getattr(options, name)}: choose from {', '.join(choices)}")
    if options.core == "rust" and options.store == "c":
        parser.exit(2, f"{parser.prog}: --store c is of --core c alone: the Rust core has no store but ours\n")


def words(options):
    """The same choice, as words of a command line."""
    chosen = {name: getattr(options, name) for name in ("kernel", "flavour", "core", "store", "module")}
    return [word for name, value in chosen.items() if value for word in (f"--{name}", str(value))]

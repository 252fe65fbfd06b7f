# SPDX-License-Identifier: GPL-2.0-only
"""Loading and unloading our module of the guest's core, and whose dm-snapshot there is.

Either core's module of the targets is named dm_snapshot. With the C core, our store is a module beside it; with the
Rust core, it is part of it.
"""

import ctypes
import errno
import os
import shutil
import subprocess
import time

CORE = os.environ.get("DMSP_CORE", "c")
TARGETS = "dm_snapshot"
NAME = TARGETS if CORE == "rust" else "dm_snap_persistent"
FILE = "/run/vm/" + ("dm-snapshot.ko" if CORE == "rust" else "dm_snap_persistent.ko")
COPY = f"/tmp/{os.path.basename(FILE)}"  # in memory, which saves two thirds of the time that loading takes
FINIT_MODULE, DELETE_MODULE = 313, 176  # x86-64's

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _syscall(number, *arguments):
    if _libc.syscall(ctypes.c_long(number), *arguments) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def loaded(name=NAME):
    try:
        with open(f"/sys/module/{name}/initstate") as state:
            return state.read().strip() == "live"
    except FileNotFoundError:
        return False


def core():
    """Whose dm-snapshot is loaded, "c" or "rust": the kernel marks the one that is not from its own tree."""
    if not loaded(TARGETS):
        return None
    with open(f"/sys/module/{TARGETS}/taint") as file:
        return "rust" if "O" in file.read() else "c"


def users():
    """The modules of a snapshot of ours, and how often each is in use while no device exists."""
    return {TARGETS: 0} if CORE == "rust" else {TARGETS: 1 if loaded() else 0, NAME: 0}


def load(parameters=""):
    """What insmod does."""
    if not os.path.exists(COPY):
        shutil.copy(FILE, COPY)
    fd = os.open(COPY, os.O_RDONLY)
    try:
        _syscall(FINIT_MODULE, ctypes.c_int(fd), parameters.encode(), ctypes.c_int(0))
    finally:
        os.close(fd)


def unload(name=NAME):
    """What rmmod does: fails with EBUSY while the module is in use."""
    _syscall(DELETE_MODULE, name.encode(), ctypes.c_int(os.O_NONBLOCK))


def unload_patiently(name=NAME, seconds=20):
    """A device that was removed may keep its store a moment longer."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return unload(name)
        except OSError as e:
            if e.errno not in (errno.EBUSY, errno.EAGAIN) or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def refcount(name=NAME):
    with open(f"/sys/module/{name}/refcnt") as file:
        return int(file.read())


def ours():
    """Whether new tables get our store."""
    return loaded() and core() == CORE


def use(store):
    """Makes `store`, "rust" (ours) or "c" (the kernel's), the one that new tables get.

    With the Rust core that is another module for the targets, too: no device may have one.
    """
    if store == ("rust" if ours() else "c") and loaded(TARGETS):
        return
    if loaded():
        unload_patiently()
    if store == "rust":
        load()
    elif not loaded(TARGETS):
        load_c_targets()


def c_file():
    """The kernel's own dm-snapshot; modprobe finds ours before it."""
    directory = f"/lib/modules/{os.uname().release}/kernel/drivers/md"
    (found,) = (entry for entry in os.listdir(directory) if entry.startswith("dm-snapshot.ko"))
    return f"{directory}/{found}"


def load_c_targets():
    """What modprobe did if ours were not there."""
    file = c_file()
    needs = subprocess.run(["modinfo", "-F", "depends", file], check=True, capture_output=True, text=True).stdout
    subprocess.run(["modprobe", "-a", *needs.strip().split(",")], check=True)
    subprocess.run(["insmod", file], check=True)

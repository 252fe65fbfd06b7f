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
TARGETS, STORE = "dm_snapshot", "dm_snap_persistent"
NAME = TARGETS if CORE == "rust" else STORE
FILES = {TARGETS: "/run/vm/dm-snapshot.ko", STORE: "/run/vm/dm_snap_persistent.ko"}
FILE = FILES[NAME]
PARAMETERS = f"/sys/module/{TARGETS}/parameters"
MEMORY = "/tmp"  # whence loading takes a third of the time
# x86-64's, arm64's
FINIT_MODULE, DELETE_MODULE = (313, 176) if os.uname().machine == "x86_64" else (273, 106)

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


def insert(parameters="", name=NAME):
    """What insmod does, and nothing else."""
    copy = os.path.join(MEMORY, os.path.basename(FILES[name]))
    if not os.path.exists(copy):
        shutil.copy(FILES[name], copy)
    fd = os.open(copy, os.O_RDONLY)
    try:
        _syscall(FINIT_MODULE, ctypes.c_int(fd), parameters.encode(), ctypes.c_int(0))
    finally:
        os.close(fd)


def load(parameters="", name=NAME):
    """Inserts the module, with the last 5 % of a COW device as fast as the rest, and nothing copied before it is
    needed: tests count chunks, and fill many devices."""
    insert(parameters, name)
    full_seconds(0)
    copy_ahead(False)


def set_parameter(name, value):
    path = os.path.join(PARAMETERS, name)
    if os.path.exists(path):  # the C core has few
        with open(path, "w") as file:
            file.write(str(value))


def full_seconds(seconds):
    """For how long the last 5 % of a COW device last at least."""
    set_parameter("snapshot_full_seconds", seconds)


def copy_ahead(wanted):
    """Whether chunks are copied ahead of those who write in sequence."""
    set_parameter("snapshot_copy_ahead", "Y" if wanted else "N")


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


def stack():
    """What new tables get: "c" is the C core with its own store, "rust" the C core with ours, "targets" all ours."""
    if core() == "rust":
        return "targets"
    return "rust" if loaded(STORE) else "c"


def choose(wanted):
    """Makes `wanted` the stack that new tables get. From one core to the other no device may have a target of either."""
    if stack() == wanted and loaded(TARGETS):
        return
    if loaded(STORE):
        unload_patiently(STORE)
    if core() != ("rust" if wanted == "targets" else "c"):
        if loaded(TARGETS):
            unload_patiently(TARGETS)
        if wanted == "targets":
            load(name=TARGETS)
        else:
            load_c_targets()
    if wanted == "rust":
        load(name=STORE)


OURS = "targets" if CORE == "rust" else "rust"  # the stack with our store, as this guest's core has it


def ours():
    """Whether new tables get our store."""
    return loaded() and stack() == OURS


def serves():
    """Whether the snapshots that there are have our store."""
    return ours() and refcount() > 0


def use(store):
    """Makes `store`, "rust" (ours) or "c" (the kernel's), the one that new tables get."""
    choose(OURS if store == "rust" else "c")


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

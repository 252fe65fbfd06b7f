# SPDX-License-Identifier: GPL-2.0-only
"""Loading and unloading the module, and who owns the names."""

import ctypes
import errno
import os
import shutil
import time

NAME = "dm_snap_persistent"
FILE = "/run/vm/dm_snap_persistent.ko"
COPY = "/tmp/dm_snap_persistent.ko"  # in memory, which saves two thirds of the time that loading takes
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


def use(store):
    """Makes `store`, "rust" or "c", the one that new tables get."""
    if store == "rust" and not loaded():
        load()
    if store == "c" and loaded():
        unload_patiently()

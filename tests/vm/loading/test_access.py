# SPDX-License-Identifier: GPL-2.0-only
"""What Documentation/admin-guide.md says of who can reach what: the module adds nothing that an ordinary user could read
or write, and a snapshot with our store nothing that one with the C store has not, but for what root reads in debugfs."""

import errno
import fcntl
import os
import pathlib
import stat

import dm
import module
import pytest
import volume

GUEST = "loading"
CPUS = 1
STORES = ["rust"]

NOBODY = 65534
SYSFS = pathlib.Path("/sys/module", module.NAME)
# what the kernel makes for every module, for all to read; "taint" says that it is out of tree
KERNELS = {"coresize", "initsize", "initstate", "refcnt", "srcversion", "taint", "version"}
# the targets' parameters, which have the names that C's have where there are such, are to be seen as those are; the
# store's is not
PARAMETERS = {"c": set(), "rust": {"snapshot_copy_ahead", "snapshot_cow_threshold", "snapshot_copy_throttle",
                                    "snapshot_full_seconds", "snapshot_overflow_keep"}}[module.CORE]
# the trees in which a driver could put something; below tracing there is nothing of ours to find, and much of others';
# below slab the debug kernel has a directory for each size of a cache
TREES = ["/dev", "/proc/driver", "/proc/fs", "/proc/sys/dev", "/sys/block", "/sys/bus", "/sys/class", "/sys/fs",
         "/sys/kernel/debug", "/sys/kernel/config", "/sys/devices/virtual"]
# debugfs itself is for root alone; test_debugfs.py knows what is in there
FIGURES = "/sys/kernel/debug/dm-snap"

pytestmark = pytest.mark.rust_only


def entries(*trees):
    found = set()
    for tree in trees:
        for directory, names, files in os.walk(tree):
            names[:] = [name for name in names if name not in ("tracing", "slab", "shm", "pts")]
            found.update(f"{directory}/{name}" for name in names + files)
    return found


def as_nobody(act):
    """The error number that an ordinary user gets from `act`; 0 if it succeeds."""
    child = os.fork()
    if child == 0:
        code = 255
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            try:
                act()
                code = 0
            except OSError as e:
                code = e.errno
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def opened(path, flags):
    os.close(os.open(path, flags))


@pytest.fixture
def active(origin, disk):
    """An origin with a snapshot of this store."""
    volume = origin(1 << 20)
    volume.snapshot(disk(2 << 20), 8)
    return volume


def test_the_module_adds_nothing_but_its_directory():
    module.unload_patiently()
    before = entries(*TREES)
    directories = set(os.listdir("/sys/module"))
    module.load()
    assert entries(*TREES) - before == set()
    assert set(os.listdir("/sys/module")) - directories == {module.NAME}


def test_modes_below_sys_module(active):
    parameters = SYSFS.joinpath("parameters")
    assert {path.name for path in parameters.glob("*")} == PARAMETERS, "other parameters are not to be seen"
    public, listed = set(), 0
    for directory, names, files in os.walk(SYSFS):
        for name in files:
            path = pathlib.Path(directory, name)
            if path.is_symlink():
                continue
            listed += 1
            state = path.stat()
            assert (state.st_uid, state.st_gid) == (0, 0), path
            assert not state.st_mode & (stat.S_IWGRP | stat.S_IWOTH), path
            if state.st_mode & (stat.S_IRGRP | stat.S_IROTH):
                public.add(str(path.relative_to(SYSFS)))
    assert listed > 8
    # notes: what the linker was given, as in the file
    allowed = KERNELS | {f"parameters/{name}" for name in PARAMETERS}
    assert {name for name in public if not name.startswith("notes/")} <= allowed, public


def test_a_snapshot_adds_what_one_of_the_c_store_adds(disk):
    added = {}
    target, device = disk(1 << 20), disk(2 << 20)
    for store in "c", "rust":
        module.use(store)
        device.write(0, bytes(512))
        one = volume.Volume(target, "either")
        before = entries(*TREES)
        one.snapshot(device, 8)
        added[store] = entries(*TREES) - before
        figures = {path for path in added[store] if path.startswith(FIGURES)}
        added[store] -= figures
        assert bool(figures) == (store == "rust")
        for path in figures:
            assert stat.S_IMODE(os.stat(path).st_mode) == (0o755 if os.path.isdir(path) else 0o400), path
        nodes = [path for path in added[store] if path.startswith("/dev/")]
        assert sorted(nodes) == sorted(d.path for d in (one.device, one.snapshots[0].device))
        for node in nodes:
            state = os.stat(node)
            assert (state.st_uid, state.st_gid, stat.S_IMODE(state.st_mode)) == (0, 0, 0o600), node
        one.deactivate()
    assert added["rust"] == added["c"]


def test_an_ordinary_user_reaches_nothing(active):
    (snap,) = active.snapshots
    refused = {errno.EACCES, errno.EPERM}
    for path in active.path, snap.path, active.disk.path, snap.cow.path, "/dev/mapper/control":
        for flags in os.O_RDONLY, os.O_WRONLY, os.O_RDWR:
            assert as_nobody(lambda: opened(path, flags)) in refused, (path, flags)
    assert as_nobody(lambda: os.listdir("/sys/kernel/debug")) in refused
    for directory, _, files in os.walk(SYSFS):
        for name in files:
            path = os.path.join(directory, name)
            assert as_nobody(lambda: opened(path, os.O_WRONLY)) in refused, path
            if "sections" in directory:
                assert as_nobody(lambda: opened(path, os.O_RDONLY)) in refused, path
    parameter = SYSFS / "parameters/takeover"
    assert as_nobody(lambda: opened(parameter, os.O_WRONLY)) in {errno.ENOENT, *refused}
    assert as_nobody(lambda: opened(SYSFS / "refcnt", os.O_RDONLY)) == 0, "or nothing above was tried"


def test_an_ordinary_user_cannot_load_or_unload_or_ask_by_descriptor(active):
    """Whoever is handed an open descriptor of the control device still may not use it."""
    refused = {errno.EACCES, errno.EPERM}
    assert as_nobody(lambda: module.unload()) in refused
    assert as_nobody(lambda: module.load()) in refused
    control = os.open("/dev/mapper/control", os.O_RDWR)
    try:
        buffer = bytearray(16384)
        dm.HEADER.pack_into(buffer, 0, 4, 0, 0, len(buffer), dm.HEADER.size, 0, 0, 0, 0, 0, 0, b"", b"")
        request = 3 << 30 | dm.HEADER.size << 16 | 0xfd << 8 | dm.LIST
        assert as_nobody(lambda: fcntl.ioctl(control, request, buffer)) in refused
        fcntl.ioctl(control, request, buffer)
    finally:
        os.close(control)
    assert module.loaded()

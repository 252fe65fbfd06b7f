# SPDX-License-Identifier: GPL-2.0-only
"""The module takes the names `persistent` and `P` over from dm-snapshot when it is loaded and gives them back when it
is unloaded; not while it is in use; and nothing is lost when tables are loaded at the same time."""

import errno
import os
import random
import shutil
import subprocess
import threading
import time

import dm
import kmsg
import meminfo
import module
import pytest

CORES = ["c"]
STORES = ["rust"]
TIMEOUT = 2400
MIB = 1 << 20

pytestmark = pytest.mark.rust_only


@pytest.fixture
def line(disk):
    """A snapshot table on new disks."""
    origin, cow = disk(MIB), disk(MIB)
    return [(0, origin.sectors, "snapshot", f"{origin.path} {cow.path} P 8")]


def owner(devices, line, letter="P"):
    """The module whose use count a table raises."""
    before = {name: module.refcount(name) for name in ("dm_snapshot", module.NAME) if module.loaded(name)}
    device = devices("who-owns-it", [(0, 0 + line[0][1], "snapshot", line[0][3].replace(" P ", f" {letter} "))])
    try:
        # the target itself holds dm-snapshot once; a store of dm-snapshot's holds it a second time
        risen = {name: module.refcount(name) - count for name, count in before.items()}
    finally:
        device.remove()
    if risen == {"dm_snapshot": 2, module.NAME: 0} or risen == {"dm_snapshot": 2}:
        return "dm_snapshot"
    assert risen == {"dm_snapshot": 1, module.NAME: 1}, risen
    return module.NAME


def test_loading_takes_the_names_and_unloading_gives_them_back(devices, line, log):
    assert owner(devices, line) == module.NAME
    module.unload()
    assert owner(devices, line) == "dm_snapshot"
    module.load()
    assert owner(devices, line) == module.NAME
    # both types, by name, in one load: dm-snapshot itself asks for P only
    for name in ("persistent", "P"):
        assert log.matching(rf'exception store type "?{name}"?'), log.lines()


def test_transient_store_stays_dm_snapshots(devices, line):
    assert owner(devices, line, letter="N") == "dm_snapshot"


def test_a_live_snapshot_keeps_the_module(devices, line):
    device = devices("live", line)
    with pytest.raises(OSError) as refusal:
        module.unload()
    assert refusal.value.errno in (errno.EBUSY, errno.EAGAIN)
    assert module.loaded()
    status = device.status()
    assert status == "16/2048 16"
    device.remove()
    module.unload()
    module.load()


def test_rmmod_refuses_a_live_snapshot(devices, line):
    devices("live", line)
    run = subprocess.run(["rmmod", module.NAME], capture_output=True, text=True)
    assert run.returncode != 0 and "in use" in run.stderr


def test_a_snapshot_of_the_c_store_lives_on_through_the_takeover(devices, line):
    module.unload()
    device = devices("of-c", line)
    module.load()
    assert module.refcount(module.NAME) == 0
    assert device.status() == "16/2048 16"
    # a module that is not in use goes, with a snapshot of the C store alive
    module.unload()
    device.remove()
    module.load()


def test_without_takeover_a_stock_kernel_is_left_alone(devices, line, log):
    module.unload()
    with pytest.raises(OSError) as refusal:
        module.load("takeover=0")
    assert refusal.value.errno in (errno.EBUSY, errno.EEXIST)
    assert not module.loaded()
    assert log.matching("persistent snapshot.*(takeover|registered|register|taken)"), log.lines()
    assert owner(devices, line) == "dm_snapshot"
    module.load("takeover=1")
    assert owner(devices, line) == module.NAME


@pytest.mark.parametrize("parameters", ["takeover=maybe", "takeover=", "takeover=2147483648"])
def test_a_garbage_parameter_is_refused(devices, line, parameters):
    module.unload()
    with pytest.raises(OSError) as refusal:
        module.load(parameters)
    assert refusal.value.errno in (errno.EINVAL, errno.ERANGE)
    assert not module.loaded()
    assert owner(devices, line) == "dm_snapshot"
    module.load()


def test_dm_snapshot_cannot_go_while_the_module_is_there():
    with pytest.raises(OSError) as refusal:
        module.unload("dm_snapshot")
    assert refusal.value.errno in (errno.EBUSY, errno.EAGAIN)


def test_both_can_be_unloaded_and_loaded_again(devices, line):
    module.unload()
    module.unload("dm_snapshot")
    subprocess.run(["modprobe", "dm-snapshot"], check=True)
    module.load()
    assert owner(devices, line) == module.NAME


@pytest.fixture
def installed():
    """The module installed as `make install` does, in this guest only.

    A table load that comes in the moment between one owner of a name and the next asks modprobe for dm-exstore-P.
    """
    directory = f"/lib/modules/{os.uname().release}"
    copy = "/tmp/modules"
    # depmod reads every module: the few that this needs are enough
    for part in ("kernel/drivers/md", "kernel/drivers/block"):
        shutil.copytree(f"{directory}/{part}", f"{copy}/{part}")
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        shutil.copy(f"{directory}/{name}", copy)
    os.makedirs(f"{copy}/updates")
    shutil.copy(module.FILE, f"{copy}/updates")
    os.makedirs("/etc/modprobe.d", exist_ok=True)
    shutil.copy("/project/packaging/modprobe.conf", "/etc/modprobe.d/dm-snap-persistent.conf")
    subprocess.run(["mount", "--bind", copy, directory], check=True)
    try:
        subprocess.run(["depmod"], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", directory], check=True)
        os.unlink("/etc/modprobe.d/dm-snap-persistent.conf")
        shutil.rmtree(copy)


def test_modprobe_loads_the_module_with_dm_snapshot(installed, devices, line):
    module.unload()
    module.unload("dm_snapshot")
    subprocess.run(["modprobe", "dm-snapshot"], check=True)
    assert module.loaded()
    assert owner(devices, line) == module.NAME


def test_modprobe_finds_the_module_by_the_stores_name(installed):
    module.unload()
    subprocess.run(["modprobe", "dm-exstore-P"], check=True)
    assert module.loaded()
    module.unload()
    subprocess.run(["modprobe", "dm-exstore-persistent"], check=True)
    assert module.loaded()


class Creating(threading.Thread):
    """Makes and removes snapshots until it is told to stop, with pauses in which the module can go."""

    def __init__(self, name, create, remove, pause):
        super().__init__()
        self.device_name, self.create, self.remove, self.pause = name, create, remove, pause
        self.enough = threading.Event()
        self.begun, self.created, self.failures = 0, 0, []

    def wait_created(self, count):
        while self.created < count and self.is_alive():
            time.sleep(0.001)

    def run(self):
        while not self.enough.is_set():
            self.begun += 1
            try:
                self.create(self.device_name)
                self.created += 1
                self.remove(self.device_name)
            except (OSError, subprocess.CalledProcessError) as e:
                self.failures.append(repr(e) + str(getattr(e, "stderr", "")))
                return
            self.enough.wait(self.pause)


def new_again(cow):
    """A new snapshot each time: to load an old one, the C store makes a slab cache, and the kernel warns when a cache
    is made while one of the same name is on its way out."""
    cow.write(0, bytes(4096))


def by_dmsetup(line, cow):
    table = " ".join(map(str, line[0]))

    def create(name):
        new_again(cow)
        subprocess.run(["dmsetup", "create", name, "--table", table], check=True, capture_output=True, text=True)

    def remove(name):
        subprocess.run(["dmsetup", "remove", name], check=True, capture_output=True, text=True)
    return create, remove


def by_ioctl(line, cow):
    def create(name):
        new_again(cow)
        dm.Device(name, line)
    return create, dm.remove


def test_a_thousand_loads_and_unloads_beside_table_loads_lose_nothing(installed, disk, log):
    cycles = 1000
    pairs = []
    for _ in range(2):
        origin, cow = disk(MIB), disk(MIB)
        pairs.append(([(0, origin.sectors, "snapshot", f"{origin.path} {cow.path} P 8")], cow))
    # dmsetup as people run it, and the same ioctls as fast as they can be called
    threads = [Creating("by-dmsetup", *by_dmsetup(*pairs[0]), 0.3),
               Creating("by-ioctl", *by_ioctl(*pairs[1]), 0.02)]
    for thread in threads:
        thread.start()
    refused = loads = unloads = 0
    met = []  # who was making which snapshot when the module was unloaded last
    memory = None
    try:
        while unloads < cycles and not any(thread.failures for thread in threads):
            try:
                module.load()
                loads += 1
            except OSError as e:
                # a table load that met the moment between two owners had modprobe load it
                assert e.errno == errno.EEXIST, e
            # a table load that met the last unloading waits for modprobe, and is refused if it finds the module on its
            # way out once more
            for thread, snapshot in met:
                thread.wait_created(snapshot)
            # the next unloading is to meet one anywhere
            time.sleep(random.uniform(0, 0.1))
            try:
                module.unload()
                unloads += 1
                met = [(thread, thread.begun) for thread in threads]
            except OSError as e:
                # a snapshot is alive right now
                assert e.errno in (errno.EBUSY, errno.EAGAIN, errno.ENOENT), e
                refused += 1
                time.sleep(0.001)
            if unloads == 100 and memory is None:
                memory = meminfo.kernels_own()
    finally:
        for thread in threads:
            thread.enough.set()
        for thread in threads:
            thread.join()
    assert not any(thread.failures for thread in threads), [thread.failures for thread in threads]
    assert unloads == cycles
    assert threads[0].created > 30 and threads[1].created > 300, [thread.created for thread in threads]
    if module.loaded():
        module.unload_patiently()
    assert module.refcount("dm_snapshot") == 0
    # 900 loads that each leaked a page would show
    assert meminfo.kernels_own() - memory < 2048 << 10, (memory, meminfo.kernels_own())
    assert not log.complaints()
    module.load()
    print(f"{loads} loads by hand, {unloads} unloads, {refused} refused, {[thread.created for thread in threads]} tables")


def test_log_is_clean_when_read_from_the_start():
    """Nothing in the kernel's log since boot is a complaint: loading an out-of-tree module taints, no more."""
    with open("/dev/kmsg", "rb", buffering=0) as file:
        os.set_blocking(file.fileno(), False)
        lines = []
        while True:
            record = file.read(8192)
            if not record:
                break
            lines.append(record.decode(errors="replace"))
    # what the boot itself has lost is looked for before, on the debug kernel
    begin = next(n for n, text in enumerate(lines) if "guest: running the command" in text)
    lines = [text for n, text in enumerate(lines) if n > begin or "kmemleak:" not in text]
    assert not [text for text in lines if kmsg.COMPLAINT.search(text)]

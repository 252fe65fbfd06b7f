# SPDX-License-Identifier: GPL-2.0-only
"""What all tests here need, and what must hold after each: no device left, no complaint from the kernel.

The tests run as root in a guest that scripts/vm booted; tests/vm/run starts them, says in the environment which store
the guest was given, and reads the results from /out.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "guest"))

import aio  # noqa: E402 - found in tests/guest
import dm  # noqa: E402
import disks  # noqa: E402
import kmsg  # noqa: E402
import meminfo  # noqa: E402
import module  # noqa: E402
import nbd  # noqa: E402
import volume  # noqa: E402

CORE = module.CORE
STORE = os.environ.get("DMSP_STORE", "rust")
BOOT = int(os.environ.get("DMSP_BOOT", "0"))
RESULTS = os.environ.get("DMSP_RESULTS")


def pytest_configure(config):
    for name in ("loop", "dm-snapshot"):
        subprocess.run(["modprobe", name], check=True)
    module.full_seconds(0)
    module.copy_ahead(False)
    config.addinivalue_line("markers", "rust_only: of our store alone, with either core")
    config.addinivalue_line("markers", "c_only: of the C store alone")
    config.addinivalue_line("markers", "rust_core: of the Rust core alone")
    config.addinivalue_line("markers", "c_core: of the C core alone, with either store")
    config.addinivalue_line("markers", "boot(n): belongs to the n-th boot of a file with BOOTS")


def report(**fields):
    if RESULTS:
        with open(RESULTS, "a") as file:
            file.write(json.dumps(fields) + "\n")


def pytest_collection_modifyitems(config, items):
    others = {"c_only" if STORE == "rust" else "rust_only", "c_core" if CORE == "rust" else "rust_core"}

    def chosen(item):
        boot = item.get_closest_marker("boot")
        return not any(map(item.get_closest_marker, others)) and (boot is None or boot.args[0] == BOOT)

    config.hook.pytest_deselected(items=[item for item in items if not chosen(item)])
    items[:] = [item for item in items if chosen(item)]


def pytest_collection_finish(session):
    report(collected=[item.nodeid for item in session.items])


def pytest_collectreport(report):
    if report.failed:
        globals()["report"](test=report.nodeid, outcome="failed", seconds=0, text=str(report.longrepr))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    result = (yield).get_result()
    if result.when == "setup":
        item.seconds, item.result, item.text = 0, "passed", ""
    item.seconds += result.duration
    if result.outcome != "passed" and item.result == "passed":
        # a skipped test proves nothing
        item.result = "failed"
        item.text = f"{result.outcome} in {result.when}\n{result.longreprtext}"
    if result.when == "teardown":
        report(test=item.nodeid, outcome=item.result, seconds=round(item.seconds, 1), text=item.text)


@pytest.fixture
def log():
    """What the kernel says during the test."""
    log = kmsg.Log()
    yield log
    log.close()


def sweep():
    """Removes what a failed test left behind, the last first."""
    for _ in range(5):
        for name in reversed(dm.names()):
            try:
                dm.ioctl(dm.SUSPEND, name)
                dm.remove(name)
            except OSError:
                time.sleep(0.1)


@pytest.fixture(autouse=True)
def clean(request):
    """No test leaves a device or a complaint behind; what one leaves does not hurt the next."""
    log = kmsg.Log()
    # a test of a file with BOOTS leaves its devices to the next
    boots = request.node.get_closest_marker("boot") is not None
    yield
    left = [] if boots else dm.names()
    if left:
        sweep()
    for disk in request.node.funcargs.get("disk_list", []):
        disk.close()
    if STORE == "rust" and not module.ours():
        left.append("our module is not loaded")
        module.use("rust")
    if module.core() != CORE:
        left.append(f"dm_snapshot is of core {module.core()}")
    complaints = log.complaints()
    log.close()
    assert not left, f"left behind: {left}"
    assert not complaints, "\n".join(complaints)
    if not boots:
        for name, expected in module.users().items():
            if module.loaded(name):
                assert module.refcount(name) == expected, f"{name} is still in use"


@pytest.fixture(scope="module")
def expedited():
    """What waits for RCU waits less."""
    knob = Path("/sys/kernel/rcu_expedited")
    if not knob.exists():  # a kernel for one processor: nobody waits
        yield
        return
    before = knob.read_text()
    knob.write_text("1")
    yield
    knob.write_text(before)


@pytest.fixture
def disk_list():
    return []


@pytest.fixture
def disk(disk_list):
    """disk(bytes, block=512) makes a block device of zeroes; with twin, one on another's file."""
    def make(size, block=512, twin=None):
        disk_list.append(disks.Disk(size, block, twin))
        return disk_list[-1]
    return make


@pytest.fixture
def recorder(disk_list):
    """recorder(bytes, ...) makes an nbd.Disk: one that can record what it is told, and fail to order."""
    def make(size, **options):
        disk_list.append(nbd.Disk(size, **options))
        return disk_list[-1]
    return make


@pytest.fixture
def devices():
    """Mapped devices that the test makes with devices(name, table), removed at its end, the last first."""
    made = []

    def make(name, table=None):
        made.append(dm.Device(name, table))
        return made[-1]

    yield make
    for device in reversed(made):
        if device.name in dm.names():
            device.remove()


@pytest.fixture
def mapped(disk, devices):
    """mapped(name, bytes) makes a Mapped: a disk behind a table that can fail or be slow."""
    return lambda name, size: disks.Mapped(disk(size), devices(name))


@pytest.fixture
def origin(disk, devices):
    """origin(bytes) makes an origin with random content: a Volume, with that content as `content`."""
    made = []

    def make(size, block=512, name="origin", target=None):
        target = target or disk(size, block)
        content = os.urandom(size)
        target.write(0, content)
        made.append(volume.Volume(target, name))
        made[-1].content = content
        return made[-1].activate()

    yield make
    for one in reversed(made):
        one.deactivate()


@pytest.fixture
def snapshot(origin, disk):
    """snapshot(...) makes an origin and one snapshot of it."""
    def make(origin_bytes, cow_bytes, chunk=8, options="P", cow=None, target=None):
        one = origin(origin_bytes, target=target)
        return one, one.snapshot(cow or disk(cow_bytes), chunk, options)
    return make


@pytest.fixture
def writer(origin):
    """writer(depth, size) makes an aio.Writer; at the test's end it lets go of the devices before they are removed."""
    made = []

    def make(depth, size):
        made.append(aio.Writer(depth, size))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def free_memory():
    """Called, says how much memory is free, in bytes."""
    return lambda: meminfo.read()["MemAvailable"]

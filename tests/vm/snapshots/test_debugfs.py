# SPDX-License-Identifier: GPL-2.0-only
"""What is to be seen below debugfs: the targets' figures, or those of our store under the C core, as long as a snapshot or
an origin is there, however its table is changed, and for root alone."""

import errno
import os
import stat
import threading
import time

import cow
import disks
import merge
import module
import pytest

GUEST = "snapshots"
STORES = ["rust"]
CHUNK = 8
BYTES = CHUNK * 512
ROOT = "/sys/kernel/debug/" + {"rust": "dm-snapshot", "c": "dm-snap-persistent"}[module.CORE]


def shown():
    """The directories that there are."""
    return set(os.listdir(ROOT)) if os.path.exists(ROOT) else set()


def names(volume):
    """The directories that there are to be."""
    cows = {f"cow-{snap.cow.number}" for snap in volume.snapshots}
    return cows | {f"origin-{volume.disk.number}"} if module.CORE == "rust" else cows


def path(name):
    return f"{ROOT}/{name}/stats"


def text(name):
    with open(path(name)) as file:
        return file.read()


def figures(name):
    return {key: int(value) for key, value in (line.split(" ") for line in text(name).splitlines())}


@pytest.fixture(autouse=True)
def nothing_left():
    assert not shown()
    yield
    assert not os.path.exists(ROOT), shown()


def test_who_may_read_it(origin, disk):
    volume = origin(64 * BYTES)
    for _ in range(2):
        volume.snapshot(disk(64 * BYTES), CHUNK)
    assert shown() == names(volume)
    for name in shown():
        assert os.listdir(f"{ROOT}/{name}") == ["stats"]
        state = os.stat(path(name))
        assert (state.st_uid, state.st_gid, stat.S_IMODE(state.st_mode)) == (0, 0, 0o400)
        with open(path(name), "wb", buffering=0) as file, pytest.raises(OSError):
            file.write(b"reset")
    volume.drop(volume.snapshots.pop())
    assert shown() == names(volume)


@pytest.mark.rust_core
def test_it_is_what_the_message_says(origin, disk):
    volume = origin(256 * BYTES)
    snaps = [volume.snapshot(disk(size * BYTES), CHUNK, options) for size, options in ((300, "P"), (300, "N"), (20, "P"))]
    for chunk in range(50):
        disks.write(volume.path, chunk * BYTES, b"\x11" * 512)
    assert snaps[2].status() == "Invalid"
    for snap in snaps:
        assert text(f"cow-{snap.cow.number}") == snap.device.message("stats")
    assert text(f"origin-{volume.disk.number}") == volume.device.message("stats")
    assert figures(f"cow-{snaps[0].cow.number}")["exceptions"] == 50
    assert figures(f"origin-{volume.disk.number}")["origin_copies"] == 50


@pytest.mark.c_core
def test_what_the_store_knows(snapshot):
    volume, snap = snapshot(256 * BYTES, 300 * BYTES, CHUNK)
    name = f"cow-{snap.cow.number}"
    assert figures(name) == {"chunk_sectors": CHUNK, "cow_sectors_used": snap.usage()[0], "records": 0, "commits": 0,
                             "committed": 0}
    for chunk in range(50):
        disks.write(volume.path, chunk * BYTES, b"\x11" * 512)
    found = figures(name)
    assert found["records"] == found["committed"] == len(cow.Cow(snap.cow.read()).check()) == 50
    assert 0 < found["commits"] <= 50 and found["cow_sectors_used"] == snap.usage()[0] == 52 * CHUNK
    snap.handover()
    assert figures(name) == found


def test_whatever_becomes_of_the_table(snapshot):
    volume, snap = snapshot(256 * BYTES, 300 * BYTES, CHUNK)
    name = f"cow-{snap.cow.number}"
    for chunk in range(0, 20, 2):
        disks.write(volume.path, chunk * BYTES, b"\x11" * 512)
    records = figures(name)["records"]
    assert records == 10
    with open(path(name)) as file:
        # a table that is never resumed, and one that is refused
        snap.device.load(snap.line())
        assert shown() == names(volume)
        snap.device.clear()
        snap.device.load(snap.line())
        with pytest.raises(OSError):
            volume.snapshot(snap.cow, CHUNK, name="second")
        snap.device.suspend()
        assert file.read() == text(name), "it can be read while the device is suspended"
        snap.device.resume()
        volume.device.suspend()
        volume.device.resume()
        snap.device.rename("other")
        snap.device.rename(snap.name)
        assert shown() == names(volume) and figures(name)["records"] == records
        # it is handed over to a table of the origin's, which merges it
        snap.device.suspend()
        volume.merge(snap)
        volume.drop(snap)
        merge.wait_done(volume)
        file.seek(0)
        assert "records 0\n" in file.read()
        assert shown() == names(volume)
    volume.snapshots.clear()


def test_one_that_cannot_be_loaded(origin, disk):
    volume, device = origin(64 * BYTES), disk(64 * BYTES)
    device.write(0, b"nonsense" * 64)
    with pytest.raises(OSError):
        volume.snapshot(device, CHUNK)
    assert shown() == names(volume)


def test_a_file_that_is_open_when_its_device_goes(snapshot):
    volume, snap = snapshot(64 * BYTES, 64 * BYTES, CHUNK)
    files = [open(path(name), "rb", buffering=0) for name in sorted(names(volume))]
    assert all(file.read(10) for file in files)
    volume.deactivate()
    volume.snapshots.clear()
    for file in files:
        for seek in True, False:
            with pytest.raises(OSError) as caught:
                file.seek(0) if seek else file.read(10)
            assert caught.value.errno == errno.EIO
    # what would be called when they are closed must be there
    for file in files:
        with pytest.raises(OSError) as caught:
            module.unload()
        assert caught.value.errno in (errno.EBUSY, errno.EAGAIN)
        file.close()
    module.unload_patiently()
    module.load()


def test_reading_while_they_come_and_go(expedited, origin, disk):
    volume = origin(64 * BYTES)
    devices = [disk(64 * BYTES) for _ in range(3)]
    over, seen, failures = threading.Event(), set(), []

    def read():
        while not over.is_set():
            try:
                for name in shown():
                    seen.update(line.split()[0] for line in text(name).splitlines())
            except Exception as e:  # also what else there may be: this thread would end unheard
                if not isinstance(e, OSError) or e.errno not in (errno.ENOENT, errno.EIO):
                    failures.append(e)
            time.sleep(0.001)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(8):
            for device in devices:
                device.write(0, bytes(512))
                volume.snapshot(device, CHUNK)
            disks.write(volume.path, 0, b"\x11" * 4 * BYTES)
            for snap in volume.snapshots:
                snap.handover()
            volume.deactivate()
            volume.snapshots.clear()
            volume.activate()
            assert shown() == names(volume)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not failures and {"records", "commits", "chunk_sectors"} <= seen

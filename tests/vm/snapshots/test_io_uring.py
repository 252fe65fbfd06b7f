# SPDX-License-Identifier: GPL-2.0-only
"""What io_uring asks for without waiting is carried out at once: reads, and writes that nothing has to be copied for. Else it
hands them to a thread, as with C's targets each of them; the kernel's own event counts those."""

import disks
import module
import pytest
import tracing
import uring

GUEST = "snapshots"
CHUNK = 8
BYTES = CHUNK * 512
DEPTH = 32


@pytest.fixture
def handed_on():
    """handed_on(path, operation, offsets): how many of these requests a thread carried out."""
    ring = uring.Ring(DEPTH, BYTES)
    events = tracing.Events("io_uring/io_uring_queue_async_work")

    def run(path, operation, offsets):
        events.take()
        assert ring.run(path, operation, offsets) == [BYTES] * len(offsets)
        return len(events.take())

    yield run
    events.close()
    ring.close()


def test_what_need_not_wait(handed_on, snapshot):
    volume, snap = snapshot(256 * BYTES, 300 * BYTES, CHUNK)
    for chunk in range(0, 2 * DEPTH, 2):
        disks.write(volume.path, chunk * BYTES, b"\x11" * BYTES)
    covered = [chunk * BYTES for chunk in range(0, 2 * DEPTH, 2)]
    others = [(chunk + 1) * BYTES for chunk in range(0, 2 * DEPTH, 2)]
    found = {
        "reads of the COW device": handed_on(snap.path, uring.READ, covered),
        "reads of the origin": handed_on(snap.path, uring.READ, others),
        "reads of both": handed_on(snap.path, uring.READ, (covered + others)[DEPTH // 2:][:DEPTH]),
        "covered writes": handed_on(volume.path, uring.WRITE, covered),
        "writes to the COW device": handed_on(snap.path, uring.WRITE, covered),
    }
    # C's origin takes none either
    assert set(found.values()) == {0 if module.CORE == "rust" else DEPTH}, found
    # or nothing was counted
    assert handed_on(volume.path, uring.WRITE, others) == DEPTH
    assert snap.usage()[0] == (2 + 2 * DEPTH) * CHUNK

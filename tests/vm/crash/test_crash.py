# SPDX-License-Identifier: GPL-2.0-only
"""The machine crashes, at every moment, and the disks lose and tear what they had not been made to keep.

A workload runs on disks that record it. What they would hold after a crash is then made of the log, again and again:
replay.py says which states a crash can leave, verify.py what must hold in each.

POINTS in the environment makes more of it: 530 is what it is without, and from 2000 on the workloads are long ones,
too. SEED chooses others. `make crash` sets them.
"""

import os

import cow
import merge
import module
import nbd
import pytest
from figures import stats
import replay
from expected import Anything
from recording import Recording
from several import Several
from verify import Verifier

CPUS = 1
TOOLS = True
TIMEOUT = 3000
STORES = ["rust", "c"]

QUICK = 530
POINTS = int(os.environ.get("POINTS", QUICK))
SEED = int(os.environ.get("SEED", "1"))
LONG = POINTS >= 2000


def share(points):
    """So many of the quick set."""
    return points * POINTS // QUICK


pytestmark = pytest.mark.usefixtures("expedited")


@pytest.fixture
def record(recorder, disk):
    made = []

    def make(*arguments, **options):
        made.append(Recording(recorder, disk, SEED, *arguments, **options))
        return made[-1]

    yield make
    for recording in made:
        recording.crashed.close()


def test_the_states_that_a_crash_can_leave():
    """By hand: two writes, of which one is flushed; one with FUA over half of it; and zeroes."""
    log = nbd.Log()
    cow_disk, origin = "cow", "origin"

    def op(disk, kind, offset, data, length=0, fua=False):
        log.ops.append(nbd.Op(disk, kind, offset, length or len(data), data, fua, b""))
        log.ops[-1].arrived, log.ops[-1].replied = log.mark(), log.mark()

    op(cow_disk, "write", 0, b"A" * 1024)
    op(origin, "write", 0, b"o" * 512)
    op(cow_disk, "flush", 0, b"")
    op(cow_disk, "write", 512, b"B" * 512, fua=True)
    op(cow_disk, "zeroes", 1024, None, 512)
    found = {}
    for policy in replay.POLICIES:
        for seed in range(60):
            images = {cow_disk: bytearray(b"x" * 1536), origin: bytearray(b"y" * 512)}
            log_again = replay.Replay(log, images)
            for time in range(log.now + 1):
                log_again.advance(time)
                before = [bytes(image) for image in images.values()]
                with log_again.crashed(replay.Point(time, policy, seed)):
                    state = images[cow_disk][::512].decode() + images[origin][::512].decode()
                    found.setdefault(time, set()).add(state.replace("\0", "0"))
                assert [bytes(image) for image in images.values()] == before
    torn = {"xxxy", "Axxy", "xAxy", "AAxy"}
    both = torn | {state[:3] + "o" for state in torn}
    assert [found[time] for time in range(log.now + 1)] == [
        {"xxxy"}, torn, torn, both, both, both, {"AAxy", "AAxo"}, {"AAxy", "AAxo", "ABxy", "ABxo"}, {"ABxy", "ABxo"},
        {"ABxy", "ABxo", "AB0y", "AB0o"}, {"ABxy", "ABxo", "AB0y", "AB0o"}]


# The C store writes the header first and the area after it, neither durably.
@pytest.mark.rust_only
@pytest.mark.parametrize("block", [512, 4096])
def test_creation(record, writer, block):
    """A snapshot is there or not, on a device that is full of what was there before."""
    recording = record(8, 64 * 4096, 80 * 4096, block=block)
    recording.used_cow()
    recording.create()
    recording.close(writer(1, 4096))
    verifier = Verifier(recording, SEED)
    verifier.run(f"creation, {block}", share(20), verifier.look_at_snapshot)


@pytest.mark.rust_only
@pytest.mark.parametrize("block", [512, 4096])
def test_fill_4k(record, writer, block):
    """Both sides are written, many at a time, across the ends of areas: one, or 20 in the long set."""
    count = 20 * 256 + 40 if LONG else 256 + 24
    recording = record(8, (count + 20) * 4096, (count + 60) * 4096, block=block)
    recording.used_cow()
    recording.create()
    aio = writer(32, 4096)
    recording.fill(aio, recording.mixture(count))
    assert recording.snapshot.usage() == (8 * (2 + count + count // 256), recording.cow.sectors, 8 * (2 + count // 256))
    recording.close(aio)
    verifier = Verifier(recording, SEED)
    verifier.run(f"fill, 4 KiB chunks, {block}", share(100), verifier.look_at_snapshot)


# The C store writes back what it read behind the end of the list.
@pytest.mark.rust_only
def test_torn_records(record, writer):
    """Many records are written at once, and the write is torn: what is left of it behind the end of the list must not
    come to life when the snapshot is used on."""
    recording = record(8, 500 * 4096, 540 * 4096)
    recording.used_cow()
    recording.create()
    aio = writer(100, 4096)
    recording.fill(aio, recording.mixture(200), snapshot_share=0, flushes=0)
    recording.close(aio)
    # data is written with FUA, too
    torn = [op for op in recording.log.ops
            if op.fua and recording.is_metadata(op) and op.length > 512 and op.arrived > recording.created]
    assert torn, "no commit wrote more than a sector"
    # most is left of the longest; a few points may by chance leave nothing where it is looked for
    torn.sort(key=lambda op: op.length, reverse=True)
    count = max(share(20), 40)
    # the last of these leaves something behind the end of the list, unless another had written it by then
    how = ["the last torn", "each, torn, or not", "the last without its first sector"]
    points = [replay.Point(torn[n % len(torn)].replied - 1, how[n % len(how)], SEED + n)
              for n in range(count)]
    verifier = Verifier(recording, SEED)
    verifier.visit("torn records", sorted(points), verifier.look_at_snapshot)
    assert verifier.stale, "nothing was behind the end of the list"


def prefilled(record, areas, chunk):
    """A snapshot whose list ends just before the end of its `areas`-th area; before that, all is zero on both sides."""
    layout = cow.Layout(chunk)
    rest, room = 9, 32
    records = areas * layout.per_area - rest
    *news, new = layout.data_chunks(records + 1)
    recording = record(chunk, (records + room) * layout.bytes, (new + room + 3) * layout.bytes,
                       start=records * layout.bytes)
    header = bytearray(512)
    cow.HEADER.pack_into(header, 0, cow.MAGIC, 1, 1, chunk)
    recording.used_cow(new * layout.bytes)
    recording.put(recording.cow, 0, header)
    for area in range(areas):
        content = bytearray(layout.bytes)
        first = area * layout.per_area
        for n, pair in enumerate(enumerate(news[first:first + layout.per_area], first)):
            cow.RECORD.pack_into(content, n * cow.RECORD.size, *pair)
        recording.put(recording.cow, layout.area_chunk(area) * layout.bytes, content)
    return recording, records


@pytest.mark.parametrize("areas", range(1, 22) if LONG else [1, 2])
def test_fill_64k(record, writer, areas):
    """Across the end of the first area, the second, …: the records before were made without a kernel, of zeroes."""
    recording, records = prefilled(record, areas, 128)
    recording.create()
    recording.created = 0
    aio = writer(8, 65536)
    recording.fill(aio, recording.mixture(24, first=records))
    recording.close(aio)
    verifier = Verifier(recording, SEED)
    verifier.run(f"fill, 64 KiB chunks, area {areas}", share(70) // (21 if LONG else 2), verifier.look_at_snapshot)


def lose(record, writer, name, step, room, fail=None):
    """The snapshot is lost: the COW device is full, or something fails; and the origin is written on."""
    chunks = 96
    recording = record(8, chunks * 4096, (2 + room) * 4096)
    recording.rng.seed(SEED + step)
    recording.used_cow()
    recording.create()
    aio = writer(12, 4096)
    order = recording.mixture(chunks)
    recording.fill(aio, order[:8])
    recording.lost = recording.log.mark()
    if fail:
        recording.cow.fail(*fail)
    recording.fill(aio, order[8:], snapshot_share=0)
    assert recording.snapshot.status() == "Invalid"
    recording.close(aio)
    verifier = Verifier(recording, SEED + step)
    verifier.run(f"{name}, {step}", share(40) // len(ROUNDS), verifier.look_at_snapshot)


# the long set has other seeds and circumstances, too
ROUNDS = range(max(POINTS // QUICK // 4, 1))


@pytest.mark.rust_only
@pytest.mark.parametrize("step", ROUNDS)
def test_overflow(record, writer, step):
    lose(record, writer, "overflow", step, 24 + step)


@pytest.mark.rust_only
@pytest.mark.parametrize("step", ROUNDS)
@pytest.mark.parametrize("kind", ["write", "flush"])
def test_failure(record, writer, kind, step):
    lose(record, writer, f"failed {kind}", step, 120, (kind, 1 + step if kind == "flush" else 3 + 5 * step))


class Narrow:
    """The first `size` bytes of a recorded disk, as a device that can be extended."""

    def __init__(self, devices, disk, size):
        self.disk = disk
        self.device = devices("narrow", self.table(size))
        self.path = self.device.path

    def table(self, size):
        return [(0, size // 512, "linear", f"{self.disk.path} 0")]

    def extend(self, snapshot, size):
        """As LVM does it."""
        snapshot.device.suspend()
        self.device.reload(self.table(size))
        snapshot.handover()


@pytest.mark.rust_core
@pytest.mark.parametrize("step", ROUNDS)
def test_kept(record, writer, devices, step):
    """The COW device is full, again and again: the snapshot is kept and what it has no room for is refused, until the COW
    device is extended. Crashes in between leave it valid, and of what was refused nothing."""
    chunks = 96
    recording = record(8, chunks * 4096, (chunks + 20) * 4096)
    recording.rng.seed(SEED + step)
    recording.used_cow()
    narrow = Narrow(devices, recording.cow, (24 + step) * 4096)
    recording.create(narrow)
    recording.snapshot.device.message("overflow keep")
    aio = writer(12, 4096)
    order = recording.mixture(chunks)
    recording.fill(aio, order[:8])
    for room in (40 + step, 70, chunks + 20):
        assert recording.fill(aio, order, snapshot_share=0, full=True) > 0
        assert recording.snapshot.status() == "Overflow"
        aio.release()
        narrow.extend(recording.snapshot, room * 4096)
    recording.fill(aio, order)
    assert recording.snapshot.usage()[0] == (chunks + 2) * 8
    recording.close(aio)
    verifier = Verifier(recording, SEED + step)
    verifier.run(f"kept, {step}", share(40) // len(ROUNDS), verifier.look_at_snapshot)


# chunk sizes in sectors, and one whose COW device is too small, if any
SEVERAL = [((8, 32), None), ((16, 16, 4), None), ((4, 8, 8, 64), None), ((8, 16, 8), 2)]


@pytest.mark.rust_only
@pytest.mark.parametrize("chunks,small", SEVERAL, ids=lambda value: str(value))
def test_several(recorder, disk, writer, chunks, small):
    """Snapshots of several chunk sizes, made one after the other while the origin is written, and written themselves;
    with `small`, that one overflows."""
    size = 1 << 20
    rooms = [6 if n == small else size // 512 // chunk + 40 for n, chunk in enumerate(chunks)]
    several = Several(recorder, disk, SEED, chunks, rooms, size)
    try:
        aio = writer(16, several.MOST)
        written = []
        for number, one in enumerate(several.all):
            several.create(number)
            if number == small:
                one.lost = one.created
            else:
                written.append(number)
            several.fill(aio, 40, written)
        several.fill(aio, 120, written)
        assert [one.snapshot.status() == "Invalid" for one in several.all] == [n == small for n in range(len(chunks))]
        several.close(aio)
        for number, one in enumerate(several.all):
            verifier = Verifier(one, SEED + number)
            verifier.run(f"several, {chunks}, {number}", share(16), verifier.look_at_snapshot, begin=one.created)
    finally:
        for one in several.all:
            one.crashed.close()


@pytest.mark.rust_only
@pytest.mark.rust_core
@pytest.mark.parametrize("chunk", [8, 32])
def test_ahead(record, writer, chunk):
    """Chunks are copied ahead of one who writes to the origin in sequence; others write, too, to both sides."""
    size, step = 4 << 20, 64 << 10
    recording = record(chunk, size, 3 * size)
    recording.used_cow()
    recording.create()
    aio = writer(8, step)
    module.copy_ahead(True)
    try:
        at = 0
        while at < size * 3 // 4:
            batch = []
            for _ in range(recording.rng.randint(1, 3)):
                batch.append(("origin", at, recording.rng.randbytes(step)))
                at += step
            others = range((at + size // 8) // recording.bytes, size // recording.bytes)
            for where in ("origin", "snapshot"):
                if recording.rng.random() < 0.4:
                    batch.append((where, *recording.piece(recording.rng.choice(others))))
            recording.write(aio, batch)
            if recording.rng.random() < 0.15:
                recording.flush(recording.rng.choice(["origin", "snapshot"]))
    finally:
        module.copy_ahead(False)
    assert stats(recording.volume.device)["origin_ahead_used"] > size // 2 // 512
    recording.close(aio)
    verifier = Verifier(recording, SEED)
    verifier.run(f"ahead, {chunk * 512}", share(30), verifier.look_at_snapshot)


@pytest.fixture
def stacks():
    """Who takes up what a crash left: what the guest has, and the C core with its own store."""
    own = module.stack()
    yield [own, "c"] if own != "c" else [own]
    module.choose(own)


# what fails, and how many of it a merge by batches has at least
FAULTS = [("cow", "read", 60), ("origin", "write", 60), ("origin", "flush", 2), ("cow", "write", 2)]


@pytest.mark.parametrize("step", ROUNDS)
@pytest.mark.parametrize("how", ["idle", "written", "suspended", "beside another", "failing"])
def test_merge(record, writer, stacks, how, step):
    """The machine crashes while a snapshot is merged: of an idle origin, or of one that is written, suspended and resumed
    meanwhile, or has another snapshot; or after the merge failed. It is taken up again, by the C core as well."""
    chunks = 500
    recording = record(8, chunks * 4096, (chunks + 40) * 4096)
    recording.rng.seed(SEED + step)
    other = record(16, chunks * 4096, (chunks + 40) * 4096, beside=recording) if how == "beside another" else None
    recording.used_cow()
    recording.create()
    aio = writer(16, 4096)
    recording.fill(aio, recording.mixture(chunks - 20), snapshot_share=0.3)
    aio.release()
    recording.flush("snapshot")
    if other:
        recording.flush("origin")
        other.create_beside(recording)
        # in the middle of a merge it is neither one thing nor the other
        other.expected["origin"] = Anything()
    recording.volume.drop(recording.snapshot)
    begin = recording.log.mark()
    # before it begins: that takes as long as a merge
    records = cow.Cow(recording.cow.read()).records()
    if how in ("written", "suspended", "beside another"):
        # so slow that there is something to be met
        merge.THROTTLE.write_text("10")
        recording.origin.linger = recording.cow.linger = 0.005
    if how == "failing":
        recording.snapshot.target = "snapshot-merge"
        recording.volume.device.load(recording.snapshot.line())
        where, kind, count = FAULTS[step % len(FAULTS)]
        {"cow": recording.cow, "origin": recording.origin}[where].fail(kind, 1 + step // len(FAULTS) % count)
        recording.volume.device.suspend()
        recording.volume.device.resume()
        merge.wait_failed(recording.volume)
        recording.origin.mend()
        recording.cow.mend()
        recording.volume.device.remove()
        merge.activate(recording.volume, recording.snapshot)
    else:
        recording.volume.merge(recording.snapshot)
    batches = 0
    while how not in ("idle", "failing") and not merge.is_done(recording.volume):
        batches += 1
        # what was merged last, whose record is the first that a crash could bring back
        allocated, metadata = merge.state(recording.volume)
        left = min((allocated - metadata) // recording.chunk, len(records) - 1)
        recording.write_through(*recording.piece(records[left][0]))
        batch = [("origin", *recording.piece(chunk)) for chunk in recording.rng.sample(range(chunks), 12)]
        recording.write(aio, batch, merging=True)
        if recording.rng.random() < 0.3:
            recording.flush("origin", merging=True)
        if how == "suspended":
            aio.release()
            recording.volume.device.suspend()
            recording.volume.device.resume()
    assert batches or how in ("idle", "failing"), "it was over before anything was written"
    merge.THROTTLE.write_text("100")
    merge.wait_done(recording.volume)
    recording.close(aio)
    recording.volume.snapshots.clear()
    for number, stack in enumerate(stacks):
        module.choose(stack)
        seed = SEED + step + 1000 * number
        count = share(16) // len(ROUNDS) // len(stacks)
        recording.rewind()
        verifier = Verifier(recording, seed)
        verifier.run(f"merge, {how}, {step}, {stack}", count, verifier.look_at_merge, begin=begin)
        if other:
            other.rewind()
            verifier = Verifier(other, seed)
            verifier.run(f"beside a merge, {step}, {stack}", count, verifier.look_at_snapshot, begin=begin)

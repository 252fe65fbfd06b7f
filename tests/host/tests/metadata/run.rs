// SPDX-License-Identifier: GPL-2.0-only

//! A snapshot's life on a simulated disk, and what must be true of it.

use crate::disk::{Image, Random, SimDisk};
use host_tests::format::{Exception, Geometry, Header};
use host_tests::platform::Host;
use host_tests::store::metadata::{load, Allocator, Committer, DeviceInfo, Disk, Loaded};
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

const ORIGIN_SECTORS: u64 = 1 << 45;

/// How a world begins.
#[derive(Clone, Debug)]
pub struct Setup {
    pub chunk_sectors: u32,
    pub physical_block: u32,
    pub cow_chunks: u64,
}

/// What happens in it.
#[derive(Clone, Debug)]
pub enum Op {
    /// `n` more chunks are to be copied; all that are under way are done, or half of them.
    Copy { n: u8, all: bool },
    /// A copy fails.
    CopyFails,
    /// The power goes, now or amid a write to come.
    PowerCut { seed: u64, now: bool },
    /// The snapshot is deactivated and activated again.
    Reload,
    /// The C store has the snapshot, adds `n` exceptions, and perhaps the power goes.
    CStore { n: u8, seed: u64 },
    /// Up to `n` runs are merged, and then the merge is called off.
    Merge { n: u8 },
    /// The last records are merged as batches of `most` at most, each while the one before it, `skip`
    /// records long, is still there; then the merge is called off.
    MergeBatch { most: u16, skip: u8 },
    /// I/O fails, after `after` more.
    FailIo { after: u8 },
    /// The snapshot is dropped.
    Drop,
    /// The COW device grows.
    Extend { chunks: u16 },
}

/// A snapshot in use.
struct Active {
    committer: Committer<Vec<u8>>,
    allocator: Allocator,
    /// Copied or being copied, in the order handed out.
    pending: VecDeque<Exception>,
    /// Committed, with no outcome yet.
    waiting: Vec<Exception>,
    /// Copies that the first of them may still wait for.
    awaited: u64,
    /// Whether records were added since it was activated.
    added: bool,
    /// Whether all was merged, and nothing was copied since.
    empty: bool,
}

/// A disk, the snapshot on it, and what was promised.
pub struct World {
    setup: Setup,
    disk: SimDisk,
    active: Active,
    /// Exceptions acknowledged and not merged: new chunks by old ones.
    acked: BTreeMap<u64, u64>,
    /// The new chunks of all exceptions that may be on the disk.
    used: HashSet<u64>,
    next_old: u64,
}

/// The data that the copy of `old` leaves in the first sector of its new chunk.
fn data_of(old: u64) -> [u8; 512] {
    let mut data = [0xda; 512];
    data[..8].copy_from_slice(&old.to_le_bytes());
    data
}

/// Whether its data is written to stable storage.
fn is_stable(e: Exception) -> bool {
    e.old % 8 < 5
}

impl World {
    pub fn new(setup: Setup) -> Self {
        let disk = SimDisk::new(setup.cow_chunks * u64::from(setup.chunk_sectors));
        let (active, found) = Self::activate(&setup, &disk).expect("a new snapshot");
        assert!(found.is_empty(), "a new snapshot is empty");
        Self {
            setup,
            disk,
            active,
            acked: BTreeMap::new(),
            used: HashSet::new(),
            next_old: 0,
        }
    }

    /// Loads what is on `disk`; `None` if it is marked invalid.
    fn activate(setup: &Setup, disk: &SimDisk) -> Option<(Active, Vec<Exception>)> {
        let mut found = Vec::new();
        let info = |sectors| DeviceInfo {
            sectors,
            logical_block: 512,
            physical_block: setup.physical_block,
        };
        let mut add = |e| {
            found.push(e);
            Ok(())
        };
        let (cow, origin) = (info(disk.sectors()), info(ORIGIN_SECTORS));
        match load::<_, Host>(disk, cow, origin, setup.chunk_sectors, &mut add) {
            Ok(Loaded::Valid {
                geometry,
                list,
                next,
            }) => {
                let active = Active {
                    allocator: Allocator::new(geometry, next, list.records()),
                    committer: Committer::new(list),
                    pending: VecDeque::new(),
                    waiting: Vec::new(),
                    awaited: 0,
                    added: false,
                    empty: false,
                };
                Some((active, found))
            }
            Ok(Loaded::Invalid(_)) => None,
            Err(e) => panic!("what is on the disk does not load: {e:?}"),
        }
    }

    fn geometry(&self) -> Geometry {
        *self.active.allocator.geometry()
    }

    pub fn step(&mut self, op: Op) {
        match op {
            Op::Copy { n, all } => {
                self.start_copies(n);
                let left = if all {
                    0
                } else {
                    self.active.pending.len() / 2
                };
                self.finish_copies(left, true);
            }
            Op::CopyFails => {
                self.start_copies(1);
                self.finish_copies(0, false);
            }
            Op::PowerCut { seed, now: true } => self.reboot(self.disk.power_cut(seed)),
            Op::PowerCut { seed, now: false } => self.disk.arm(seed),
            Op::Reload => self.reload(),
            Op::CStore { n, seed } => self.c_store(n, seed),
            Op::Merge { n } => self.merge(n),
            Op::MergeBatch { most, skip } => self.merge_batch(most.into(), skip.into()),
            Op::FailIo { after } => self.disk.fail_after(u32::from(after)),
            Op::Drop => self.drop_snapshot(),
            Op::Extend { chunks } => {
                let sectors = u64::from(chunks) * u64::from(self.setup.chunk_sectors);
                self.disk.extend(sectors);
            }
        }
    }

    /// Hands out chunks for `n` copies, and copies.
    fn start_copies(&mut self, n: u8) {
        for i in 0..n {
            let Some((new, _)) = self.active.allocator.allocate(self.disk.sectors(), 1) else {
                // The snapshot overflows. What is under way ends first.
                self.finish_copies(0, true);
                self.drop_snapshot();
                return;
            };
            assert!(
                self.used.insert(new),
                "chunk {new} was handed out while in use"
            );
            if std::mem::take(&mut self.active.empty) {
                assert_eq!(new, Geometry::FIRST_DATA_CHUNK, "room was not given back");
            }
            // Mostly consecutive, so that there are runs to merge.
            self.next_old += if i % 7 == 6 { 3 } else { 1 };
            let at = self.geometry().chunks(new, 1).sector;
            let e = Exception {
                old: self.next_old,
                new,
            };
            self.disk.write_data(at, data_of(e.old), is_stable(e));
            self.active.pending.push_back(e);
        }
    }

    /// Commits what is pending, but for the last `left`.
    fn finish_copies(&mut self, left: usize, copied: bool) {
        while self.active.pending.len() > left {
            let Some(e) = self.active.pending.pop_front() else {
                return;
            };
            let active = &mut self.active;
            let pending = active.allocator.commit();
            assert_eq!(pending, active.pending.len() as u64);
            active.added = true;
            active.waiting.push(e);
            active.committer.list().resize(
                self.disk.sectors(),
                ORIGIN_SECTORS,
                self.setup.physical_block as usize,
            );
            if active.waiting.len() == 1 {
                active.awaited = pending;
            }
            let awaited = active.awaited;
            active.awaited = awaited.saturating_sub(1);
            // the caller may have no room for more
            let may_wait = active.waiting.len() < 20 && self.next_old % 11 != 0;
            let still = if may_wait { pending } else { 0 };
            let outcome =
                active
                    .committer
                    .commit(&self.disk, e, copied, is_stable(e), still, |_| {});
            if let Some(image) = self.disk.remains() {
                // The power went before anybody was told of the outcome.
                self.reboot(image);
                return;
            }
            match outcome {
                None => {
                    assert!(may_wait && pending > 0, "nobody would ever be called back");
                    assert!(
                        awaited > 0,
                        "it waits for a copy that began after it was done"
                    );
                }
                Some(true) => {
                    let records = active.committer.list().records();
                    let over = std::mem::take(&mut active.waiting);
                    active.allocator.committed(over.len() as u64, records);
                    for e in over {
                        self.acked.insert(e.old, e.new);
                    }
                }
                Some(false) => {
                    assert!(
                        !copied || self.disk.has_failed(),
                        "a commit failed for nothing"
                    );
                    // dm-snapshot drops the snapshot; what reaches the disk of that is chance.
                    let image = self.disk.power_cut(self.next_old);
                    self.reboot(image);
                    return;
                }
            }
        }
    }

    /// Starts over from what a power cut left on the disk, after checking it.
    fn reboot(&mut self, image: Image) {
        let maybe: Vec<_> = self.active.waiting.drain(..).collect();
        self.check(image, &maybe, &BTreeSet::new());
    }

    /// Loads `image` and goes on with it. All that was acknowledged must be there, but for the old
    /// chunks in `gone`, which may be gone, and nothing else, but for `maybe`.
    fn check(&mut self, image: Image, maybe: &[Exception], gone: &BTreeSet<u64>) {
        self.disk = SimDisk::holding(image, self.disk.sectors());
        let Some((active, found)) = Self::activate(&self.setup, &self.disk) else {
            panic!("the snapshot was not dropped, and is invalid");
        };
        self.active = active;
        let chunk = self.geometry();
        for e in &found {
            let known = self.acked.get(&e.old) == Some(&e.new) || maybe.contains(e);
            assert!(known, "{e:?} was never committed, or was merged");
            let data = self.disk.peek(chunk.chunks(e.new, 1).sector);
            assert_eq!(data, data_of(e.old), "{e:?} is there, its data is not");
        }
        let found: BTreeMap<_, _> = found.into_iter().map(|e| (e.old, e.new)).collect();
        for (old, new) in &self.acked {
            let there = found.get(old) == Some(new) || gone.contains(old);
            assert!(there, "{old} -> {new} was acknowledged, and is lost");
        }
        self.used = found.values().copied().collect();
        self.acked = found;
    }

    fn reload(&mut self) {
        self.finish_copies(0, true);
        if self.disk.has_failed() {
            return self.reboot(self.disk.power_cut(self.next_old));
        }
        if self.active.added {
            let image = self.disk.shut_down();
            assert!(self.tail_is_zero(&image), "the area's rest is not zero");
        }
        self.shut_down();
    }

    /// Whether nothing follows the end of the list in its area.
    fn tail_is_zero(&self, image: &Image) -> bool {
        let geometry = self.geometry();
        let records = self.acked.len() as u64;
        let Some(area) = geometry.area_chunk(geometry.area_of(records)) else {
            return true;
        };
        let first = geometry.index_in_area(records) as usize * Exception::BYTES;
        let area = geometry.chunks(area, 1);
        let bytes = (area.sector..area.sector + area.sectors).flat_map(|at| image.sector(at));
        bytes.skip(first).all(|byte| byte == 0)
    }

    fn merge(&mut self, n: u8) {
        self.finish_copies(0, true);
        for _ in 0..n {
            let active = &mut self.active;
            active.committer.list().resize(
                self.disk.sectors(),
                ORIGIN_SECTORS,
                self.setup.physical_block as usize,
            );
            let run = match active.committer.list().last_run(&self.disk) {
                Ok(Some(run)) => run,
                Ok(None) => {
                    assert!(self.acked.is_empty(), "the merge ended early");
                    return;
                }
                Err(_) => return self.merge_failed(&BTreeSet::new()),
            };
            // Fewer than there are may be merged.
            let count = run.count.min(1 + u32::from(n));
            let mut gone = BTreeSet::new();
            for i in 0..u64::from(run.count) {
                let (old, new) = (run.last.old - i, run.last.new - i);
                assert_eq!(
                    self.acked.get(&old),
                    Some(&new),
                    "{old} is not there to merge"
                );
                if i < u64::from(count) {
                    gone.insert(old);
                }
            }
            let result = active.committer.list().remove_last(&self.disk, count);
            if let Some(image) = self.disk.remains() {
                return self.check(image, &[], &gone);
            }
            if result.is_err() {
                return self.merge_failed(&gone);
            }
            let records = active.committer.list().records();
            active.allocator.set_merged(records);
            active.empty = records == 0;
            for old in &gone {
                let new = self.acked.remove(old);
                self.used.remove(&new.unwrap_or_default());
            }
            assert_eq!(records, self.acked.len() as u64);
            let (used, metadata) = (
                active.allocator.allocated_chunks(),
                active.allocator.metadata_chunks(),
            );
            assert_eq!(
                used == metadata,
                self.acked.is_empty(),
                "when LVM ends a merge"
            );
        }
    }

    /// The last records, the last one first, without the last `skip`; `None` if they cannot be read.
    fn last(&mut self, skip: u64, most: u32) -> Option<Vec<Exception>> {
        let list = self.active.committer.list();
        let mut found = Vec::new();
        match list.last(&self.disk, skip, most, |e| found.push(e)) {
            Ok(()) => Some(found),
            Err(_) => None,
        }
    }

    fn merge_batch(&mut self, most: u32, skip: u64) {
        self.finish_copies(0, true);
        self.active.committer.list().resize(
            self.disk.sectors(),
            ORIGIN_SECTORS,
            self.setup.physical_block as usize,
        );
        // New chunks ascend, in these lists.
        let mut all: Vec<_> = self.acked.iter().map(|(old, new)| (*new, *old)).collect();
        all.sort_unstable();
        let Some(ahead) = self.last(skip, most) else {
            return self.merge_failed(&BTreeSet::new());
        };
        let left = all.len().saturating_sub(skip as usize);
        assert_eq!(ahead.is_empty(), left == 0, "whether the list has more");
        let expected = all[..left].iter().rev().take(most as usize);
        assert!(
            ahead.len() <= most as usize
                && ahead
                    .iter()
                    .zip(expected)
                    .all(|(e, (new, old))| (e.new, e.old) == (*new, *old)),
            "{ahead:?} is not what comes before the last {skip} of {all:?}"
        );
        let Some(batch) = self.last(0, most) else {
            return self.merge_failed(&BTreeSet::new());
        };
        let count = batch.len();
        let gone: BTreeSet<u64> = all[all.len() - count..]
            .iter()
            .map(|(_, old)| *old)
            .collect();
        // CAST: At most `most`.
        let result = self
            .active
            .committer
            .list()
            .remove_last(&self.disk, count as u32);
        if let Some(image) = self.disk.remains() {
            self.check(image, &[], &gone);
            return self.check_cleared(all.len() as u64);
        }
        if result.is_err() {
            return self.merge_failed(&gone);
        }
        let records = self.active.committer.list().records();
        self.active.allocator.set_merged(records);
        self.active.empty = records == 0;
        for old in &gone {
            let new = self.acked.remove(old);
            self.used.remove(&new.unwrap_or_default());
        }
        assert_eq!(records, self.acked.len() as u64);
        // What is there is what was not merged.
        let Some(rest) = self.last(0, u32::MAX) else {
            return self.merge_failed(&BTreeSet::new());
        };
        let rest: BTreeMap<u64, u64> = rest.iter().map(|e| (e.old, e.new)).collect();
        assert_eq!(rest, self.acked);
    }

    /// The power went while records were cleared, of which there were `before`: from the last window
    /// on, so that nothing is left behind the one that the list ends in.
    fn check_cleared(&self, before: u64) {
        let geometry = self.geometry();
        let ends_in = geometry.window_of(self.acked.len() as u64);
        let last = geometry.window_of(before.saturating_sub(1));
        for window in ends_in + 1..=last {
            let extent = geometry.window(window).expect("it held records");
            // What a torn write has left behind the list stays: an area is zeroed before it is used.
            let most = u64::from(geometry.records_per_window());
            let records = (before - window * most).min(most);
            let sectors = (records * Exception::BYTES as u64).div_ceil(512);
            for sector in extent.sector..extent.sector + sectors {
                let zero = self.disk.peek(sector).iter().all(|byte| *byte == 0);
                assert!(zero, "window {window} is left, the list ends in {ends_in}");
            }
        }
    }

    fn merge_failed(&mut self, gone: &BTreeSet<u64>) {
        assert!(self.disk.has_failed(), "a merge failed for nothing");
        let image = self.disk.power_cut(self.next_old);
        self.check(image, &[], gone);
    }

    fn drop_snapshot(&mut self) {
        self.active.allocator.drop_snapshot();
        assert_eq!(self.active.allocator.allocate(u64::MAX, 1), None);
        let header = Header {
            valid: false,
            chunk_sectors: self.setup.chunk_sectors,
        };
        let result = self.disk.write_header(header);
        let remains = self.disk.remains();
        if result == Ok(()) && remains.is_none() {
            let image = self.disk.power_cut(self.next_old);
            let disk = SimDisk::holding(image, self.disk.sectors());
            let activated = Self::activate(&self.setup, &disk);
            assert!(activated.is_none(), "a dropped snapshot is valid again");
        }
        *self = Self::new(self.setup.clone());
    }

    /// What the C store does when it has the device: it adds to a copy of the whole area, and
    /// writes that back whole.
    fn c_store(&mut self, n: u8, seed: u64) {
        self.reload();
        let image = self.disk.shut_down();
        if !self.tail_is_zero(&image) {
            // Left by a torn write of its own: it would bring the rest to life.
            return;
        }
        let mut random = Random(seed);
        let geometry = self.geometry().resized(self.disk.sectors(), ORIGIN_SECTORS);
        let mut next = self.active.allocator.allocated_chunks();
        let mut left = u64::from(n);
        while left > 0 {
            // As many records as are written together: all in one area.
            let records = self.acked.len() as u64;
            let first = u64::from(geometry.index_in_area(records));
            let room = u64::from(geometry.exceptions_per_area()) - first;
            let mut batch = Vec::new();
            for _ in 0..(1 + random.next() % 40).min(room).min(left) {
                if geometry.can_hold_data(next, self.disk.sectors()) {
                    self.next_old += 1;
                    let at = geometry.chunks(next, 1).sector;
                    self.disk.write_data(at, data_of(self.next_old), false);
                    batch.push(Exception {
                        old: self.next_old,
                        new: next,
                    });
                    next = geometry.skip_metadata(next + 1);
                }
            }
            if batch.is_empty() {
                break;
            }
            left -= batch.len() as u64;
            let area = geometry.area_of(records);
            if batch.len() as u64 == room {
                // There is one: a chunk that fills the last area is not handed out.
                let following = geometry.area_chunk(area + 1).expect("an area");
                let _ = self.disk.zero(geometry.chunks(following, 1));
            }
            let extent = geometry.chunks(geometry.area_chunk(area).expect("an area"), 1);
            let bytes = geometry.chunk_size().bytes() as usize;
            let mut buffer = vec![0; bytes];
            let read = self.disk.read(extent.sector, &mut buffer, 0..bytes);
            assert_eq!(read, Ok(()));
            for (e, at) in batch
                .iter()
                .zip((first as usize..).map(|i| i * Exception::BYTES))
            {
                buffer[at..at + Exception::BYTES].copy_from_slice(&e.to_bytes());
            }
            self.disk.arm(random.next());
            let written = self.disk.flush_and_write(extent.sector, &buffer, 0..bytes);
            assert_eq!(written, Ok(()));
            if let Some(image) = self.disk.remains() {
                return self.check(image, &batch, &BTreeSet::new());
            }
            self.acked.extend(batch.into_iter().map(|e| (e.old, e.new)));
        }
        self.shut_down();
    }

    /// Shuts down in order, and activates again.
    fn shut_down(&mut self) {
        let image = self.disk.shut_down();
        let before = self.acked.clone();
        self.check(image, &[], &BTreeSet::new());
        assert_eq!(before, self.acked);
    }
}

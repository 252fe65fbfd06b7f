// SPDX-License-Identifier: GPL-2.0-only

//! What processors do, in steps between which others get their turn.

use crate::bio::{Again, Bio, Device, Mapped, Queue};
use crate::disk::Content;
use crate::io::{Disks, Flush, Kind, Then};
use crate::snapshot::{Handle, Job, Simulated};
use crate::world::World;
use host_tests::snapshot::core::{
    shard_of, Ahead, Copied, CopiedFor, CopyId, Finished, Incoming, Item, MergeCopy, MergeWrite,
    OriginWrite, Read, Shard, SnapshotWrite, Spare, Start,
};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// What a write to a COW device is.
pub enum After {
    /// A write to a chunk that is there.
    Done,
    /// One that is a copy itself, in this shard.
    Copied(usize, CopyId),
    /// One of the merge target, counted in this epoch.
    Merging(u64),
}

/// The writes of a copy.
pub struct CopyWrites {
    shard: usize,
    copy: CopyId,
    left: usize,
    failed: usize,
    /// Whether they go to stable storage.
    stable: bool,
    /// Users' writes that are a part of them.
    carried: Queue,
}

/// What is to be done next.
pub enum Task {
    /// A write to the origin goes through the core.
    WriteOrigin {
        bio: Bio,
        may_cut: bool,
        spare: Spare<Simulated>,
        /// Copies that memory is needed for first.
        need: usize,
    },
    /// A write to the origin may be submitted.
    SubmitOrigin(Bio),
    /// A write to a snapshot goes through the core.
    WriteSnapshot {
        bio: Bio,
        may_cut: bool,
        spare: Spare<Simulated>,
        need: usize,
    },
    /// A write goes to a sector of this snapshot's COW device.
    SubmitCow {
        number: usize,
        bio: Bio,
        sector: u64,
        after: After,
    },
    /// A write to the merge target goes through the core.
    WriteMerging { bio: Bio, may_cut: bool },
    /// A read goes through the core.
    Read(Bio),
    /// A read goes to a sector of a disk, and was counted in an epoch.
    SubmitRead {
        bio: Bio,
        disk: Disks,
        first: usize,
        epoch: Option<u64>,
    },
    /// Copies are begun ahead of those who write in sequence.
    CopyAhead {
        shard: usize,
        spare: Spare<Simulated>,
        need: usize,
    },
    /// A copy is to be started.
    StartCopy(usize, Start<Simulated>),
    /// A copy is done.
    Copied {
        shard: usize,
        copy: CopyId,
        failed: usize,
        stable: bool,
        carried: Queue,
    },
    /// A snapshot's exceptions go to its pipeline.
    Complete {
        handle: Handle,
        ticket: u64,
        shard: usize,
        item: Item,
    },
    /// Reads of a shard have ended.
    ReadsEnded(usize),
    /// Writes of the merge target have ended.
    WritesEnded,
    /// A copy of the merge is to be started.
    MergeCopy(MergeCopy),
}

impl Task {
    /// A user's request comes.
    pub fn map(bio: Bio) -> Self {
        match bio.device {
            _ if bio.tag == 0 => Self::Read(bio),
            Device::Origin => Self::WriteMerging { bio, may_cut: true },
            Device::Snapshot(_) => Self::write_snapshot(bio, true),
        }
    }

    /// A write to the origin comes, or comes again.
    pub fn write_origin(bio: Bio, may_cut: bool) -> Self {
        Self::WriteOrigin {
            bio,
            may_cut,
            spare: Spare::new(),
            need: 0,
        }
    }

    fn write_snapshot(bio: Bio, may_cut: bool) -> Self {
        Self::WriteSnapshot {
            bio,
            may_cut,
            spare: Spare::new(),
            need: 0,
        }
    }

    /// Whether a decision was taken that has not become a request to a disk yet. That happens in
    /// one go with respect to changes of tables.
    pub fn is_decided(&self) -> bool {
        matches!(
            self,
            Self::SubmitOrigin(_) | Self::SubmitCow { .. } | Self::SubmitRead { .. }
        )
    }
}

/// The same, without the type of what came.
fn origin<B: Incoming<Bio>>(
    shard: &mut Shard<Simulated>,
    bio: B,
    spare: &mut Spare<Simulated>,
) -> OriginWrite<Simulated, Bio> {
    match shard.write_origin(bio, spare) {
        OriginWrite::Submit(bio) => OriginWrite::Submit(bio.into_bio()),
        OriginWrite::Waits => OriginWrite::Waits,
        OriginWrite::NoSpare(bio, count) => OriginWrite::NoSpare(bio.into_bio(), count),
        OriginWrite::NotNow(bio) => OriginWrite::NotNow(bio.into_bio()),
        OriginWrite::Full(bio, snapshot) => OriginWrite::Full(bio.into_bio(), snapshot),
    }
}

/// The same, without the type of what came.
fn snapshot<B: Incoming<Bio>>(result: SnapshotWrite<B>) -> SnapshotWrite<Bio> {
    match result {
        SnapshotWrite::Cow(bio, sector) => SnapshotWrite::Cow(bio.into_bio(), sector),
        SnapshotWrite::Full(bio, sector, copy) => SnapshotWrite::Full(bio.into_bio(), sector, copy),
        SnapshotWrite::Waits => SnapshotWrite::Waits,
        SnapshotWrite::NoSpare(bio) => SnapshotWrite::NoSpare(bio.into_bio()),
        SnapshotWrite::NotNow(bio) => SnapshotWrite::NotNow(bio.into_bio()),
        SnapshotWrite::NoRoom(bio) => SnapshotWrite::NoRoom(bio.into_bio()),
        SnapshotWrite::Gone(bio) => SnapshotWrite::Gone(bio.into_bio()),
    }
}

/// The same, without the type of what came.
fn merging<B: Incoming<Bio>>(result: MergeWrite<B>) -> MergeWrite<Bio> {
    match result {
        MergeWrite::Cow(bio, sector, epoch) => MergeWrite::Cow(bio.into_bio(), sector, epoch),
        MergeWrite::Origin(bio) => MergeWrite::Origin(bio.into_bio()),
        MergeWrite::Waits => MergeWrite::Waits,
        MergeWrite::Lost(bio) => MergeWrite::Lost(bio.into_bio()),
    }
}

impl World {
    /// Does a step of what is to be done.
    pub fn perform(&mut self, task: Task) {
        match task {
            Task::WriteOrigin {
                bio,
                may_cut,
                mut spare,
                need,
            } => {
                if need > 0 {
                    let need = need - usize::from(spare.add(Job).is_ok());
                    self.tasks.push(Task::WriteOrigin {
                        bio,
                        may_cut,
                        spare,
                        need,
                    });
                } else {
                    self.write_origin(bio, may_cut, spare);
                }
            }
            Task::SubmitOrigin(bio) => {
                self.check_overwrite(bio.sector, bio.sectors);
                let data = self.contents(&bio);
                let first = self.layout.index(bio.sector);
                let fua = bio.fua;
                self.send(
                    Disks::Origin,
                    first,
                    Kind::Write(data, fua),
                    Then::Origin(bio),
                );
            }
            Task::WriteSnapshot {
                bio,
                may_cut,
                mut spare,
                need,
            } => {
                if need > 0 {
                    let need = need - usize::from(spare.add(Job).is_ok());
                    self.tasks.push(Task::WriteSnapshot {
                        bio,
                        may_cut,
                        spare,
                        need,
                    });
                } else {
                    self.write_snapshot(bio, may_cut, spare);
                }
            }
            Task::SubmitCow {
                number,
                mut bio,
                sector,
                after,
            } => {
                let (data, mut fua) = (self.contents(&bio), bio.fua);
                if self.member(number).cacheless {
                    bio.flag = false;
                    fua = true;
                }
                let kind = Kind::Write(data, fua);
                self.send(
                    Disks::Cow(number),
                    sector as usize,
                    kind,
                    Then::Cow(bio, after),
                );
            }
            Task::WriteMerging { bio, may_cut } => self.write_merging(bio, may_cut),
            Task::Read(bio) => self.read(bio),
            Task::SubmitRead {
                bio,
                disk,
                first,
                epoch,
            } => {
                let kind = Kind::Read(vec![None; bio.sectors as usize]);
                self.send(disk, first, kind, Then::Read(bio, epoch));
            }
            Task::CopyAhead {
                shard,
                mut spare,
                need,
            } => {
                // Without memory it is left.
                if (0..need).all(|_| spare.add(Job).is_ok()) {
                    self.copy_ahead(shard, spare);
                }
            }
            Task::StartCopy(shard, start) => self.start_copy(shard, start),
            Task::Copied {
                shard,
                copy,
                failed,
                stable,
                carried,
            } => self.copied(shard, copy, failed, stable, carried),
            Task::Complete {
                handle,
                ticket,
                shard,
                item,
            } => {
                handle.pipeline.borrow_mut().complete(ticket, (shard, item));
                self.member(handle.number).worker.kick();
            }
            Task::ReadsEnded(shard) => {
                let part = self.numbered(shard);
                if let Some(finished) = part.shard.reads_ended(&part.reads) {
                    // There may be more.
                    self.tasks.push(Task::ReadsEnded(shard));
                    self.finished(finished);
                }
            }
            Task::WritesEnded => self.wake_merge(),
            Task::MergeCopy(copy) => self.merge_copy(copy),
        }
    }

    /// What a write writes.
    fn contents(&self, bio: &Bio) -> Vec<Option<Content>> {
        let first = self.layout.index(bio.sector);
        let content = |at: usize| {
            Some(Content {
                tag: bio.tag,
                at: at as u32,
            })
        };
        (first..first + bio.sectors as usize).map(content).collect()
    }

    /// Starts copies; some callers do that later.
    fn start_copies(&mut self, shard: usize, spare: &mut Spare<Simulated>) {
        while let Some(start) = spare.started() {
            self.tasks.push(Task::StartCopy(shard, start));
        }
    }

    fn write_origin(&mut self, bio: Bio, may_cut: bool, mut spare: Spare<Simulated>) {
        self.note(|| format!("origin: {bio:?} may_cut {may_cut}"));
        let shard = shard_of(bio.sector);
        let part = self.numbered(shard);
        let (result, rest) = if may_cut {
            let (bio, rest) = Mapped::new(bio);
            (origin(&mut part.shard, bio, &mut spare), rest.take())
        } else {
            (origin(&mut part.shard, Again(bio), &mut spare), None)
        };
        self.begin_rest(rest);
        if std::mem::take(&mut spare.ahead) {
            self.tasks.push(Task::CopyAhead {
                shard,
                spare: Spare::new(),
                need: 0,
            });
        }
        let again = |bio, may_cut, spare, need| Task::WriteOrigin {
            bio,
            may_cut,
            spare,
            need,
        };
        match result {
            OriginWrite::Submit(bio) => self.tasks.push(Task::SubmitOrigin(bio)),
            OriginWrite::Waits => self.counts.origin_waits += 1,
            OriginWrite::NoSpare(bio, need) => {
                self.counts.no_spare += 1;
                if self.rng.chance(1000 - self.odds.linger) {
                    self.start_copies(shard, &mut spare);
                }
                self.tasks.push(again(bio, may_cut, spare, need));
                return;
            }
            OriginWrite::NotNow(bio) => {
                self.counts.no_memory += 1;
                self.tasks.push(Task::write_origin(bio, false));
            }
            OriginWrite::Full(bio, snapshot) if snapshot.refuses() => {
                self.counts.refusals += 1;
                self.end_write(bio, false);
            }
            OriginWrite::Full(bio, snapshot) => {
                self.counts.overflows += 1;
                let then = Task::write_origin(bio, false);
                self.invalidate(snapshot.number, Some(then));
            }
        }
        self.start_copies(shard, &mut spare);
    }

    fn copy_ahead(&mut self, shard: usize, mut spare: Spare<Simulated>) {
        let outcome = self.numbered(shard).shard.copy_ahead(&mut spare);
        self.start_copies(shard, &mut spare);
        let need = match outcome {
            Ahead::Nothing => return,
            Ahead::NoSpare(need) => need,
            Ahead::Begun => {
                self.counts.copied_ahead += 1;
                0
            }
        };
        self.tasks.push(Task::CopyAhead { shard, spare, need });
    }

    fn write_snapshot(&mut self, bio: Bio, may_cut: bool, mut spare: Spare<Simulated>) {
        self.note(|| format!("snapshot: {bio:?} may_cut {may_cut}"));
        let Device::Snapshot(number) = bio.device else {
            return;
        };
        let shard = shard_of(bio.sector);
        let slot = self.member(number).slot;
        let valid = self.member(number).handle.is_valid();
        if !valid {
            self.start_copies(shard, &mut spare);
            self.end_write(bio, false);
            return;
        }
        let part = self.numbered(shard);
        let (result, rest) = if may_cut {
            let (bio, rest) = Mapped::new(bio);
            let result = part.shard.write_snapshot(slot, bio, &mut spare);
            (snapshot(result), rest.take())
        } else {
            let result = part.shard.write_snapshot(slot, Again(bio), &mut spare);
            (snapshot(result), None)
        };
        self.begin_rest(rest);
        match result {
            SnapshotWrite::Cow(bio, sector) => self.tasks.push(Task::SubmitCow {
                number,
                bio,
                sector,
                after: After::Done,
            }),
            SnapshotWrite::Full(bio, sector, copy) => {
                self.counts.full_writes += 1;
                self.tasks.push(Task::SubmitCow {
                    number,
                    bio,
                    sector,
                    after: After::Copied(shard, copy),
                });
            }
            SnapshotWrite::Waits => self.counts.snapshot_waits += 1,
            SnapshotWrite::NoSpare(bio) => {
                self.counts.no_spare += 1;
                self.tasks.push(Task::WriteSnapshot {
                    bio,
                    may_cut,
                    spare,
                    need: 1,
                });
                return;
            }
            SnapshotWrite::NotNow(bio) => {
                self.counts.no_memory += 1;
                self.tasks.push(Task::write_snapshot(bio, false));
            }
            SnapshotWrite::NoRoom(bio) => {
                self.counts.overflows += 1;
                self.end_write(bio, false);
                if self.rng.chance(500) {
                    self.invalidate(number, None);
                }
            }
            SnapshotWrite::Gone(bio) => panic!("{bio:?}: the snapshot is gone"),
        }
        self.start_copies(shard, &mut spare);
    }

    fn write_merging(&mut self, bio: Bio, may_cut: bool) {
        let Some(number) = self.merging() else {
            self.tasks.push(Task::write_origin(bio, may_cut));
            return;
        };
        self.note(|| format!("merge target: {bio:?} may_cut {may_cut}"));
        let shard = shard_of(bio.sector);
        let slot = self.member(number).slot;
        let Some(mut merge) = self.merge.take() else {
            return;
        };
        let (core, writes) = (&mut merge.core, &merge.writes);
        let part = self.numbered(shard);
        let (result, rest) = if may_cut {
            let (bio, rest) = Mapped::new(bio);
            let result = part.shard.write_merging(slot, bio, core, writes);
            (merging(result), rest.take())
        } else {
            let result = part.shard.write_merging(slot, Again(bio), core, writes);
            (merging(result), None)
        };
        self.merge = Some(merge);
        self.begin_rest(rest);
        match result {
            MergeWrite::Cow(bio, sector, epoch) => self.tasks.push(Task::SubmitCow {
                number,
                bio,
                sector,
                after: After::Merging(epoch),
            }),
            MergeWrite::Origin(bio) => self.tasks.push(Task::write_origin(bio, may_cut)),
            MergeWrite::Waits => self.counts.merge_waits += 1,
            MergeWrite::Lost(bio) => self.end_write(bio, false),
        }
    }

    fn read(&mut self, mut bio: Bio) {
        let shard = shard_of(bio.sector);
        let (sector, sectors) = (bio.sector, bio.sectors);
        let (number, found) = match bio.device {
            Device::Origin => match self.merging() {
                None => (0, Read::Origin { sectors, epoch: 0 }),
                Some(number) => {
                    let slot = self.member(number).slot;
                    let part = self.numbered(shard);
                    (number, part.shard.find_recorded(slot, sector, sectors))
                }
            },
            Device::Snapshot(number) => {
                if !self.member(number).handle.is_valid() {
                    self.end_read(bio, None);
                    return;
                }
                let slot = self.member(number).slot;
                let part = self.numbered(shard);
                let found = part.shard.read_snapshot(slot, sector, sectors, &part.reads);
                (number, found)
            }
        };
        self.note(|| format!("{bio:?} is read from {found:?}"));
        let (disk, first, sectors, epoch) = match found {
            Read::Cow { sector, sectors } => (Disks::Cow(number), sector as usize, sectors, None),
            Read::Origin { sectors, epoch } => {
                let counted = bio.device != Device::Origin;
                let first = self.layout.index(bio.sector);
                (Disks::Origin, first, sectors, counted.then_some(epoch))
            }
            Read::Gone => panic!("{bio:?}: the snapshot is gone"),
        };
        let rest = bio.split(sectors);
        self.begin_rest(rest);
        self.tasks.push(Task::SubmitRead {
            bio,
            disk,
            first,
            epoch,
        });
    }

    /// A write to a COW device is over.
    pub fn cow_written(&mut self, bio: Bio, after: After, failed: bool) {
        match after {
            After::Done => self.end_write(bio, !failed),
            After::Copied(shard, copy) => self.tasks.push(Task::Copied {
                shard,
                copy,
                failed: usize::from(failed),
                stable: bio.fua,
                carried: Queue([bio].into()),
            }),
            After::Merging(epoch) => {
                let merge = self.merge.as_ref();
                if merge.is_some_and(|merge| merge.writes.end(epoch)) {
                    self.tasks.push(Task::WritesEnded);
                }
                self.end_write(bio, !failed);
            }
        }
    }

    // --- Copies

    fn start_copy(&mut self, shard: usize, start: Start<Simulated>) {
        self.counts.copies += 1;
        self.counts.shared_copies += u64::from(start.to[1].is_some());
        self.note(|| {
            let to: Vec<_> = start
                .to
                .iter()
                .flatten()
                .map(|(s, at)| (s.number, *at))
                .collect();
            format!(
                "copy {:?} of {}+{} to {to:?}",
                start.copy, start.sector, start.sectors
            )
        });
        let first = self.layout.index(start.sector);
        let there = self.layout.end() - start.sector;
        let kind = Kind::Read(vec![None; start.sectors.min(there) as usize]);
        self.send(Disks::Origin, first, kind, Then::CopyRead(shard, start));
    }

    /// What is to be copied was read.
    pub fn copy_read(
        &mut self,
        shard: usize,
        start: Start<Simulated>,
        data: &[Content],
        failed: bool,
    ) {
        if failed {
            self.tasks.push(Task::Copied {
                shard,
                copy: start.copy,
                failed: usize::MAX,
                stable: false,
                carried: Queue::default(),
            });
            return;
        }
        let mut data = data.to_vec();
        // Through memory of ours, or in kcopyd's.
        let in_memory = self.rng.chance(500);
        let carried = if in_memory {
            self.overlay(shard, &start, &mut data)
        } else {
            Queue::default()
        };
        let stable = in_memory && self.rng.chance(500);
        self.counts.stable_copies += u64::from(stable);
        let writes = Rc::new(RefCell::new(CopyWrites {
            shard,
            copy: start.copy,
            left: start.to.iter().flatten().count(),
            failed: 0,
            stable,
            carried,
        }));
        let to = start.to.into_iter().enumerate();
        for (nth, (snapshot, sector)) in to.filter_map(|(nth, to)| Some((nth, to?))) {
            let data = data.iter().copied().map(Some).collect();
            let then = Then::CopyWritten(writes.clone(), nth);
            let disk = Disks::Cow(snapshot.number);
            self.send(disk, sector as usize, Kind::Write(data, stable), then);
        }
    }

    /// Puts users' writes into what is copied.
    fn overlay(&mut self, shard: usize, start: &Start<Simulated>, data: &mut [Content]) -> Queue {
        let end = start.sector + data.len() as u64;
        let carried = self.numbered(shard).shard.overlay(start.copy, end);
        for bio in &carried.0 {
            self.note(|| format!("{bio:?} is put into copy {:?}", start.copy));
            let at = (bio.sector - start.sector) as usize;
            for (to, from) in data[at..].iter_mut().zip(self.contents(bio)) {
                *to = from.expect("a write writes something");
            }
        }
        self.counts.overlaid += carried.0.len() as u64;
        carried
    }

    /// A copy was written for one of its snapshots.
    pub fn copy_written(&mut self, writes: &RefCell<CopyWrites>, nth: usize, failed: bool) {
        let mut writes = writes.borrow_mut();
        writes.failed |= usize::from(failed) << nth;
        writes.left -= 1;
        if writes.left == 0 {
            self.tasks.push(Task::Copied {
                shard: writes.shard,
                copy: writes.copy,
                failed: writes.failed,
                stable: writes.stable,
                carried: std::mem::take(&mut writes.carried),
            });
        }
    }

    fn copied(&mut self, shard: usize, copy: CopyId, failed: usize, stable: bool, carried: Queue) {
        self.counts.failed_copies += u64::from(failed != 0);
        let part = self.numbered(shard);
        let Copied { snapshots, carried } =
            part.shard
                .copied(copy, failed, stable, carried, &part.reads);
        for bio in carried.0 {
            self.counts.early_ends += 1;
            self.end_write(bio, true);
        }
        for copied in snapshots.into_iter().flatten() {
            let CopiedFor {
                snapshot: handle,
                ticket,
                item,
                bios,
            } = copied;
            self.note(|| format!("copied {item:?} ticket {ticket} of {}", handle.number));
            for bio in bios.0 {
                self.counts.early_ends += 1;
                self.tasks.push(Task::write_snapshot(bio, false));
            }
            self.tasks.push(Task::Complete {
                handle,
                ticket,
                shard,
                item,
            });
        }
    }

    /// A copy is finished: what has waited goes on.
    pub fn finished(&mut self, finished: Finished<Simulated>) {
        self.note(|| {
            let snapshots = finished.snapshots.iter().flatten();
            let snapshots: Vec<_> = snapshots.map(|r| (r.snapshot.number, r.recorded)).collect();
            format!("finished {snapshots:?}")
        });
        for bio in finished.origin.0 {
            self.tasks.push(Task::write_origin(bio, false));
        }
        for released in finished.snapshots.into_iter().flatten() {
            for bio in released.bios.0 {
                if released.recorded {
                    self.tasks.push(Task::write_snapshot(bio, false));
                } else {
                    self.end_write(bio, false);
                }
            }
        }
        for bio in finished.carried.0 {
            self.end_write(bio, finished.recorded);
        }
        self.wake_merge();
    }

    // --- Flushes

    /// A user flushes a device.
    pub fn flush(&mut self, device: Device) {
        *self.busy_mut(device) += 1;
        let issued = self.now;
        let flush = Rc::new(Flush {
            device,
            issued,
            failed: Cell::new(false),
        });
        let disks = match device {
            Device::Origin => [Some(Disks::Origin), self.merging().map(Disks::Cow)],
            Device::Snapshot(number) => {
                let handle = self.member(number).handle.clone();
                if !handle.is_valid() {
                    self.flushed(flush, true);
                    return;
                }
                let owed = handle.pipeline.borrow().owed();
                if let Some(owed) = owed {
                    self.counts.flush_waits += 1;
                    handle.flushes.borrow_mut().add(flush, owed);
                    return;
                }
                [Some(Disks::Cow(number)), None]
            }
        };
        for disk in disks.into_iter().flatten() {
            self.send_flush(disk, Then::Flushed(flush.clone()));
        }
    }

    /// A snapshot's exceptions with one more ticket are recorded, or never will be.
    pub fn note_recorded(&mut self, number: usize) {
        let handle = self.member(number).handle.clone();
        let mut pipeline = handle.pipeline.borrow_mut();
        pipeline.note_recorded();
        let mut flushes = handle.flushes.borrow_mut();
        let ready = flushes.ready(pipeline.recorded(), pipeline.owed());
        for flush in ready.0 {
            if handle.is_valid() {
                self.send_flush(Disks::Cow(number), Then::Flushed(flush));
            } else {
                self.flushed(flush, true);
            }
        }
    }

    /// A disk was flushed for a user.
    pub fn flushed(&mut self, flush: Rc<Flush>, failed: bool) {
        flush.failed.set(flush.failed.get() || failed);
        // There may be another disk.
        let Some(flush) = Rc::into_inner(flush) else {
            return;
        };
        *self.busy_mut(flush.device) -= 1;
        if !flush.failed.get() {
            for sector in self.history_mut(flush.device) {
                sector.flush(flush.issued);
            }
        }
    }
}

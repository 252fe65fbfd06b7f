// SPDX-License-Identifier: GPL-2.0-only

//! Requests to disks.

use crate::bio::{Bio, Device};
use crate::disk::Content;
use crate::snapshot::State;
use crate::task::{After, CopyWrites, Task};
use crate::world::World;
use host_tests::snapshot::core::{shard_of, MergeCopy, Start};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// A disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disks {
    Origin,
    /// That of the snapshot with this number.
    Cow(usize),
}

/// A user's flush, which may be of two disks.
#[derive(Debug)]
pub struct Flush {
    pub device: Device,
    pub issued: u64,
    pub failed: Cell<bool>,
}

/// What a request does.
pub enum Kind {
    /// What was read so far.
    Read(Vec<Option<Content>>),
    /// What is still to be written, if it is, and whether to stable storage.
    Write(Vec<Option<Content>>, bool),
    /// When it began.
    Flush(u64),
    /// Records are appended to the list; these are on stable storage when it is over.
    Record(Vec<(u64, u64)>),
    /// The header says that the snapshot is invalid.
    Header,
    /// So many records are cleared at the end of the list.
    Clear(usize),
    /// Records are read at the end of the list: so many are skipped, and so many read at most;
    /// the last is for `Taken::new`.
    Tail(usize, u32, u64),
}

/// What is to be done when a request is over.
pub enum Then {
    /// A write to the origin was it.
    Origin(Bio),
    /// A write to a COW device.
    Cow(Bio, After),
    /// A user's read; if a snapshot's read of the origin, with its epoch.
    Read(Bio, Option<u64>),
    /// What is to be copied was read.
    CopyRead(usize, Start<crate::snapshot::Simulated>),
    /// A copy was written for the snapshot with this number in it.
    CopyWritten(Rc<RefCell<CopyWrites>>, usize),
    /// A disk was flushed for a user.
    Flushed(Rc<Flush>),
    /// The worker of this snapshot goes on.
    Worker(usize),
    /// The header was written.
    Header(usize),
    /// Records were read for a merge.
    MergeTaken,
    /// What is to be merged was read.
    MergeRead(MergeCopy),
    /// It was written.
    MergeWritten(MergeCopy),
    /// The origin was flushed for a merge.
    MergeFlushed,
    /// Records that were merged were cleared.
    MergeCleared,
}

/// A request to a disk.
pub struct Io {
    pub id: u64,
    pub disk: Disks,
    /// The index of the first sector.
    pub first: usize,
    pub kind: Kind,
    pub then: Then,
    /// It makes no progress before, unless nothing else does.
    asleep_until: u64,
}

/// The longest that a request sleeps.
const LONG: u64 = 3000;

impl Io {
    /// Whether it may make progress at `now`.
    pub fn is_awake(&self, now: u64) -> bool {
        self.asleep_until <= now
    }
}

impl World {
    /// Sends a request.
    pub fn send(&mut self, disk: Disks, first: usize, kind: Kind, then: Then) {
        let id = self.next_io;
        self.next_io += 1;
        if let (Kind::Write(data, _), Disks::Cow(_)) = (&kind, disk) {
            let needed = first + data.len();
            let disk = self.disk(disk);
            if disk.len() < needed {
                let more = needed - disk.len();
                disk.grow(std::iter::repeat_n(Content::GARBAGE, more));
            }
        }
        let odds = match then {
            Then::Read(_, Some(_)) => self.odds.stall.max(self.odds.stall_reads),
            _ => self.odds.stall,
        };
        let stalls = self.rng.chance(odds);
        let asleep_until = if stalls {
            self.now + self.rng.below(LONG)
        } else {
            0
        };
        self.ios.push(Io {
            id,
            disk,
            first,
            kind,
            then,
            asleep_until,
        });
    }

    /// Sends a flush.
    pub fn send_flush(&mut self, disk: Disks, then: Then) {
        self.send(disk, 0, Kind::Flush(self.now), then);
    }

    /// The header of a snapshot is to say that it is invalid.
    pub fn write_header(&mut self, number: usize) {
        self.send(Disks::Cow(number), 0, Kind::Header, Then::Header(number));
    }

    /// A request makes progress.
    pub fn advance_io(&mut self, which: usize) {
        let mut io = self.ios.swap_remove(which);
        let left = match &io.kind {
            Kind::Read(data) => data.iter().filter(|sector| sector.is_none()).count(),
            Kind::Write(data, _) => data.iter().flatten().count(),
            _ => 0,
        };
        if left == 0 {
            self.complete_io(io);
            return;
        }
        // Sector by sector, or many at once.
        let one = self.rng.chance(400).then(|| self.rng.index(left));
        self.advance_sectors(&mut io, one);
        self.ios.push(io);
    }

    /// The `one`th of the sectors that are left is read or written, or all are.
    pub fn advance_sectors(&mut self, io: &mut Io, one: Option<usize>) {
        let (id, first) = (io.id, io.first);
        let disk = self.disk(io.disk);
        let is_meant = |nth: usize| one.is_none_or(|one| one == nth);
        match &mut io.kind {
            Kind::Read(data) => {
                let open = data
                    .iter_mut()
                    .enumerate()
                    .filter(|(_, sector)| sector.is_none());
                for (nth, (n, sector)) in open.enumerate() {
                    if is_meant(nth) {
                        *sector = Some(match first + n < disk.len() {
                            true => disk.read(first + n),
                            false => Content::GARBAGE,
                        });
                    }
                }
            }
            Kind::Write(data, _) => {
                let open = data
                    .iter_mut()
                    .enumerate()
                    .filter(|(_, sector)| sector.is_some());
                for (nth, (n, sector)) in open.enumerate() {
                    if is_meant(nth) {
                        if let Some(content) = sector.take() {
                            disk.write(first + n, content, id);
                        }
                    }
                }
            }
            _ => {}
        }
    }

    fn complete_io(&mut self, io: Io) {
        let failed = self.rng.chance(self.odds.fault);
        let now = self.now;
        let mut data = Vec::new();
        match io.kind {
            Kind::Read(read) => data = read.into_iter().flatten().collect(),
            // A write that failed may be on the disk and may get there at any time.
            Kind::Write(written, fua) if !failed => {
                self.disk(io.disk)
                    .complete(io.first, written.len(), io.id, fua, now);
            }
            Kind::Write(..) => {}
            Kind::Flush(began) if !failed => self.disk(io.disk).flush(began),
            Kind::Flush(_) => {}
            Kind::Record(records) => {
                let Disks::Cow(number) = io.disk else { return };
                let reached = if failed {
                    self.rng.index(records.len() + 1)
                } else {
                    records.len()
                };
                self.append_records(number, &records[..reached]);
            }
            Kind::Header => {
                if let Disks::Cow(number) = io.disk {
                    self.member(number).cow.valid = false;
                }
            }
            Kind::Clear(count) => {
                self.merge_cleared(count, failed);
            }
            Kind::Tail(skip, max, copy) => self.merge_taken(skip, max, copy, failed),
        }
        match io.then {
            Then::Origin(bio) => self.end_write(bio, !failed),
            Then::Cow(bio, after) => self.cow_written(bio, after, failed),
            Then::Read(bio, epoch) => {
                if let Some(epoch) = epoch {
                    let shard = shard_of(bio.sector);
                    if self.numbered(shard).reads.end(epoch) {
                        self.tasks.push(Task::ReadsEnded(shard));
                    }
                }
                // What it read may be newer than the snapshot, if nobody cared for that any more.
                let valid = match bio.device {
                    Device::Origin => true,
                    Device::Snapshot(number) => {
                        self.member(number).handle.state.get() != State::Invalid
                    }
                };
                self.end_read(bio, (valid && !failed).then_some(&data));
            }
            Then::CopyRead(shard, start) => self.copy_read(shard, start, &data, failed),
            Then::CopyWritten(copy, nth) => self.copy_written(&copy, nth, failed),
            Then::Flushed(flush) => self.flushed(flush, failed),
            Then::Worker(number) => self.worker_io(number, failed),
            Then::Header(number) => {
                let member = self.member(number);
                member.handle.state.set(State::Invalid);
                let waited = std::mem::take(&mut member.until_invalid);
                self.tasks.extend(waited);
                self.wake_merge();
            }
            Then::MergeTaken | Then::MergeCleared => {}
            Then::MergeRead(copy) => self.merge_read(copy, data, failed),
            Then::MergeWritten(copy) => self.merge_written(copy, failed),
            Then::MergeFlushed => self.merge_flushed(failed),
        }
    }
}

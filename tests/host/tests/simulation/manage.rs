// SPDX-License-Identifier: GPL-2.0-only

//! What comes from outside: requests of users, and an administrator who changes tables.

use crate::bio::{without_power, Bio, Device};
use crate::disk::{Content, Disk};
use crate::history::Sector;
use crate::io::{Disks, Io, Kind};
use crate::merge::Merge;
use crate::plan::Op;
use crate::rng::Rng;
use crate::snapshot::{Handle, Shared, State};
use crate::task::Task;
use crate::worker::Worker;
use crate::world::{Cow, Member, World};
use host_tests::memory::{self, Failing, When};
use host_tests::snapshot::core::table::Table;
use host_tests::snapshot::core::{shard_of, Pipeline, SlotId};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Snapshots that there are at once, at most.
const MOST: usize = 4;

/// A change of tables, which waits until the devices are suspended: until no request of a user to
/// them is under way.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    Create {
        shift: u32,
        sectors: u64,
        chunks: u64,
    },
    Remove(usize),
    HandOver {
        number: usize,
        more_chunks: u64,
        rebuilt: bool,
    },
    Merge(usize),
    /// All is merged: the snapshot goes.
    EndMerge(usize),
}

impl Change {
    fn suspends(&self, device: Device) -> bool {
        match *self {
            Self::Create { .. } => device == Device::Origin,
            Self::Remove(number) | Self::HandOver { number, .. } => {
                device == Device::Snapshot(number)
            }
            Self::Merge(number) | Self::EndMerge(number) => {
                device == Device::Origin || device == Device::Snapshot(number)
            }
        }
    }
}

impl World {
    /// The number of the snapshot that an operation means.
    fn nth(&self, nth: usize) -> Option<usize> {
        let merging = self.merging();
        let all = self.all().map(|member| member.handle.number);
        let all: Vec<usize> = all.filter(|number| Some(*number) != merging).collect();
        (!all.is_empty()).then(|| all[nth % all.len()])
    }

    fn device(&self, snapshot: Option<usize>) -> Option<Device> {
        match snapshot {
            None => Some(Device::Origin),
            Some(nth) => self.nth(nth).map(Device::Snapshot),
        }
    }

    /// Whether an operation can begin now.
    pub fn may_issue(&self, op: &Op) -> bool {
        match *op {
            Op::Write { snapshot, .. } | Op::Read { snapshot, .. } | Op::Flush { snapshot } => {
                let change = self.change.as_ref();
                let device = self.device(snapshot);
                !device.is_some_and(|d| change.is_some_and(|change| change.suspends(d)))
            }
            Op::Crash | Op::Pause | Op::Resume | Op::Invalidate { .. } => true,
            _ => self.change.is_none(),
        }
    }

    /// An operation begins.
    pub fn issue(&mut self, op: Op) {
        self.note(|| format!("{op:?}"));
        match op {
            Op::Write {
                snapshot,
                sector,
                sectors,
                fua,
            } => {
                let tag = self.next_tag;
                self.next_tag += 1;
                self.request(snapshot, sector, sectors, tag, fua);
            }
            Op::Read {
                snapshot,
                sector,
                sectors,
            } => self.request(snapshot, sector, sectors, 0, false),
            Op::Flush { snapshot } => {
                if let Some(device) = self.device(snapshot) {
                    self.flush(device);
                }
            }
            Op::Create {
                shift,
                sectors,
                chunks,
            } => {
                if self.merge.is_none() && self.all().count() < MOST {
                    self.change = Some(Change::Create {
                        shift,
                        sectors,
                        chunks,
                    });
                }
            }
            Op::Remove { snapshot } => self.change = self.nth(snapshot).map(Change::Remove),
            Op::HandOver {
                snapshot,
                more_chunks,
                rebuilt,
            } => {
                self.change = self.nth(snapshot).map(|number| Change::HandOver {
                    number,
                    more_chunks,
                    rebuilt,
                });
            }
            Op::Invalidate { snapshot } => {
                if let Some(number) = self.nth(snapshot) {
                    self.invalidate(number, None);
                }
            }
            Op::Merge { snapshot } => {
                if self.merge.is_none() {
                    self.change = self.nth(snapshot).map(Change::Merge);
                }
            }
            Op::Pause => {
                if let Some(merge) = &mut self.merge {
                    merge.pause();
                }
            }
            Op::Resume => {
                if let Some(merge) = &mut self.merge {
                    merge.resume();
                }
            }
            Op::Crash => self.crash(),
        }
    }

    fn request(&mut self, snapshot: Option<usize>, sector: u64, sectors: u64, tag: u32, fua: bool) {
        let Some(device) = self.device(snapshot) else {
            return;
        };
        let size = match device {
            Device::Origin => self.layout.end(),
            Device::Snapshot(number) => self.member(number).handle.sectors,
        };
        if sector < size {
            let sectors = sectors.min(size - sector);
            let bio = Bio::new(device, sector, sectors, tag, fua, self.now);
            self.begin(&bio);
            self.tasks.push(Task::map(bio));
        }
    }

    /// Changes tables if the time has come; returns whether it did.
    pub fn try_change(&mut self) -> bool {
        if self.change.is_none() && self.merge.as_ref().is_some_and(Merge::is_done) {
            self.change = self.merging().map(Change::EndMerge);
        }
        let Some(change) = self.change else {
            return false;
        };
        // What maps a request holds tables where they are.
        if self.tasks.iter().any(Task::is_decided) {
            return false;
        }
        let busy = |member: &Member| {
            change.suspends(Device::Snapshot(member.handle.number)) && member.busy > 0
        };
        if change.suspends(Device::Origin) && self.busy > 0 || self.all().any(busy) {
            return false;
        }
        match change {
            Change::Create {
                shift,
                sectors,
                chunks,
            } => {
                if !self.create(shift, sectors, chunks) {
                    // No memory: later.
                    return true;
                }
            }
            Change::Remove(number) => {
                self.member(number).handle.active.set(false);
                if !self.is_idle(number) {
                    return false;
                }
                self.remove(number);
                self.counts.removed += 1;
            }
            Change::HandOver {
                number,
                more_chunks,
                rebuilt,
            } => {
                if rebuilt {
                    if !self.member(number).handle.is_valid() {
                        self.change = None;
                        return true;
                    }
                    if !self.is_idle(number) {
                        return false;
                    }
                    if self.make_room().is_err() {
                        return true;
                    }
                    self.rebuild(number);
                }
                let chunks = &self.member(number).handle.cow_chunks;
                chunks.set(chunks.get() + more_chunks);
                self.counts.handovers += 1;
            }
            Change::Merge(number) => {
                let handle = self.member(number).handle.clone();
                let fits = handle.sectors % (1 << handle.shift) == 0;
                let all = handle.sectors == self.layout.end();
                if handle.is_valid() && (fits || all) {
                    if !self.is_idle(number) {
                        return false;
                    }
                    self.begin_merge(number);
                }
            }
            Change::EndMerge(number) => {
                self.counts.merged += 1;
                self.merge = None;
                self.remove(number);
            }
        }
        self.note(|| format!("changed: {change:?}"));
        self.change = None;
        true
    }

    /// Whether nothing is under way for a snapshot.
    fn is_idle(&self, number: usize) -> bool {
        let Some(member) = &self.members[number] else {
            return true;
        };
        let idle = self
            .parts
            .iter()
            .all(|part| part.shard.is_idle(member.slot));
        let out = member.handle.pipeline.borrow().outstanding();
        assert!(
            !idle || out == 0,
            "snapshot {number} is idle, and {out} tickets are out"
        );
        // The header may be being written.
        idle && member.worker.is_idle() && member.handle.state.get() != State::Invalidating
    }

    fn make_room(&mut self) -> Result<(), host_tests::format::NoMemory> {
        for part in &mut self.parts {
            part.shard.reserve_slot(When::Sleep)?;
        }
        Ok(())
    }

    fn handle(&mut self, number: usize, shift: u32, sectors: u64, cow_chunks: u64) -> Handle {
        Handle(Rc::new(Shared {
            number,
            shift,
            sectors,
            state: Cell::new(State::Valid),
            active: Cell::new(true),
            merging: Cell::new(false),
            keep: self.rng.chance(300),
            cow_chunks: Cell::new(cow_chunks),
            pipeline: RefCell::new(Pipeline::new()),
            flushes: RefCell::default(),
            next: Cell::new(1),
            handed_out: RefCell::default(),
            rng: RefCell::new(Rng::new(self.rng.next())),
        }))
    }

    fn create(&mut self, shift: u32, sectors: u64, chunks: u64) -> bool {
        if self.make_room().is_err() {
            return false;
        }
        self.counts.created += 1;
        // Who takes a snapshot flushes the origin.
        self.origin.flush(self.now);
        let number = self.members.len();
        let handle = self.handle(number, shift, sectors, chunks);
        let mut history = Vec::new();
        for at in 0..self.layout.len() {
            let content = self.origin.settle(at);
            let sector = &mut self.history[at];
            assert!(
                sector.may_read(content.tag, self.now),
                "{}",
                sector.describe()
            );
            *sector = Sector::new(content.tag);
            if self.layout.sector(at) < sectors {
                history.push(Sector::new(content.tag));
            }
        }
        let cacheless = self.rng.chance(250);
        self.members.push(Some(Member {
            cacheless,
            handle,
            slot: SlotId(u32::MAX),
            cow: Cow {
                disk: Disk::new(std::iter::empty()),
                list: Vec::new(),
                valid: true,
            },
            history,
            busy: 0,
            worker: Worker::default(),
            until_invalid: Vec::new(),
            first_handed_out: 0,
        }));
        self.add(number);
        true
    }

    /// Puts a snapshot into the shards, with what is recorded on its COW device.
    fn add(&mut self, number: usize) {
        let slot = SlotId(self.next_slot);
        self.next_slot += 1;
        self.member(number).slot = slot;
        let handle = self.member(number).handle.clone();
        let list = self.member(number).cow.list.clone();
        for part in &mut self.parts {
            let mut table = Table::new(Table::region_shift(handle.shift));
            for (old, new) in &list {
                if shard_of(old << handle.shift) == part.number {
                    table.reserve(*old, When::Sleep).expect("memory");
                    table.insert(*old, *new, 1).expect("a place in the table");
                }
            }
            part.shard
                .add_slot(slot, handle.clone(), handle.shift, table);
        }
        let next = list.last().map_or(1, |(_, new)| new + 1);
        handle.next.set(next);
        self.member(number).first_handed_out = list.len();
    }

    /// The snapshot is loaded anew from its COW device.
    fn rebuild(&mut self, number: usize) {
        self.counts.rebuilds += 1;
        let slot = self.member(number).slot;
        for part in &mut self.parts {
            drop(part.shard.remove_slot(slot));
        }
        let old = self.member(number).handle.clone();
        let handle = self.handle(number, old.shift, old.sectors, old.cow_chunks.get());
        handle.merging.set(old.merging.get());
        self.member(number).handle = handle;
        memory::fail(Failing::Never);
        self.add(number);
        self.rearm_memory();
    }

    fn remove(&mut self, number: usize) {
        let Some(member) = self.members[number].take() else {
            return;
        };
        for part in &mut self.parts {
            let table = part
                .shard
                .remove_slot(member.slot)
                .expect("the snapshot is there");
            assert_eq!(part.shard.usage(member.slot), (0, 0));
            drop(table);
        }
    }

    fn begin_merge(&mut self, number: usize) {
        self.counts.merges += 1;
        let member = self.member(number);
        member.handle.merging.set(true);
        // From now on the origin shows what the snapshot showed.
        let merged = std::mem::take(&mut member.history);
        self.history[..merged.len()].clone_from_slice(&merged);
        self.merge = Some(Merge::new(number, &mut self.rng));
    }

    /// The power fails; then all is loaded anew.
    pub fn crash(&mut self) {
        self.counts.crashes += 1;
        memory::fail(Failing::Never);
        // Requests may have got anywhere.
        for mut io in std::mem::take(&mut self.ios) {
            self.crash_io(&mut io);
            without_power(|| drop(io));
        }
        let tasks = std::mem::take(&mut self.tasks);
        let parts = std::mem::take(&mut self.parts);
        without_power(|| drop((tasks, parts)));
        self.origin.crash(&mut self.rng);
        self.change = None;
        self.busy = 0;
        let merge = self.merge.take();
        let merging = merge.as_ref().map(|merge| merge.number);
        without_power(|| drop(merge));
        self.make_parts();
        for number in 0..self.members.len() {
            let Some(mut member) = self.members[number].take() else {
                continue;
            };
            member.cow.disk.crash(&mut self.rng);
            let waited = std::mem::take(&mut member.until_invalid);
            without_power(|| drop(waited));
            let old = member.handle;
            if !member.cow.valid {
                assert_ne!(
                    old.state.get(),
                    State::Valid,
                    "snapshot {number} became invalid"
                );
                continue;
            }
            if !old.active.get() {
                continue;
            }
            member.handle = self.handle(number, old.shift, old.sectors, old.cow_chunks.get());
            member.busy = 0;
            member.worker = Worker::default();
            if merging == Some(number) {
                member.handle.merging.set(true);
                self.merge = Some(Merge::new(number, &mut self.rng));
            }
            self.members[number] = Some(member);
            self.make_room().expect("memory");
            self.add(number);
        }
        self.check_disks(true);
        self.rearm_memory();
    }

    /// A request is under way when the power fails.
    fn crash_io(&mut self, io: &mut Io) {
        let reached = match &io.kind {
            Kind::Record(records) => self.rng.index(records.len() + 1),
            Kind::Clear(count) => self.rng.index(count + 1),
            Kind::Write(data, _) => data.iter().flatten().count(),
            Kind::Header => self.rng.index(2),
            Kind::Read(_) | Kind::Flush(_) | Kind::Tail(..) => 0,
        };
        match (&io.kind, io.disk) {
            (Kind::Record(records), Disks::Cow(number)) => {
                let records = records[..reached].to_vec();
                self.append_records(number, &records);
            }
            (Kind::Clear(_), Disks::Cow(number)) => {
                let list = &mut self.member(number).cow.list;
                list.truncate(list.len() - reached);
            }
            (Kind::Header, Disks::Cow(number)) if reached == 1 => {
                self.member(number).cow.valid = false;
            }
            (Kind::Write(..), _) => {
                // What of it was in the cache is up to the disk.
                self.advance_sectors(io, None);
            }
            _ => {}
        }
    }

    /// Whether a disk has what it should, all at rest: see the caller.
    pub fn settled(&self, member: &Member, at: usize) -> Content {
        let sector = self.layout.sector(at);
        let old = sector >> member.handle.shift;
        let record = member.cow.list.iter().find(|record| record.0 == old);
        match record {
            Some((_, new)) => {
                let first = (new << member.handle.shift) + sector - (old << member.handle.shift);
                member.cow.disk.read(first as usize)
            }
            None => self.origin.read(at),
        }
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! An origin with two snapshots, and what the kernel does for them.

use crate::memory::When;
use crate::snapshot_core::{
    shard_of, table::Loader, AheadLimits, Allocation, Bios, Epochs, Finished, Incoming, Item,
    NoChunk, OriginWrite, Pipeline, Read, Shard, SlotId, Snapshot, Spare, Types,
};
use shuttle::sync::{Condvar, Mutex};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Sectors of the origin, all in one shard.
pub const SECTORS: u64 = 4;

/// A write of one sector.
pub struct Bio {
    sector: u64,
    value: u64,
}

impl Incoming<Bio> for Bio {
    const MAY_CUT: bool = false;

    fn sector(&self) -> u64 {
        self.sector
    }

    fn sectors(&self) -> u64 {
        1
    }

    fn cut(&mut self, _sectors: u64) {
        panic!("it may not be cut");
    }

    fn must_last(&self) -> bool {
        false
    }

    fn into_bio(self) -> Bio {
        self
    }
}

#[derive(Default)]
pub struct Queue(Vec<Bio>);

impl Bios<Bio> for Queue {
    fn push(&mut self, bio: Bio) {
        self.0.push(bio);
    }

    fn pop(&mut self) -> Option<Bio> {
        self.0.pop()
    }

    fn append(&mut self, others: &mut Self) {
        self.0.append(&mut others.0);
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

pub enum Threads {}

impl Types for Threads {
    type Snapshot = Handle;
    type Bio = Bio;
    type Bios = Queue;
    type Job = ();
    type Moment = ();

    fn now() {}

    fn since(_then: &()) -> u64 {
        0
    }

    fn must_last(_bio: &Bio) -> bool {
        false
    }

    fn end(bio: &Bio) -> u64 {
        bio.sector + 1
    }

    fn has_data(_bio: &Bio) -> bool {
        true
    }
}

/// A snapshot with chunks of `1 << shift` sectors.
pub struct Shared {
    number: u32,
    shift: u32,
    /// The COW device: sectors that were written.
    cow: Mutex<BTreeMap<u64, u64>>,
    order: Mutex<Pipeline<Item>>,
    /// Chunks handed out.
    next: Mutex<u64>,
    /// Held by who records exceptions, as by a workqueue's only thread.
    recording: Mutex<()>,
    /// Chunks of the origin that are recorded.
    recorded: Mutex<BTreeSet<u64>>,
}

#[derive(Clone)]
pub struct Handle(Arc<Shared>);

impl Snapshot for Handle {
    fn wants_copies(&self) -> bool {
        true
    }

    fn sectors(&self) -> u64 {
        SECTORS
    }

    fn allocate(&self, _max: u64, _now: bool) -> Result<Allocation, NoChunk> {
        let mut order = self.0.order.lock().unwrap();
        order.reserve(When::Atomic).map_err(|_| NoChunk::NotNow)?;
        let mut next = self.0.next.lock().unwrap();
        *next += 1;
        Ok(Allocation {
            ticket: order.ticket(),
            new: *next - 1,
            chunks: 1,
        })
    }

    fn has_plenty(&self) -> bool {
        true
    }

    fn promise(&self, ticket: u64) {
        self.0.order.lock().unwrap().promise(ticket);
    }
}

/// What a sector of the origin had when the snapshots were made.
fn original(sector: u64) -> u64 {
    sector + 1
}

pub struct World {
    shard: Mutex<Shard<Threads>>,
    reads: Epochs,
    origin: Mutex<Vec<u64>>,
    snapshots: Vec<Handle>,
    /// Writes that are over.
    over: Mutex<BTreeSet<u64>>,
    is_over: Condvar,
}

impl World {
    pub fn new() -> Self {
        let mut shard = Shard::new(AheadLimits::NONE);
        let mut snapshots = Vec::new();
        for (number, shift) in [(0, 0), (1, 1)] {
            let snapshot = Handle(Arc::new(Shared {
                number,
                shift,
                cow: Mutex::default(),
                order: Mutex::new(Pipeline::new()),
                next: Mutex::new(0),
                recording: Mutex::new(()),
                recorded: Mutex::default(),
            }));
            let loader = Loader::new(shift).unwrap_or_else(|_| panic!("no memory"));
            let mut tables = loader.finish().unwrap_or_else(|_| panic!("no memory"));
            shard.reserve_slot(When::Sleep).unwrap();
            let table = tables.take(shard_of(0));
            shard.add_slot(SlotId(number), snapshot.clone(), shift, table);
            snapshots.push(snapshot);
        }
        Self {
            shard: Mutex::new(shard),
            reads: Epochs::new(),
            origin: Mutex::new((0..SECTORS).map(original).collect()),
            snapshots,
            over: Mutex::default(),
            is_over: Condvar::new(),
        }
    }

    pub fn snapshots(&self) -> usize {
        self.snapshots.len()
    }

    /// Writes a sector of the origin, and waits until that is over.
    pub fn write(&self, sector: u64, value: u64) {
        self.map(Bio { sector, value });
        let mut over = self.over.lock().unwrap();
        while !over.contains(&sector) {
            over = self.is_over.wait(over).unwrap();
        }
    }

    /// Reads a sector of a snapshot.
    pub fn read(&self, number: usize, sector: u64) {
        let snapshot = &self.snapshots[number];
        let id = SlotId(snapshot.0.number);
        let found = self
            .shard
            .lock()
            .unwrap()
            .read_snapshot(id, sector, 1, &self.reads);
        match found {
            Read::Cow { sector: cow, .. } => {
                let cow = snapshot.0.cow.lock().unwrap().get(&cow).copied();
                assert_eq!(cow, Some(original(sector)), "snapshot {number} on its COW");
            }
            Read::Origin { epoch, .. } => {
                let value = self.origin.lock().unwrap()[sector as usize];
                assert_eq!(value, original(sector), "snapshot {number} on the origin");
                if self.reads.end(epoch) {
                    self.finish_ended();
                }
            }
            Read::Gone => panic!("snapshot {number} is gone"),
        }
    }

    /// All writes are over, and the snapshots are what they were.
    pub fn verify(&self) {
        for sector in 0..SECTORS {
            assert_eq!(self.origin.lock().unwrap()[sector as usize], 100 + sector);
            for number in 0..self.snapshots() {
                self.read(number, sector);
            }
        }
    }

    fn map(&self, mut bio: Bio) {
        let mut spare = Spare::new();
        loop {
            let outcome = self.shard.lock().unwrap().write_origin(bio, &mut spare);
            while let Some(start) = spare.started() {
                for sector in start.sector..start.sector + start.sectors {
                    let value = self.origin.lock().unwrap()[sector as usize];
                    for (snapshot, to) in start.to.iter().flatten() {
                        let at = to + (sector - start.sector);
                        snapshot.0.cow.lock().unwrap().insert(at, value);
                    }
                }
                self.copied(start.copy);
            }
            bio = match outcome {
                OriginWrite::Submit(bio) => return self.overwrite(bio),
                OriginWrite::Waits => return,
                OriginWrite::NoSpare(bio, count) => {
                    for _ in 0..count {
                        spare.add(()).unwrap();
                    }
                    bio
                }
                OriginWrite::NotNow(_) | OriginWrite::Full(..) => panic!("there is room"),
            }
        }
    }

    fn overwrite(&self, bio: Bio) {
        for snapshot in &self.snapshots {
            let old = bio.sector >> snapshot.0.shift;
            let recorded = snapshot.0.recorded.lock().unwrap().contains(&old);
            assert!(recorded, "sector {} is not recorded", bio.sector);
        }
        self.origin.lock().unwrap()[bio.sector as usize] = bio.value;
        self.over.lock().unwrap().insert(bio.sector);
        self.is_over.notify_all();
    }

    fn copied(&self, copy: crate::snapshot_core::CopyId) {
        let (copied, due) = {
            let mut shard = self.shard.lock().unwrap();
            let copied = shard.copied(copy, 0, false, Queue::default(), &self.reads);
            (copied, shard.is_due(&self.reads))
        };
        for copied in copied.snapshots.into_iter().flatten() {
            let (snapshot, ticket, item) = (copied.snapshot, copied.ticket, copied.item);
            snapshot.0.order.lock().unwrap().complete(ticket, item);
            self.record(&snapshot);
        }
        if due {
            self.finish_ended();
        }
    }

    fn record(&self, snapshot: &Handle) {
        let mut finished = Vec::new();
        let recording = snapshot.0.recording.lock().unwrap();
        loop {
            let next = snapshot.0.order.lock().unwrap().take_next();
            let Some(item) = next else { break };
            snapshot.0.recorded.lock().unwrap().insert(item.old);
            let mut shard = self.shard.lock().unwrap();
            finished.extend(shard.recorded(item.copy, item.member, true));
        }
        drop(recording);
        finished
            .into_iter()
            .for_each(|finished| self.finish(finished));
    }

    fn finish_ended(&self) {
        loop {
            let finished = self.shard.lock().unwrap().reads_ended(&self.reads);
            match finished {
                Some(finished) => self.finish(finished),
                None => return,
            }
        }
    }

    fn finish(&self, finished: Finished<Threads>) {
        finished.origin.0.into_iter().for_each(|bio| self.map(bio));
    }
}

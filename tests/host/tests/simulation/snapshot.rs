// SPDX-License-Identifier: GPL-2.0-only

//! A snapshot, as the core sees it.

use crate::bio::{Bio, Queue};
use crate::io::Flush;
use crate::rng::Rng;
use host_tests::memory::When;
use host_tests::snapshot::core::{
    Allocation, Bios, Flushes, Item, NoChunk, Pipeline, Snapshot, Types,
};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

/// The types of the simulation.
pub enum Simulated {}

impl Types for Simulated {
    type Snapshot = Handle;
    type Bio = Bio;
    type Bios = Queue;
    type Job = Job;
    type Moment = ();

    fn now() {}

    fn since(_then: &()) -> u64 {
        0
    }

    fn must_last(bio: &Bio) -> bool {
        bio.flag
    }

    fn end(bio: &Bio) -> u64 {
        bio.end()
    }

    fn has_data(bio: &Bio) -> bool {
        bio.tag != 0
    }
}

/// Users' flushes that wait.
#[derive(Default)]
pub struct FlushQueue(pub VecDeque<Rc<Flush>>);

impl Bios<Rc<Flush>> for FlushQueue {
    fn push(&mut self, flush: Rc<Flush>) {
        self.0.push_back(flush);
    }

    fn pop(&mut self) -> Option<Rc<Flush>> {
        self.0.pop_front()
    }

    fn append(&mut self, others: &mut Self) {
        self.0.append(&mut others.0);
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Memory for a copy.
pub struct Job;

/// Whether a snapshot is as good as new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is.
    Valid,
    /// The header that says that it is not is on its way.
    Invalidating,
    /// It is not, and the header says so.
    Invalid,
}

/// Every `AREA`th chunk of the COW device is the store's.
const AREA: u64 = 6;

/// A snapshot.
pub struct Shared {
    pub number: usize,
    /// Binary logarithm of the sectors of a chunk.
    pub shift: u32,
    /// Sectors of the origin.
    pub sectors: u64,
    pub state: Cell<State>,
    pub active: Cell<bool>,
    pub merging: Cell<bool>,
    /// Whether it is kept when its COW device is full.
    pub keep: bool,
    /// Chunks of the COW device.
    pub cow_chunks: Cell<u64>,
    pub pipeline: RefCell<Pipeline<(usize, Item)>>,
    pub flushes: RefCell<Flushes<FlushQueue>>,
    /// The next chunk to hand out.
    pub next: Cell<u64>,
    /// The chunks that were handed out, in this order.
    pub handed_out: RefCell<Vec<u64>>,
    pub rng: RefCell<Rng>,
}

/// A handle of a snapshot.
#[derive(Clone)]
pub struct Handle(pub Rc<Shared>);

impl std::ops::Deref for Handle {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Handle {
    /// Whether it is neither invalid nor about to be.
    pub fn is_valid(&self) -> bool {
        self.state.get() == State::Valid
    }

    /// Whether a write to the origin that it has no room for fails.
    pub fn refuses(&self) -> bool {
        self.keep && self.is_valid()
    }
}

impl Snapshot for Handle {
    fn wants_copies(&self) -> bool {
        // Until everybody would see that it is invalid, even after a crash, it must be right.
        self.active.get() && self.state.get() != State::Invalid && !self.merging.get()
    }

    fn sectors(&self) -> u64 {
        self.sectors
    }

    fn allocate(&self, max: u64, now: bool) -> Result<Allocation, NoChunk> {
        assert!(max > 0, "no chunk was asked for");
        if !self.is_valid() {
            return Err(NoChunk::Full);
        }
        // Sometimes there is a better moment for it.
        if !now && self.rng.borrow_mut().chance(20) {
            return Err(NoChunk::NotNow);
        }
        let mut pipeline = self.pipeline.borrow_mut();
        let reserved = pipeline.reserve(When::Atomic);
        reserved.map_err(|_| NoChunk::NotNow)?;
        let mut new = self.next.get();
        if new % AREA == 0 {
            new += 1;
        }
        if new >= self.cow_chunks.get() {
            return Err(NoChunk::Full);
        }
        let left = (self.cow_chunks.get() - new)
            .min(AREA - new % AREA)
            .min(max);
        let chunks = if self.rng.borrow_mut().chance(700) {
            left
        } else {
            self.rng.borrow_mut().between(1, left)
        };
        self.next.set(new + chunks);
        self.handed_out.borrow_mut().extend(new..new + chunks);
        Ok(Allocation {
            ticket: pipeline.ticket(),
            new,
            chunks,
        })
    }

    fn has_plenty(&self) -> bool {
        2 * self.next.get() <= self.cow_chunks.get()
    }

    fn promise(&self, ticket: u64) {
        self.pipeline.borrow_mut().promise(ticket);
    }
}

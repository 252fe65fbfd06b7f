// SPDX-License-Identifier: GPL-2.0-only

//! The completed exceptions of a snapshot: which chunk of the origin is where on the COW.
//!
//! The origin is divided into spans of 1 GiB, which belong to [`SHARDS`] lock shards in turn; a
//! [`Table`] has the exceptions of one snapshot in one shard. All of it is pure: the caller has the
//! lock.
//!
//! # Layout
//!
//! A table is a tree of regions of [`REGION_CHUNKS`] chunks of the origin at most, which do not
//! cross spans. A region has *runs* of exceptions that are consecutive on the origin and on the
//! COW, 8 bytes each, in blocks of 32 with a directory. So an exception takes 8 to 16 bytes, and
//! what was copied in sequence next to nothing; a lookup finds a run or a gap with its end.
//!
//! # Memory
//!
//! What is to be inserted when a copy completes must not fail for want of memory: the room for it
//! is [reserved](Table::reserve) before the copy starts.

mod block;
mod loader;
mod region;
mod regions;
mod run;
mod scratch;
mod size;
mod spares;

pub use loader::{
    shard,
    LoadError,
    Loader,
    Tables, //
};
pub use run::MAX_NEW;

use crate::format::NoMemory;
use crate::memory::When;
use region::Region;
use regions::Regions;
use run::{
    Run,
    OFFSET_BITS, //
};
use scratch::Scratch;
use spares::Spares;

/// The most chunks of the origin that a region has.
pub const REGION_CHUNKS: u64 = 1 << OFFSET_BITS;

/// How many lock shards there are.
pub const SHARDS: usize = 64;

/// A span of the origin, all of which belongs to one shard, is 2^21 sectors.
const SPAN_SHIFT: u32 = 21;

/// What is known of a chunk of the origin, and of those after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is on the COW.
    Run {
        /// Where on the COW.
        new: u64,
        /// How many chunks from it on are consecutive there, to the region's end at most.
        chunks: u64,
    },
    /// It is not.
    Gap {
        /// How many chunks from it on are not either, to the region's end at most.
        chunks: u64,
    },
}

/// Why a run cannot be inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// One of its chunks is there already.
    AlreadyThere,
    /// Nothing was reserved in its region.
    NotReserved,
    /// It is empty, goes beyond its region's end, or to [`MAX_NEW`] or beyond on the COW.
    OutOfRange,
}

/// The completed exceptions of one snapshot in one lock shard.
pub struct Table {
    regions: Regions,
    spares: Spares,
    region_shift: u32,
    chunks: u64,
    // The memory of the regions' blocks and directories.
    contents: usize,
}

impl Table {
    /// An empty table, whose regions have 2^`region_shift` chunks, [`REGION_CHUNKS`] at most.
    pub const fn new(region_shift: u32) -> Self {
        Self {
            regions: Regions::new(),
            spares: Spares::new(),
            region_shift: if region_shift < OFFSET_BITS {
                region_shift
            } else {
                OFFSET_BITS
            },
            chunks: 0,
            contents: 0,
        }
    }

    /// The size of regions where a chunk has 2^`chunk_shift` sectors: as many as fit into a span
    /// of a lock shard, [`REGION_CHUNKS`] at most.
    pub const fn region_shift(chunk_shift: u32) -> u32 {
        let span = SPAN_SHIFT.saturating_sub(chunk_shift);
        if span < OFFSET_BITS {
            span
        } else {
            OFFSET_BITS
        }
    }

    /// Looks the chunk `old` of the origin up, and how far what is true of it goes.
    pub fn find(&self, old: u64) -> Found {
        let offset = self.offset(old);
        match self.regions.get(self.number(old)) {
            Some(region) => region.find(offset, self.region_chunks()),
            None => Found::Gap {
                chunks: self.region_chunks() - offset,
            },
        }
    }

    /// Makes sure that one [`insert`](Self::insert) (or one [`remove`](Self::remove) that splits a
    /// run) in the region of `old` does not need memory, until it is done or
    /// [given up](Self::release). A failure changes nothing.
    pub fn reserve(&mut self, old: u64, when: When) -> Result<(), NoMemory> {
        let number = self.number(old);
        let mut reserved = self.spares.reserve(when);
        if reserved.is_ok() {
            reserved = self.reserve_in(number, when);
            if reserved.is_err() {
                self.spares.release();
            }
        }
        self.tidy();
        reserved
    }

    fn reserve_in(&mut self, number: u64, when: When) -> Result<(), NoMemory> {
        if let Some(reserved) = self.change(number, |region, _| region.reserve(when)) {
            return reserved;
        }
        if let Err(error) = self.regions.create(number, when) {
            // What the tree was given for it.
            self.regions.remove(number);
            return Err(error);
        }
        self.change(number, |region, _| region.reserve(when))
            .unwrap_or(Err(NoMemory))
    }

    /// Gives up what was [reserved](Self::reserve) in the region of `old`.
    pub fn release(&mut self, old: u64) {
        self.change(self.number(old), |region, spares| {
            if region.release() {
                spares.release();
            }
        });
    }

    /// Inserts the exceptions of `chunks` chunks from `old` on, all of one region, which are at
    /// `new` and after it on the COW. Uses what was [reserved](Self::reserve) there: memory is
    /// never a reason to fail. A failure changes nothing, and the reservation stays.
    pub fn insert(&mut self, old: u64, new: u64, chunks: u64) -> Result<(), InsertError> {
        let offset = self.offset(old);
        if chunks == 0 || chunks > self.region_chunks() - offset || new > MAX_NEW - chunks {
            return Err(InsertError::OutOfRange);
        }
        let run = Run::new(offset, new, chunks);
        self.change(self.number(old), |region, spares| {
            region.insert(run, spares)
        })
        .unwrap_or(Err(InsertError::NotReserved))
    }

    /// Removes the exceptions of `chunks` chunks from `old` on, all of one region, and returns
    /// true. If one of them is not there, nothing changes and it returns false.
    ///
    /// Where it [splits](Self::splits) a run it needs and uses a [reservation](Self::reserve) in
    /// the region; without one nothing changes, and it returns false.
    pub fn remove(&mut self, old: u64, chunks: u64) -> bool {
        let offset = self.offset(old);
        if chunks == 0 || chunks > self.region_chunks() - offset {
            return false;
        }
        self.change(self.number(old), |region, spares| {
            region.remove(offset, offset + chunks, spares)
        })
        .unwrap_or(false)
    }

    /// Whether [`remove`](Self::remove) would make two runs of one, which it needs a reservation
    /// for.
    pub fn splits(&self, old: u64, chunks: u64) -> bool {
        let offset = self.offset(old);
        self.regions
            .get(self.number(old))
            .is_some_and(|region| region.splits(offset, offset.saturating_add(chunks)))
    }

    /// How many exceptions there are.
    pub fn chunks(&self) -> u64 {
        self.chunks
    }

    /// Whether there are no exceptions.
    pub fn is_empty(&self) -> bool {
        self.chunks == 0
    }

    /// The memory taken, in bytes, as `kmalloc` rounds it up.
    pub fn bytes(&self) -> usize {
        self.regions.bytes() + self.contents + self.spares.bytes()
    }

    /// The first run that has a chunk from `old` on, without what it has before: the chunk of the
    /// origin, the chunk of the COW, and how many. It ends where the region does at the latest.
    ///
    /// So a table can be walked bit by bit, and the lock released in between.
    pub fn next_run(&self, old: u64) -> Option<(u64, u64, u64)> {
        let number = self.number(old);
        let mut offset = self.offset(old);
        let mut from = number;
        loop {
            let (number, region) = self.regions.from(from)?;
            if number != from {
                offset = 0;
            }
            if let Some(run) = region.next_run(offset) {
                let old = (number << self.region_shift) + run.offset();
                return Some((old, run.chunk(), run.chunks()));
            }
            from = number.checked_add(1)?;
            offset = 0;
        }
    }

    /// All runs in the order of their chunks of the origin, as [`next_run`](Self::next_run) gives
    /// them.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        let mut from = Some(0);
        core::iter::from_fn(move || {
            let (old, new, chunks) = self.next_run(from?)?;
            from = old.checked_add(chunks);
            Some((old, new, chunks))
        })
    }

    /// Adds an exception while a list is loaded.
    fn append(&mut self, old: u64, new: u64, scratch: &mut Scratch) -> Result<(), LoadError> {
        let number = self.number(old);
        let run = Run::new(self.offset(old), new, 1);
        let full = self.region_chunks();
        if self.regions.get(number).is_none() {
            self.regions.create(number, When::Sleep)?;
        }
        self.change(number, |region, _| {
            region.append(run)?;
            if region.chunks() <= full {
                return Ok(());
            }
            // One chunk at least is there twice, and the region must not grow without end.
            region.sort(scratch).map_err(|twice| LoadError::OldTwice {
                old: old - run.offset() + twice.offset,
                new: twice.new,
            })
        })
        .unwrap_or(Err(LoadError::NoMemory))
    }

    /// Puts what was appended in order.
    fn sort(&mut self, scratch: &mut Scratch) -> Result<(), LoadError> {
        let shift = self.region_shift;
        let contents = &mut self.contents;
        self.regions.try_for_each(|number, region| {
            *contents -= region.bytes();
            let sorted = region.sort(scratch);
            *contents += region.bytes();
            sorted.map_err(|twice| LoadError::OldTwice {
                old: (number << shift) + twice.offset,
                new: twice.new,
            })
        })
    }

    /// Changes a region, and removes it if it is of no use any more. `None` if it is not there.
    fn change<R>(
        &mut self,
        number: u64,
        change: impl FnOnce(&mut Region, &mut Spares) -> R,
    ) -> Option<R> {
        let region = self.regions.get_mut(number)?;
        self.contents -= region.bytes();
        self.chunks -= region.chunks();
        let result = change(region, &mut self.spares);
        self.chunks += region.chunks();
        if region.is_unused() {
            self.regions.remove(number);
            self.tidy();
        } else {
            self.contents += region.bytes();
        }
        Some(result)
    }

    /// Frees what an empty table does not need.
    fn tidy(&mut self) {
        if self.chunks == 0 {
            self.spares.tidy();
        }
    }

    fn number(&self, old: u64) -> u64 {
        old >> self.region_shift
    }

    fn offset(&self, old: u64) -> u64 {
        old & (self.region_chunks() - 1)
    }

    fn region_chunks(&self) -> u64 {
        1 << self.region_shift
    }
}

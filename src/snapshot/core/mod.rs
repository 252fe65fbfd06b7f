// SPDX-License-Identifier: GPL-2.0-only

//! Which chunk is where, who copies it, and who waits for that: the concurrent part of the targets,
//! without the kernel.
//!
//! Everything here is a plain function of data that one lock protects. Called with that lock held,
//! it changes the data and says what is to be done once the lock is given up: copy these sectors,
//! submit this bio, call the store. The kernel and the simulator of the host's tests do that each
//! in their own way; [`Types`] is what they put in place.
//!
//! An origin is divided into spans of 1 GiB, which are dealt out to [`SHARDS`] shards. A [`Shard`]
//! knows, for its spans, the exceptions of all snapshots of the origin and the copies under way.
//! Chunks never cross a span.
//!
//! # What must hold
//!
//! A sector of the origin is overwritten only if, for each snapshot that is active, its chunk's
//! record is on stable storage, and every read of the sector that the snapshot sent to the origin
//! is over.
//!
//! # The life of a copy
//!
//! 1. A write needs a chunk that a snapshot does not have. [`Shard::write_origin`] or
//!    [`Shard::write_snapshot`] has the snapshot hand out a chunk, notes a copy as pending, and keeps
//!    the bio waiting with it.
//!    Where the data passes through memory of ours, writes to the snapshot that wait are put into it there:
//!    [`Shard::overlay`].
//! 2. The copy is done: [`Shard::copied`]. From now on the snapshot reads the chunk from the COW
//!    device and writes it there, and the shard's *epoch* is closed: reads that went to the origin
//!    before are counted in it, and the copy waits for them.
//! 3. Each snapshot's [`Pipeline`] brings its exceptions into the order in which their chunks were
//!    handed out, and the store records them in that order: [`Shard::recorded`].
//! 4. When all are recorded and the epoch is over, the copy is finished: [`Finished`] has the bios
//!    that waited.
//!
//! Writes to a snapshot are over before the record of their chunk is written: a snapshot has a volatile
//! cache, and a flush waits for the records ([`Flushes`]). A write that is to be on stable storage when it
//! is over waits for step 4, as all writes to the origin do.
//!
//! [`Shard::copy_ahead`] begins copies that nobody waits for yet.
//!
//! # Merging
//!
//! [`Merge`] says what to do next to merge a snapshot into its origin, and which writes wait for that.
//! It has a lock of its own, which may be taken with a shard's held.

mod ahead;
mod copy;
mod counts;
mod epochs;
mod fill;
mod flushes;
mod merge;
mod pipeline;
mod shard;
mod slot;
pub mod table;

pub use ahead::AheadLimits;
pub use copy::{
    Copied,
    CopiedFor,
    CopyId,
    Finished,
    Item,
    Released,
    Spare,
    Start,
    Why,
    MAX_MEMBERS, //
};
pub use counts::{
    Histogram,
    OriginCounts,
    SnapshotCounts, //
};
pub use epochs::Epochs;
pub use fill::{
    Fill,
    Pace, //
};
pub use flushes::Flushes;
pub use merge::{
    BatchId,
    Limits,
    Merge,
    MergeCopy,
    MergeCounts,
    Outcome,
    Run,
    Step,
    Taken, //
};
pub use pipeline::Pipeline;
pub use shard::{
    Ahead,
    Cover,
    MergeWrite,
    OriginWrite,
    Read,
    Shard,
    SnapshotWrite, //
};

/// A snapshot's place in the shards of its origin: the same number in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotId(pub u32);

/// Binary logarithm of the sectors of a span: the largest chunk there can be.
pub const SPAN_SHIFT: u32 = 21;

/// Shards of an origin.
pub const SHARDS: usize = 64;

/// The shard that `sector` of the origin belongs to.
pub const fn shard_of(sector: u64) -> usize {
    // CAST: Less than the number of shards.
    ((sector >> SPAN_SHIFT) % SHARDS as u64) as usize
}

/// The first sector after the span of `sector`.
pub const fn span_end(sector: u64) -> u64 {
    (sector | ((1 << SPAN_SHIFT) - 1)).saturating_add(1)
}

/// What stands for a snapshot, a bio and a list of bios.
pub trait Types: Sized {
    /// A handle of a snapshot.
    type Snapshot: Snapshot;
    /// A read or write on its way.
    type Bio;
    /// Bios that wait.
    type Bios: Bios<Self::Bio>;
    /// Memory that copying needs, made before a lock is taken.
    type Job;

    /// A moment.
    type Moment;

    /// This moment. Any context.
    fn now() -> Self::Moment;

    /// Nanoseconds since then. Any context.
    fn since(then: &Self::Moment) -> u64;

    /// Whether a write that was not submitted yet is to be on stable storage when it is over.
    fn must_last(bio: &Self::Bio) -> bool;

    /// The first sector after those of a bio.
    fn end(bio: &Self::Bio) -> u64;

    /// Whether a write has data that can be put into a chunk in memory: see [`Shard::overlay`].
    fn has_data(bio: &Self::Bio) -> bool;
}

/// What a shard asks of a snapshot, with its lock held: none of it may sleep.
pub trait Snapshot: Clone {
    /// Whether writes to the origin need exceptions of it: it is valid, was resumed, and is not
    /// being merged.
    fn wants_copies(&self) -> bool;

    /// Sectors of the origin that it is a snapshot of, from the first on.
    fn sectors(&self) -> u64;

    /// Hands out at most `max` consecutive chunks of the COW device, at least one. `now` if whoever
    /// needs them cannot wait for a better moment.
    fn allocate(&self, max: u64, now: bool) -> Result<Allocation, NoChunk>;

    /// Whether it has room for chunks that may never be needed.
    fn has_plenty(&self) -> bool;

    /// From now on writes to the chunks of `ticket` may be over before these are recorded: see
    /// [`Pipeline::promise`].
    fn promise(&self, ticket: u64);
}

/// Chunks of the COW device handed out together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Its place in the order in which exceptions are recorded.
    pub ticket: u64,
    /// The first chunk.
    pub new: u64,
    /// How many, at least 1.
    pub chunks: u64,
}

/// Why no chunk was handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoChunk {
    /// The COW device is full.
    Full,
    /// There is no memory at the moment, or the COW device is nearly full and what is left of it is
    /// to last: it may be asked for again in a few milliseconds.
    NotNow,
}

/// A write that comes: one that device-mapper maps just now, which may be cut, or one that has waited.
pub trait Incoming<B> {
    /// Whether it may be cut.
    const MAY_CUT: bool;

    /// The first sector of the device that it is for.
    fn sector(&self) -> u64;

    /// How many sectors, at least 1.
    fn sectors(&self) -> u64;

    /// Cuts it down to its first `sectors`; whoever sent it sends the rest anew. Only where it may be
    /// cut.
    fn cut(&mut self, sectors: u64);

    /// Whether it is to be on stable storage when it is over.
    fn must_last(&self) -> bool;

    /// Makes it one that can wait.
    fn into_bio(self) -> B;
}

/// A list of bios that needs no memory of its own.
pub trait Bios<B>: Default {
    /// Appends a bio.
    fn push(&mut self, bio: B);

    /// Takes the first bio.
    fn pop(&mut self) -> Option<B>;

    /// Appends all of `others`, which is empty then.
    fn append(&mut self, others: &mut Self);

    /// Whether there are none.
    fn is_empty(&self) -> bool;
}

// SPDX-License-Identifier: GPL-2.0-only

//! Copies under way.

use super::{
    SlotId,
    Types, //
};
use crate::format::{
    Exception,
    NoMemory, //
};
use crate::memory::{
    Box,
    Vec,
    When, //
};

/// Snapshots that one copy may be for: what kcopyd writes to at once.
pub const MAX_MEMBERS: usize = 8;

/// A copy under way in a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyId(pub u32);

/// A copy under way: consecutive chunks of the origin, for snapshots with the same chunk size.
pub(super) struct Copy<T: Types> {
    /// The first of its chunks.
    pub(super) old: u64,
    /// How many there are.
    pub(super) chunks: u64,
    /// Binary logarithm of the sectors of a chunk.
    pub(super) shift: u32,
    /// The snapshots that it is for, from the first place on.
    pub(super) members: [Option<Member<T>>; MAX_MEMBERS],
    /// How many of them have not been recorded yet.
    pub(super) unrecorded: u32,
    /// Whether it was begun before anybody needed it.
    pub(super) ahead: bool,
    /// Whether it could not be read and was begun ahead: then there are no exceptions of it.
    pub(super) given_up: bool,
    /// The epoch of reads that it waits for.
    pub(super) epoch: Option<u64>,
    /// When it began.
    pub(super) began: T::Moment,
    /// Writes to the origin that wait for it.
    pub(super) origin_bios: T::Bios,
    /// Whether it is a write to the snapshot that is to be on stable storage when it is over. The bio does not
    /// say so for ever: a device without a volatile cache takes that from it.
    pub(super) must_last: bool,
    /// Writes to the snapshot that are a part of the copy, or all of it, and are not over with it.
    pub(super) carried: T::Bios,
}

/// One snapshot's part in a copy.
pub(super) struct Member<T: Types> {
    pub(super) slot: SlotId,
    pub(super) snapshot: T::Snapshot,
    /// The place in the order of its exceptions.
    pub(super) ticket: u64,
    /// The first chunk of the COW device.
    pub(super) new: u64,
    /// Whether nothing has gone wrong.
    pub(super) good: bool,
    /// Writes to the snapshot that wait: until the data is copied, or, if they come after that, until it is
    /// recorded.
    pub(super) bios: T::Bios,
}

impl<T: Types> Copy<T> {
    fn empty() -> Self {
        Self {
            old: 0,
            chunks: 0,
            shift: 0,
            members: [const { None }; MAX_MEMBERS],
            unrecorded: 0,
            ahead: false,
            given_up: false,
            epoch: None,
            began: T::now(),
            origin_bios: T::Bios::default(),
            must_last: false,
            carried: T::Bios::default(),
        }
    }

    /// A snapshot's part in it.
    pub(super) fn member(&self, id: SlotId) -> Option<&Member<T>> {
        self.members.iter().flatten().find(|m| m.slot == id)
    }

    /// The same, to be changed.
    pub(super) fn member_mut(&mut self, id: SlotId) -> Option<&mut Member<T>> {
        self.members.iter_mut().flatten().find(|m| m.slot == id)
    }

    /// Adds a snapshot; `None` if there is no room.
    pub(super) fn join(&mut self, member: Member<T>) -> Option<usize> {
        let index = self.members.iter().position(Option::is_none)?;
        *self.members.get_mut(index)? = Some(member);
        self.unrecorded += 1;
        Some(index)
    }
}

/// Memory for copies, made before a lock is taken, and what was started with it.
pub struct Spare<T: Types> {
    pub(super) jobs: Vec<T::Job>,
    pub(super) copies: Vec<Box<Copy<T>>>,
    pub(super) started: Vec<Start<T>>,
    /// Whether whoever needs chunks cannot wait for a better moment: see [`Snapshot::allocate`].
    ///
    /// [`Snapshot::allocate`]: super::Snapshot::allocate
    pub now: bool,
    /// Set when [`Shard::copy_ahead`] has something to do.
    ///
    /// [`Shard::copy_ahead`]: super::Shard::copy_ahead
    pub ahead: bool,
}

impl<T: Types> Spare<T> {
    /// Has no memory.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self {
            jobs: Vec::new(),
            copies: Vec::new(),
            started: Vec::new(),
            now: false,
            ahead: false,
        }
    }

    /// Gets memory for one more copy. May sleep; without a lock.
    pub fn add(&mut self, job: T::Job) -> Result<(), NoMemory> {
        self.jobs.reserve(1, When::Sleep)?;
        self.copies.reserve(1, When::Sleep)?;
        self.started.reserve(self.jobs.len() + 1, When::Sleep)?;
        let copy = Box::new(Copy::empty(), When::Sleep)?;
        self.copies.push(copy).map_err(|_| NoMemory)?;
        self.jobs.push(job).map_err(|_| NoMemory)
    }

    /// For how many copies there is memory.
    pub fn len(&self) -> usize {
        self.copies.len().min(self.jobs.len())
    }

    /// Whether there is memory for none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many copies are to be started, up to `most`; of those that [`Spare::started`] returns first, the
    /// first sector of the origin that they are of, and the first after them. `None` if there are none.
    pub fn to_be_started(&self, most: usize) -> Option<(usize, u64, u64)> {
        let starts = || self.started.iter().rev().take(most);
        let from = starts().map(|start| start.sector).min()?;
        let until = starts().map(|start| start.sector + start.sectors).max()?;
        Some((starts().count(), from, until))
    }

    /// Who needs them.
    pub fn why(&self) -> Option<Why> {
        self.started.last().map(|start| start.why)
    }

    /// The snapshots that they are for.
    pub fn snapshots(&self) -> impl Iterator<Item = &T::Snapshot> {
        let members = self.started.iter().flat_map(|start| start.to.iter());
        members.flatten().map(|(snapshot, _)| snapshot)
    }

    /// Whether there are copies to be started.
    pub(super) fn has_started(&self) -> bool {
        self.started.last().is_some()
    }

    /// A copy to be started, once the lock was given up.
    pub fn started(&mut self) -> Option<Start<T>> {
        self.started.pop()
    }
}

/// Who needs a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A write to the origin, which waits until it is recorded.
    Origin,
    /// A write to a part of a chunk of the snapshot, which [`Shard::overlay`] can make a part of it.
    ///
    /// [`Shard::overlay`]: super::Shard::overlay
    Snapshot,
    /// Nobody yet.
    Ahead,
}

/// What to copy.
pub struct Start<T: Types> {
    /// The memory for it.
    pub job: T::Job,
    /// What to call it by in [`Shard::copied`](super::Shard::copied).
    pub copy: CopyId,
    /// The first sector of the origin. Past the end of the device there is nothing to copy.
    pub sector: u64,
    /// How many sectors.
    pub sectors: u64,
    /// How many chunks these are.
    pub chunks: u64,
    /// Who needs it.
    pub why: Why,
    /// The snapshots to copy to, each with the first sector of its COW device. Their number in here
    /// is the one of their bit in `copied`'s `failed`.
    pub to: [Option<(T::Snapshot, u64)>; MAX_MEMBERS],
}

/// Exceptions of one snapshot that were copied, or could not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// The copy that they are of.
    pub copy: CopyId,
    /// Which of its snapshots this is.
    pub member: u8,
    /// The first chunk of the origin.
    pub old: u64,
    /// The first chunk of the COW device.
    pub new: u64,
    /// How many chunks.
    pub chunks: u64,
    /// Whether they are on the COW device.
    pub copied: bool,
    /// Whether they are on its stable storage already.
    pub stable: bool,
    /// Whether they could not be read when that was tried ahead: there is nothing to record, and nothing is
    /// wrong. Such an item is done with when all before it are recorded.
    pub given_up: bool,
}

impl Item {
    /// The first exception.
    pub fn first(&self) -> Exception {
        Exception {
            old: self.old,
            new: self.new,
        }
    }
}

/// What is to be done when a copy is done.
pub struct Copied<T: Types> {
    /// For each of its snapshots.
    pub snapshots: [Option<CopiedFor<T>>; MAX_MEMBERS],
    /// The writes to a snapshot that were a part of the copy and are over.
    pub carried: T::Bios,
}

/// What is to be done for one of the snapshots of a copy.
pub struct CopiedFor<T: Types> {
    /// The snapshot.
    pub snapshot: T::Snapshot,
    /// What its pipeline is to complete.
    pub ticket: u64,
    /// With what.
    pub item: Item,
    /// Writes to the snapshot that need not wait any more: they go through
    /// [`Shard::write_snapshot`](super::Shard::write_snapshot) again.
    pub bios: T::Bios,
}

/// A copy that is finished: these bios need not wait for it any more.
pub struct Finished<T: Types> {
    /// Writes to the origin, which go through [`Shard::write_origin`](super::Shard::write_origin)
    /// again.
    pub origin: T::Bios,
    /// What waited in each of its snapshots.
    pub snapshots: [Option<Released<T>>; MAX_MEMBERS],
    /// The writes to a snapshot that were a part of the copy and were not over before.
    pub carried: T::Bios,
    /// Whether these are on stable storage; else they fail.
    pub recorded: bool,
}

/// What a finished copy held back in one of its snapshots.
pub struct Released<T: Types> {
    /// The snapshot.
    pub snapshot: T::Snapshot,
    /// Whether the exceptions were recorded, or are to be tried again.
    pub recorded: bool,
    /// Writes to the snapshot: they go through
    /// [`Shard::write_snapshot`](super::Shard::write_snapshot) again if so, and fail if not.
    pub bios: T::Bios,
}

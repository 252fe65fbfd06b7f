// SPDX-License-Identifier: GPL-2.0-only

//! What a shard knows of one snapshot.

use super::{
    copy::CopyId,
    counts::SnapshotCounts,
    table::{
        Found,
        Table, //
    },
    SlotId,
    Snapshot,
    Types, //
};
use crate::memory::Vec;

/// Chunks of a snapshot that are being copied.
#[derive(Clone, Copy)]
pub(super) struct Pending {
    /// The first chunk of the origin.
    pub(super) old: u64,
    /// The first chunk of the COW device.
    pub(super) new: u64,
    /// How many.
    pub(super) chunks: u64,
    /// The copy.
    pub(super) copy: CopyId,
    /// Whether the data is on the COW device, so that the snapshot reads it there.
    pub(super) copied: bool,
}

impl Pending {
    fn end(&self) -> u64 {
        self.old + self.chunks
    }
}

/// A chunk's whereabouts, and for how many chunks from there on it is the same.
pub(super) enum Chunk {
    /// On the COW device, from chunk `new` on; recorded.
    Recorded {
        /// The chunk of the COW device.
        new: u64,
        /// How many.
        chunks: u64,
    },
    /// Being copied.
    Pending(Pending),
    /// On the origin only.
    Origin {
        /// How many.
        chunks: u64,
    },
}

/// A snapshot in a shard.
pub(super) struct Slot<T: Types> {
    pub(super) id: SlotId,
    pub(super) snapshot: T::Snapshot,
    /// Binary logarithm of the sectors of a chunk.
    pub(super) shift: u32,
    /// The exceptions that are recorded.
    pub(super) table: Table,
    /// Those that are being copied, ascending.
    pub(super) pending: Vec<Pending>,
    pub(super) counts: SnapshotCounts,
}

impl<T: Types> Slot<T> {
    /// Whether a write to `sector` of the origin needs an exception of this snapshot.
    pub(super) fn is_concerned(&self, sector: u64) -> bool {
        self.snapshot.wants_copies() && sector < self.snapshot.sectors()
    }

    /// Where chunk `old` is.
    pub(super) fn find(&self, old: u64) -> Chunk {
        let gap = match self.table.find(old) {
            Found::Run { new, chunks } => return Chunk::Recorded { new, chunks },
            Found::Gap { chunks } => chunks,
        };
        // The first that does not end before `old`.
        let index = self.pending.partition_point(|p| p.end() <= old);
        match self.pending.get(index) {
            Some(p) if p.old <= old => {
                let skip = old - p.old;
                Chunk::Pending(Pending {
                    old,
                    new: p.new + skip,
                    chunks: p.chunks - skip,
                    ..*p
                })
            }
            Some(p) => Chunk::Origin {
                chunks: gap.min(p.old - old),
            },
            None => Chunk::Origin { chunks: gap },
        }
    }

    /// The first sector from `sector` on, and before `end`, that is not recorded; `end` if there is
    /// none.
    pub(super) fn covered_until(&self, sector: u64, end: u64) -> u64 {
        let mut at = sector;
        while at < end {
            let old = at >> self.shift;
            match self.table.find(old) {
                Found::Run { chunks, .. } => at = (old + chunks) << self.shift,
                Found::Gap { .. } => return at,
            }
        }
        end
    }

    /// The first sector from `sector` on, and before `end`, from which on chunks are recorded; `sector`
    /// itself if it is, and `end` if there is none.
    pub(super) fn missing_until(&self, sector: u64, end: u64) -> u64 {
        let old = sector >> self.shift;
        match self.table.find(old) {
            Found::Run { .. } => sector,
            // What is behind the snapshot it does not miss.
            Found::Gap { chunks } => {
                let until = (old + chunks) << self.shift;
                until.min(end).min(self.snapshot.sectors())
            }
        }
    }

    /// Notes a copy, for which there is room in `pending`.
    pub(super) fn add_pending(&mut self, pending: Pending) {
        let index = self.pending.partition_point(|p| p.old < pending.old);
        // There is room: see above.
        let _ = self.pending.insert(index, pending);
    }

    /// The pending chunks that begin with `old`.
    pub(super) fn pending_mut(&mut self, old: u64) -> Option<&mut Pending> {
        let index = self.pending.partition_point(|p| p.old < old);
        self.pending.get_mut(index).filter(|p| p.old == old)
    }

    /// Forgets the copy whose first chunk is `old`.
    pub(super) fn remove_pending(&mut self, old: u64) {
        let index = self.pending.partition_point(|p| p.old < old);
        if self.pending.get(index).is_some_and(|p| p.old == old) {
            self.pending.remove(index);
        }
    }
}

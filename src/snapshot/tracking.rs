// SPDX-License-Identifier: GPL-2.0-only

//! What is to be done when a bio is over.

use super::core::CopyId;
use kernel::prelude::*;

/// Beside each bio. Nothing is to be done for one that is all zeroes.
#[derive(Clone, Copy, Default, Zeroable)]
#[repr(C)]
pub(crate) struct Tracking {
    /// One of the constants below.
    what: u32,
    /// The number of the copy that the bio is.
    copy: u32,
    /// The shard that it is counted in.
    shard: u32,
    _padding: u32,
    /// The epoch that it is counted in.
    epoch: u64,
}

const READ: u32 = 1;
const MERGE_WRITE: u32 = 2;
const FULL: u32 = 3;

/// What a bio is.
pub(super) enum Tracked {
    /// Nothing of interest.
    No,
    /// A snapshot's read of the origin: shard, epoch.
    Read(usize, u64),
    /// A write to the COW device of a snapshot that is being merged: epoch.
    MergeWrite(u64),
    /// A write of whole chunks to a snapshot: shard, copy.
    Full(usize, CopyId),
}

impl Tracking {
    /// A snapshot's read of the origin, counted in this epoch of this shard.
    pub(super) fn read(shard: usize, epoch: u64) -> Self {
        Self {
            what: READ,
            // CAST: There are few shards.
            shard: shard as u32,
            epoch,
            ..Self::default()
        }
    }

    /// A write to the COW device of a snapshot that is being merged, counted in this epoch.
    pub(super) fn merge_write(epoch: u64) -> Self {
        Self {
            what: MERGE_WRITE,
            ..Self::read(0, epoch)
        }
    }

    /// A write of whole chunks to a snapshot, which is this copy in this shard.
    pub(super) fn full(shard: usize, copy: CopyId) -> Self {
        Self {
            what: FULL,
            copy: copy.0,
            ..Self::read(shard, 0)
        }
    }

    /// What the bio is.
    pub(super) fn what(&self) -> Tracked {
        let shard = self.shard as usize;
        match self.what {
            READ => Tracked::Read(shard, self.epoch),
            MERGE_WRITE => Tracked::MergeWrite(self.epoch),
            FULL => Tracked::Full(shard, CopyId(self.copy)),
            _ => Tracked::No,
        }
    }
}

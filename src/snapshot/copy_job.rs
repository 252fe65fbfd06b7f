// SPDX-License-Identifier: GPL-2.0-only

//! A copy, in kcopyd's hands or those of the [`copier`](super::copier).

use super::{
    core::CopyId,
    Leased,
    Origin, //
};
use crate::dm::{
    kcopyd::{
        self,
        CopyOf, //
    },
    BioList, //
};
use kernel::prelude::*;

/// What is to be done when a copy is over.
pub(super) struct CopyJob {
    origin: Leased<Origin>,
    shard: usize,
    /// Set when the copy is started.
    pub(super) copy: CopyId,
    /// Chunks, as far as the throttle counts them. Set when the copy is started.
    pub(super) chunks: u64,
    /// Sectors. Set when the copy is started.
    pub(super) sectors: u64,
}

impl CopyJob {
    /// For a copy in this shard of this origin. May sleep.
    pub(super) fn new(origin: &Leased<Origin>, shard: usize) -> Result<KBox<CopyOf<Self>>> {
        CopyOf::new(Self {
            origin: origin.clone(),
            shard,
            copy: CopyId(0),
            chunks: 0,
            sectors: 0,
        })
    }
}

impl CopyJob {
    /// The origin that is copied from.
    pub(super) fn origin(&self) -> Leased<Origin> {
        self.origin.clone()
    }

    /// What was read, up to sector `end` of the origin, is in memory: takes the writes to a snapshot that can
    /// be put into it. They go to [`Self::over`].
    pub(super) fn overlay(&self, end: u64) -> BioList {
        let cell = self.origin.cell(self.shard);
        let writes = cell.shard.lock().overlay(self.copy, end);
        writes
    }

    /// The copy is over, or failed for the snapshots whose bits are set; `stable` if it is on stable storage.
    /// `carried` are the writes to a snapshot that are a part of it. Sleeps.
    pub(super) fn over(job: KBox<CopyOf<Self>>, failed: usize, stable: bool, carried: BioList) {
        job.origin.copying_ended(job.chunks, job.sectors);
        job.origin
            .copied(job.shard, job.copy, failed, stable, carried);
    }
}

impl kcopyd::CopyJob for CopyJob {
    fn done(job: KBox<CopyOf<Self>>, read_failed: bool, write_failed: usize) {
        let failed = if read_failed {
            usize::MAX
        } else {
            write_failed
        };
        Self::over(job, failed, false, BioList::new());
    }
}

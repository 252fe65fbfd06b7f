// SPDX-License-Identifier: GPL-2.0-only

//! A copy in kcopyd's hands.

use super::{
    core::CopyId,
    Leased,
    Origin, //
};
use crate::dm::kcopyd::{
    self,
    CopyOf, //
};
use kernel::prelude::*;

/// What kcopyd is to do when a copy is over.
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

impl kcopyd::CopyJob for CopyJob {
    fn done(job: KBox<CopyOf<Self>>, read_failed: bool, write_failed: usize) {
        let failed = if read_failed {
            usize::MAX
        } else {
            write_failed
        };
        job.origin.copying_ended(job.chunks, job.sectors);
        job.origin.copied(job.shard, job.copy, failed, None);
    }
}

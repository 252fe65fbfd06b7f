// SPDX-License-Identifier: GPL-2.0-only

//! What may be known of the persistent store without waiting for its I/O.

use super::{
    counts::{
        of_records,
        CommitCounts,
        Figure, //
    },
    metadata::Allocator, //
};
use kernel::{
    new_spinlock,
    prelude::*,
    sync::SpinLock, //
};
#[cfg(under_c_core)]
use {
    super::counts::write_figures,
    crate::dm::debugfs::Show,
    kernel::{
        fmt,
        sync::Arc, //
    }, //
};

/// What may be known of a store without waiting for its I/O.
#[pin_data]
pub(super) struct Known {
    /// `None` until the store is loaded. Taken in the map path, under spinlocks of the caller's, and with
    /// none of the store's held.
    #[pin]
    pub(super) allocator: SpinLock<Option<Allocator>>,
    pub(super) counts: CommitCounts,
}

impl Known {
    /// Of a store that is not loaded.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            allocator <- new_spinlock!(None, "Known::allocator"),
            counts: CommitCounts::new(),
        })
    }

    /// What there is to be said of the records. Any context but an interrupt.
    pub(super) fn records(&self) -> [Figure; 3] {
        let records = self.allocator.lock().as_ref().map_or(0, Allocator::records);
        let (commits, committed) = self.counts.get();
        of_records(records, commits, committed)
    }
}

/// What a store shows under the C core, which has no message to ask for it.
#[cfg(under_c_core)]
impl Show for Arc<Known> {
    fn show(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let sectors = self.allocator.lock().as_ref().map_or((0, 0), |allocator| {
            let geometry = allocator.geometry();
            let used = geometry.chunks(allocator.allocated_chunks(), 0).sector;
            (geometry.chunk_size().sectors(), used)
        });
        let figures = [
            ("chunk_sectors", sectors.0.into()),
            ("cow_sectors_used", sectors.1),
        ];
        write_figures(&figures, out)?;
        write_figures(&self.records(), out)
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! The targets' events, which `trace.h` declares: below `events/dm_snapshot/` of tracefs. One that
//! nobody listens to costs a call. Any context.

use super::BlockDevice;
use crate::format::Exception;

/// A snapshot, as its events name it.
#[derive(Clone, Copy)]
pub(crate) struct Traced {
    origin: u32,
    cow: u32,
}

extern "C" {
    fn dm_trace_exception_start(
        origin: u32,
        cow: u32,
        old: u64,
        new: u64,
        chunks: u64,
        sectors: u64,
    );
    fn dm_trace_copied(origin: u32, cow: u32, old: u64, new: u64, chunks: u64, good: bool);
    fn dm_trace_durable(origin: u32, cow: u32, old: u64, new: u64, chunks: u64, good: bool);
    fn dm_trace_merge_batch(origin: u32, cow: u32, exceptions: u32, good: bool);
    fn dm_trace_overflow(origin: u32, cow: u32, sectors: u64, kept: bool);
    fn dm_trace_drop(origin: u32, cow: u32, full: bool);
}

impl Traced {
    /// The snapshot with these devices.
    pub(crate) fn new(origin: &BlockDevice, cow: &BlockDevice) -> Self {
        Self {
            origin: origin.number(),
            cow: cow.number(),
        }
    }

    /// `chunks` are to become exceptions, from `first` on; `sectors` of the origin are copied for that.
    pub(crate) fn exception_start(self, first: Exception, chunks: u64, sectors: u64) {
        let Self { origin, cow } = self;
        // SAFETY: It takes numbers.
        unsafe { dm_trace_exception_start(origin, cow, first.old, first.new, chunks, sectors) }
    }

    /// `chunks` are on the COW device, from `first` on, if `good`, else could not be copied.
    pub(crate) fn copied(self, first: Exception, chunks: u64, good: bool) {
        let Self { origin, cow } = self;
        // SAFETY: It takes numbers.
        unsafe { dm_trace_copied(origin, cow, first.old, first.new, chunks, good) }
    }

    /// The records of `chunks`, from `first` on, are on stable storage if `good`, else never will be.
    pub(crate) fn durable(self, first: Exception, chunks: u64, good: bool) {
        let Self { origin, cow } = self;
        // SAFETY: It takes numbers.
        unsafe { dm_trace_durable(origin, cow, first.old, first.new, chunks, good) }
    }

    /// A merge has cleared so many records if `good`, else could not.
    pub(crate) fn merge_batch(self, exceptions: u32, good: bool) {
        // SAFETY: It takes numbers.
        unsafe { dm_trace_merge_batch(self.origin, self.cow, exceptions, good) }
    }

    /// The COW device, which has so many sectors, is full. The snapshot is `kept`, or becomes invalid.
    pub(crate) fn overflow(self, sectors: u64, kept: bool) {
        // SAFETY: It takes numbers.
        unsafe { dm_trace_overflow(self.origin, self.cow, sectors, kept) }
    }

    /// The snapshot is invalid from now on: since it is `full`, or I/O failed.
    pub(crate) fn drop(self, full: bool) {
        // SAFETY: It takes numbers.
        unsafe { dm_trace_drop(self.origin, self.cow, full) }
    }
}

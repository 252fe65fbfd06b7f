// SPDX-License-Identifier: GPL-2.0-only

//! What a target wants bios to be like.

use kernel::bindings;

/// The limits of a device that is being made of a target. Wraps `struct queue_limits`.
pub(crate) struct QueueLimits<'a>(&'a mut bindings::queue_limits);

impl<'a> QueueLimits<'a> {
    /// # Safety
    ///
    /// `limits` must be valid and ours for `'a`.
    pub(super) unsafe fn from_raw(limits: *mut bindings::queue_limits) -> Self {
        // SAFETY: The caller vouches for it.
        Self(unsafe { &mut *limits })
    }

    /// What is discarded is a multiple of this many bytes, and begins at one.
    pub(crate) fn set_discard_granularity(&mut self, bytes: u32) {
        self.0.discard_granularity = bytes;
    }

    /// The most sectors of one discard.
    pub(crate) fn set_max_discard_sectors(&mut self, sectors: u32) {
        self.0.max_hw_discard_sectors = sectors;
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! What may be known of a snapshot without a lock.

use ::core::sync::atomic::{
    AtomicBool,
    AtomicU32,
    AtomicU64,
    Ordering::SeqCst, //
};

/// The states of a snapshot that I/O asks for. They change seldom; each for itself.
pub(super) struct State {
    loaded: AtomicBool,
    valid: AtomicBool,
    active: AtomicBool,
    merging: AtomicBool,
    overflowed: AtomicBool,
    keep: AtomicBool,
    merge_failed: AtomicBool,
    shift: AtomicU32,
    sectors: AtomicU64,
}

impl State {
    /// Of a snapshot that is valid, as far as is known, and was not resumed yet.
    /// `keep`: see [`State::is_kept`].
    pub(super) const fn new(keep: bool) -> Self {
        Self {
            loaded: AtomicBool::new(false),
            valid: AtomicBool::new(true),
            active: AtomicBool::new(false),
            merging: AtomicBool::new(false),
            overflowed: AtomicBool::new(false),
            keep: AtomicBool::new(keep),
            merge_failed: AtomicBool::new(false),
            shift: AtomicU32::new(0),
            sectors: AtomicU64::new(0),
        }
    }

    /// Whether the origin knows the snapshot.
    pub(super) fn is_loaded(&self) -> bool {
        self.loaded.load(SeqCst)
    }

    /// The origin knows the snapshot.
    pub(super) fn set_loaded(&self) {
        self.loaded.store(true, SeqCst);
    }

    /// Whether the snapshot may be used.
    pub(super) fn is_valid(&self) -> bool {
        self.valid.load(SeqCst)
    }

    /// The snapshot may not be used any more, for good.
    pub(super) fn set_invalid(&self) {
        self.valid.store(false, SeqCst);
    }

    /// Whether a table with the snapshot was resumed.
    pub(super) fn is_active(&self) -> bool {
        self.active.load(SeqCst)
    }

    /// A table with the snapshot was resumed, or the last one goes away.
    pub(super) fn set_active(&self, active: bool) {
        self.active.store(active, SeqCst);
    }

    /// Whether the snapshot is being merged into its origin.
    pub(super) fn is_merging(&self) -> bool {
        self.merging.load(SeqCst)
    }

    /// The snapshot passes to a table of `snapshot-merge`, or of `snapshot`.
    pub(super) fn set_merging(&self, merging: bool) {
        self.merging.store(merging, SeqCst);
    }

    /// Whether a write found no room, and the snapshot is not invalid for that.
    pub(super) fn has_overflowed(&self) -> bool {
        self.overflowed.load(SeqCst)
    }

    /// A write found no room. Returns whether that is new.
    pub(super) fn set_overflowed(&self) -> bool {
        !self.overflowed.swap(true, SeqCst)
    }

    /// There is room again.
    pub(super) fn clear_overflowed(&self) {
        self.overflowed.store(false, SeqCst);
    }

    /// Whether the snapshot is kept when its COW device is full: then writes to the origin fail that it
    /// has no room for. Else it becomes invalid, and they go on.
    pub(super) fn is_kept(&self) -> bool {
        self.keep.load(SeqCst)
    }

    /// What is to become of the snapshot when its COW device is full.
    pub(super) fn set_kept(&self, keep: bool) {
        self.keep.store(keep, SeqCst);
    }

    /// Whether a merge came to an end before its time.
    pub(super) fn has_merge_failed(&self) -> bool {
        self.merge_failed.load(SeqCst)
    }

    /// A merge came to an end before its time, or the snapshot passes to a table that has not tried.
    pub(super) fn set_merge_failed(&self, failed: bool) {
        self.merge_failed.store(failed, SeqCst);
    }

    /// Binary logarithm of the sectors of a chunk.
    pub(super) fn shift(&self) -> u32 {
        self.shift.load(SeqCst)
    }

    /// Sectors of a chunk.
    pub(super) fn chunk_sectors(&self) -> u32 {
        1 << self.shift()
    }

    /// The snapshot was loaded, and its chunks have `1 << shift` sectors.
    pub(super) fn set_shift(&self, shift: u32) {
        self.shift.store(shift, SeqCst);
    }

    /// Sectors of the origin that this is a snapshot of.
    pub(super) fn sectors(&self) -> u64 {
        self.sectors.load(SeqCst)
    }

    /// A table with so many sectors was resumed.
    pub(super) fn set_sectors(&self, sectors: u64) {
        self.sectors.store(sectors, SeqCst);
    }
}

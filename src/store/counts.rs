// SPDX-License-Identifier: GPL-2.0-only

//! What was committed, counted.

use core::sync::atomic::{
    AtomicU64,
    Ordering::Relaxed, //
};

/// Counts commits. Any context, without a lock: who asks may not wait for I/O.
pub(crate) struct CommitCounts {
    commits: AtomicU64,
    exceptions: AtomicU64,
}

impl CommitCounts {
    /// Nothing was committed.
    pub(super) const fn new() -> Self {
        Self {
            commits: AtomicU64::new(0),
            exceptions: AtomicU64::new(0),
        }
    }

    /// The records of so many exceptions were written together.
    pub(super) fn note(&self, exceptions: u64) {
        self.commits.fetch_add(1, Relaxed);
        self.exceptions.fetch_add(exceptions, Relaxed);
    }

    /// How often records were written, each time with a flush, and of how many exceptions.
    pub(crate) fn get(&self) -> (u64, u64) {
        (self.commits.load(Relaxed), self.exceptions.load(Relaxed))
    }

    /// Begins to count anew.
    pub(crate) fn reset(&self) {
        self.commits.store(0, Relaxed);
        self.exceptions.store(0, Relaxed);
    }
}

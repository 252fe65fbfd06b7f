// SPDX-License-Identifier: GPL-2.0-only

//! What was committed, counted, and how figures are written down.

use core::sync::atomic::{
    AtomicU64,
    Ordering::Relaxed, //
};
use kernel::fmt;

/// Counts commits. Any context, without a lock: who asks may not wait for I/O.
pub(super) struct CommitCounts {
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
    pub(super) fn get(&self) -> (u64, u64) {
        (self.commits.load(Relaxed), self.exceptions.load(Relaxed))
    }

    /// Begins to count anew.
    #[cfg(not(under_c_core))]
    pub(super) fn reset(&self) {
        self.commits.store(0, Relaxed);
        self.exceptions.store(0, Relaxed);
    }
}

/// A figure and its name.
pub(crate) type Figure = (&'static str, u64);

/// What a store says of its records: how many there are, how often they were written, and of how many
/// exceptions.
pub(super) const fn of_records(records: u64, commits: u64, committed: u64) -> [Figure; 3] {
    [
        ("records", records),
        ("commits", commits),
        ("committed", committed),
    ]
}

/// The same of a store that has none.
#[cfg(not(under_c_core))]
pub(crate) const NO_RECORDS: [Figure; 3] = of_records(0, 0, 0);

/// Writes a line for each figure: its name, a space, and the number.
pub(crate) fn write_figures(figures: &[Figure], out: &mut dyn fmt::Write) -> fmt::Result {
    figures
        .iter()
        .try_for_each(|(name, value)| writeln!(out, "{name} {value}"))
}

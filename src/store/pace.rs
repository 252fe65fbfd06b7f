// SPDX-License-Identifier: GPL-2.0-only

//! How long exceptions wait for each other.

use kernel::time::{Delta, Instant, Monotonic};

/// Decides whether an exception whose neighbours are still being copied waits for them.
///
/// Writing records costs a flush and a write, however many there are: waiting saves I/O, and costs
/// time that writes to the origin wait too. Whenever one comes, it and those who wait go on waiting
/// only if the first of them has waited for less time than writing took the last time. There is no
/// timer: those who wait for a single copy that takes long wait for it. So at most half of the time
/// is spent writing. Boundless patience, which the C store has, lets exceptions wait for as long as
/// copies overlap: under steady load, for ever.
pub(super) struct Pace {
    /// Since when the first of those who wait does.
    waiting_since: Option<Instant<Monotonic>>,
    /// How long writing took the last time, in nanoseconds.
    last_write: i64,
}

impl Pace {
    /// Before anything was written.
    pub(super) const fn new() -> Self {
        Self {
            waiting_since: None,
            // A turn or two of a disk.
            last_write: Delta::from_millis(10).as_nanos(),
        }
    }

    /// Whether an exception that comes at `now` may wait.
    pub(super) fn may_wait(&mut self, now: Instant<Monotonic>) -> bool {
        let since = *self.waiting_since.get_or_insert(now);
        (now - since).as_nanos() < self.last_write
    }

    /// Notes that all who waited were written for, which was begun at `began`.
    pub(super) fn wrote(&mut self, began: Instant<Monotonic>) {
        self.last_write = began.elapsed().as_nanos();
        self.waiting_since = None;
    }
}

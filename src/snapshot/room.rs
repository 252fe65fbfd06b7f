// SPDX-License-Identifier: GPL-2.0-only

//! How a COW device becomes full: what userspace was told of it, and when more is handed out.

use super::core::{
    Fill,
    Pace, //
};
use kernel::time::{
    Instant,
    Monotonic, //
};

/// Of one snapshot.
pub(super) struct Room {
    /// The step of [`Fill`] that userspace was told, and how large the COW device was then.
    told: (u64, u64),
    /// Whether the last chunk that was handed out was of those that are to last.
    pub(super) was_slow: bool,
    pace: Pace,
    /// What `pace` counts from.
    began: Instant<Monotonic>,
}

impl Room {
    /// Nothing was told or handed out.
    pub(super) fn new() -> Self {
        Self {
            told: (0, 0),
            was_slow: false,
            pace: Pace::default(),
            began: Instant::now(),
        }
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos().unsigned_abs()
    }

    /// Whether the next of the last chunks may be handed out.
    pub(super) fn allows(&self) -> bool {
        self.pace.allows(self.now())
    }

    /// One of the last chunks was handed out: the next is to come so many nanoseconds later.
    pub(super) fn pause(&mut self, nanoseconds: u64) {
        self.pace = self.pace.after(self.now(), nanoseconds);
    }

    /// Whether userspace is to be told that the COW device is as full as this, and was not yet.
    pub(super) fn is_news(&mut self, fill: Fill) -> bool {
        if self.told.1 != fill.total {
            self.told = (0, fill.total);
        }
        let step = fill.step();
        let is_news = step > self.told.0;
        self.told.0 = self.told.0.max(step);
        is_news
    }
}

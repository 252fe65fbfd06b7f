// SPDX-License-Identifier: GPL-2.0-only

//! What must be done in the order of the bytes, though several threads prepare it.

use crate::error::Result;
use crate::threads::Stop;
use std::ops::Range;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Something that is given ranges of bytes in ascending order.
pub struct InOrder<T> {
    /// Up to where it was given bytes.
    next: Mutex<(u64, T)>,
    turn: Condvar,
}

impl<T> InOrder<T> {
    /// How often a thread that waits for its turn looks whether another has failed.
    const LOOK: Duration = Duration::from_millis(100);

    /// `value`, which is given bytes from `start` on.
    pub fn new(start: u64, value: T) -> Self {
        Self {
            next: Mutex::new((start, value)),
            turn: Condvar::new(),
        }
    }

    /// Waits until all before `range` was given, and gives it `range` by `give`. Does nothing when
    /// another thread has failed.
    ///
    /// The ranges must be handed out in ascending order, and each thread have one at a time, so that
    /// whoever has the first one never waits.
    pub fn give(
        &self,
        range: Range<u64>,
        stop: &Stop,
        give: impl FnOnce(&mut T) -> Result<()>,
    ) -> Result<()> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        while next.0 != range.start {
            if stop.asked() {
                return Ok(());
            }
            let waited = self.turn.wait_timeout(next, Self::LOOK);
            next = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        give(&mut next.1)?;
        next.0 = range.end;
        self.turn.notify_all();
        Ok(())
    }

    /// Up to where it was given bytes, and what it became.
    pub fn into_inner(self) -> (u64, T) {
        let inner = self.next.into_inner();
        inner.unwrap_or_else(PoisonError::into_inner)
    }
}

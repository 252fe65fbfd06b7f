// SPDX-License-Identifier: GPL-2.0-only

//! Flushes of a snapshot that wait for records.

use super::Bios;

/// Flushes that wait until what was promised before them is recorded: see
/// [`Pipeline::promise`](super::Pipeline::promise).
///
/// Those that come while others wait go together when these are done, so that none waits for promises
/// that are made again and again.
#[derive(Default)]
pub struct Flushes<L> {
    waiting: L,
    /// How many tickets must be recorded for `waiting`.
    until: u64,
    later: L,
}

impl<L: Default> Flushes<L> {
    /// A flush comes, and waits until so many tickets are recorded.
    pub fn add<F>(&mut self, flush: F, owed: u64)
    where
        L: Bios<F>,
    {
        if self.waiting.is_empty() {
            self.until = owed;
        }
        if owed <= self.until {
            self.waiting.push(flush);
        } else {
            self.later.push(flush);
        }
    }

    /// So many tickets are recorded, and so many are owed now: returns the flushes that need not wait any
    /// more.
    pub fn ready<F>(&mut self, recorded: u64, owed: Option<u64>) -> L
    where
        L: Bios<F>,
    {
        if recorded < self.until {
            return L::default();
        }
        let mut ready = core::mem::take(&mut self.waiting);
        match owed {
            Some(owed) => {
                self.until = owed;
                self.waiting = core::mem::take(&mut self.later);
            }
            None => ready.append(&mut self.later),
        }
        ready
    }
}

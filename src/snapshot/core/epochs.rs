// SPDX-License-Identifier: GPL-2.0-only

//! Counting requests under way, so that one can wait for those that began earlier.

use crate::atomic::{
    AtomicU32,
    AtomicU64,
    SeqCst, //
};

/// Epochs that can be under way at once.
const RING: u64 = 8;

/// Counts requests by the epoch that they began in.
///
/// A request begins in the current epoch. Closing it begins the next one; who closed it waits until
/// it is over, which is when all requests that began in it or earlier have ended. New requests do
/// not delay that.
///
/// All methods but [`Epochs::end`] are called with the lock held that these epochs belong to.
pub struct Epochs {
    /// Requests under way, by epoch modulo [`RING`].
    counts: [AtomicU32; RING as usize],
    /// The current epoch.
    head: AtomicU64,
    /// The oldest epoch that is not over: at most `head`, at least `head - RING + 1`.
    tail: AtomicU64,
    /// 1 while `head` is to be closed and the ring has no room for another epoch, else 0. It is
    /// closed as soon as there is room; whoever asked for it waits for `head` all the while.
    close_late: AtomicU32,
}

impl Epochs {
    /// Begins epoch 0.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self {
            counts: [const { AtomicU32::new(0) }; RING as usize],
            head: AtomicU64::new(0),
            tail: AtomicU64::new(0),
            close_late: AtomicU32::new(0),
        }
    }

    fn count(&self, epoch: u64) -> &AtomicU32 {
        // CAST: Less than `RING`. Always in bounds.
        &self.counts[(epoch % RING) as usize]
    }

    /// Counts a request that begins; returns its epoch.
    pub fn begin(&self) -> u64 {
        let epoch = self.head.load(SeqCst);
        self.count(epoch).fetch_add(1, SeqCst);
        epoch
    }

    /// Counts a request of `epoch` as over. Any context, without the lock.
    ///
    /// Returns whether somebody may wait for that: then [`Epochs::advance`] is to be called.
    pub fn end(&self, epoch: u64) -> bool {
        // Whoever closes the epoch stores `head` and then reads the count: of the two, one sees what
        // the other did.
        self.count(epoch).fetch_sub(1, SeqCst) == 1
            && (self.head.load(SeqCst) != epoch || self.close_late.load(SeqCst) != 0)
    }

    /// Closes the current epoch; returns the epoch to wait for.
    pub fn close(&self) -> u64 {
        let epoch = self.head.load(SeqCst);
        self.close_late.store(1, SeqCst);
        self.advance();
        epoch
    }

    /// Whether `epoch` is over.
    pub fn is_over(&self, epoch: u64) -> bool {
        self.tail.load(SeqCst) > epoch
    }

    /// Takes note of requests that ended.
    pub fn advance(&self) {
        loop {
            let (mut head, mut tail) = (self.head.load(SeqCst), self.tail.load(SeqCst));
            while tail < head && self.count(tail).load(SeqCst) == 0 {
                tail += 1;
            }
            self.tail.store(tail, SeqCst);
            if self.close_late.load(SeqCst) == 0 || head - tail == RING - 1 {
                return;
            }
            head += 1;
            self.head.store(head, SeqCst);
            self.close_late.store(0, SeqCst);
            // Once more: what was just closed may be over already.
        }
    }
}

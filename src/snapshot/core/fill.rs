// SPDX-License-Identifier: GPL-2.0-only

//! How full a COW device is: when userspace is told of it, and how much writes are slowed down.

/// In how many parts a COW device is divided: at the end of each, from the middle of the device on,
/// userspace is told.
const STEPS: u64 = 20;

/// How full a COW device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Sectors in use.
    pub allocated: u64,
    /// Sectors there are.
    pub total: u64,
}

impl Fill {
    /// The last step of 5 % that is reached: 10 for 50 %, and 0 for less than that.
    pub fn step(self) -> u64 {
        let step = self.allocated.saturating_mul(STEPS) / self.total.max(1);
        if step < STEPS / 2 {
            0
        } else {
            step
        }
    }

    /// Whether the last step of 5 % has begun.
    pub fn is_last(self) -> bool {
        self.total.saturating_sub(self.allocated) < self.total.div_ceil(STEPS)
    }

    /// For how many nanoseconds nobody else should get room after `taken` sectors were handed out, the
    /// last of those in use. 0 unless the last step of 5 % has begun; then so long that what is left
    /// would last for `seconds` if as much as this were taken each time.
    pub fn pause(self, taken: u64, seconds: u32) -> u64 {
        if !self.is_last() {
            return 0;
        }
        let free = self.total.saturating_sub(self.allocated);
        let microseconds = u64::from(seconds) * 1_000_000;
        // What is too large to be reckoned with is too long for anybody to wait.
        (microseconds.saturating_mul(taken) / (free + taken).max(1)).saturating_mul(1000)
    }
}

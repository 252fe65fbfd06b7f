// SPDX-License-Identifier: GPL-2.0-only

//! How full a COW device is: when userspace is told of it, and how much writes are slowed down.

/// In how many parts a COW device is divided: at the end of each, from the middle of the device on,
/// userspace is told. The last one is handed out slowly.
const STEPS: u64 = 20;

/// How full a COW device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Sectors in use.
    pub allocated: u64,
    /// Sectors there are.
    pub total: u64,
    /// Sectors of a chunk, at least 1.
    pub chunk: u64,
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

    /// Whether more than half of it is in use.
    pub fn is_half_full(self) -> bool {
        self.allocated > self.total / 2
    }

    /// Sectors that are not in use.
    fn free(self) -> u64 {
        self.total.saturating_sub(self.allocated)
    }

    /// Sectors at the end that are handed out slowly: the last step, or the last chunk if that is more.
    fn last(self) -> u64 {
        (self.total / STEPS).max(self.chunk)
    }

    /// How many chunks may be handed out before the last step begins; 0 if it has begun.
    pub fn chunks_before_last(self) -> u64 {
        self.free()
            .saturating_sub(self.last())
            .div_ceil(self.chunk.max(1))
    }

    /// For how many nanoseconds nobody else should get room after the last of the chunks in use was handed
    /// out: so long that what is left would last for `seconds` if a chunk were taken each time.
    pub fn pause(self, seconds: u32) -> u64 {
        let microseconds = u64::from(seconds) * 1_000_000;
        // What is too large to be reckoned with is too long for anybody to wait.
        let before = (self.free() + self.chunk).max(1);
        (microseconds.saturating_mul(self.chunk) / before).saturating_mul(1000)
    }
}

/// When the next chunk of the last step may be handed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace(u64);

impl Pace {
    /// So many nanoseconds may be borrowed: nobody can sleep for a few microseconds.
    const BORROWED: u64 = 20_000_000;

    /// Whether a chunk may be handed out at this time, in nanoseconds since some moment.
    pub fn allows(self, now: u64) -> bool {
        self.0 <= now.saturating_add(Self::BORROWED)
    }

    /// A chunk was handed out at this time, whether that was allowed or not, and the next is to come
    /// `pause` nanoseconds later.
    pub fn after(self, now: u64, pause: u64) -> Self {
        let from = self.0.clamp(now, now.saturating_add(Self::BORROWED));
        Self(from.saturating_add(pause))
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! Writers that go through an origin in sequence, and how far to copy ahead of them.
//!
//! A write to chunks that a snapshot does not have waits for five requests, one after the other. One who
//! writes in sequence tells what will be needed next: copied before it is written, it costs him nothing
//! but bandwidth. What is copied and then not written is room lost on the COW devices, so that no more is
//! copied ahead than a quarter of what was written in sequence before, and the later the more often it was of
//! no use.

use super::{
    counts::OriginCounts,
    shard::MAX_COPY_SECTORS,
    span_end, //
};
use core::cmp::Ordering::{
    Equal,
    Greater,
    Less, //
};

/// Writers that are remembered at once.
const STREAMS: usize = 4;

/// Who has not written for so many writes of others is forgotten for the next new one.
const OLD: u64 = 256;

/// Writes in a row before something is copied ahead: at first, and at most, when that was of no use.
const TRUSTED: u32 = 2;
const DISTRUSTED: u32 = 1024;

/// How far to copy ahead, in sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AheadLimits {
    /// At first.
    pub first: u64,
    /// At most; 0, and nothing is copied ahead.
    pub most: u64,
}

impl AheadLimits {
    /// From 256 KiB to 8 MiB.
    pub const USUAL: Self = Self {
        first: 512,
        most: 16384,
    };

    /// Nothing is copied ahead.
    pub const NONE: Self = Self { first: 0, most: 0 };
}

/// One who writes in sequence, perhaps.
#[derive(Clone, Copy, Default)]
struct Stream {
    /// When it wrote last; 0 if never.
    at: u64,
    /// Where its first write began.
    begin: u64,
    /// Where its last write began.
    start: u64,
    /// Where its last write ended.
    next: u64,
    /// Up to where all is there, or being copied.
    ahead: u64,
    /// How far to copy ahead of it; 0 if not at all.
    window: u64,
    /// Its writes, all in a row.
    writes: u32,
    /// Whether its last write has made the window larger.
    has_grown: bool,
    /// Sectors that were copied ahead of it.
    copied: u64,
    /// Those of them that it has written then.
    used: u64,
}

impl Stream {
    /// The writer had to wait.
    fn grow(&mut self, limits: AheadLimits) {
        if self.window > 0 && !self.has_grown {
            let written = self.next - self.begin;
            self.window = (2 * self.window)
                .min((written / 4).max(limits.first))
                .min(limits.most);
            self.has_grown = true;
        }
    }

    /// What is to be copied ahead of it now: from where, up to where.
    fn due(&self) -> Option<(u64, u64)> {
        let from = self.ahead.max(self.next);
        let until = (self.next + self.window).min(span_end(self.start));
        // Large pieces: each costs as many requests as a small one.
        let piece = (self.window / 2).clamp(1, MAX_COPY_SECTORS);
        let is_last = until == span_end(self.start) && from < until;
        (until >= from + piece || self.window > 0 && is_last).then_some((from, until))
    }
}

/// Those who write in sequence to the spans of a shard.
pub(super) struct Streams {
    limits: AheadLimits,
    streams: [Stream; STREAMS],
    /// Counts writes.
    clock: u64,
    /// Writes in a row before something is copied ahead.
    enough: u32,
}

impl Streams {
    pub(super) fn new(limits: AheadLimits) -> Self {
        Self {
            limits,
            streams: [Stream::default(); STREAMS],
            clock: 0,
            enough: TRUSTED,
        }
    }

    /// A write comes to sectors `start..end`, within one span; `waits` if not all of its chunks are there.
    /// Returns whether something is to be copied ahead.
    pub(super) fn note(
        &mut self,
        start: u64,
        end: u64,
        waits: bool,
        counts: &mut OriginCounts,
    ) -> bool {
        if self.limits.most == 0 {
            return false;
        }
        self.clock += 1;
        let limits = self.limits;
        // A part of the last write, which was cut, or comes again.
        let is_part = |s: &&mut Stream| s.at != 0 && (s.start..s.next).contains(&start);
        if let Some(stream) = self.streams.iter_mut().find(is_part) {
            if end <= stream.next {
                if waits {
                    stream.grow(limits);
                }
                return stream.due().is_some();
            }
        }
        let continues = |s: &&mut Stream| s.at != 0 && s.next == start;
        let Some(stream) = self.streams.iter_mut().find(continues) else {
            self.begin(start, end, counts);
            return false;
        };
        // As far as it was copied for this, and not there before.
        let here = stream.ahead.min(end).saturating_sub(start);
        let used = here.min(stream.copied - stream.used);
        stream.at = self.clock;
        stream.start = start;
        stream.next = end;
        stream.writes = stream.writes.saturating_add(1);
        stream.used += used;
        counts.ahead_used += used;
        stream.has_grown = false;
        if stream.window == 0 && stream.writes >= self.enough {
            stream.window = limits.first.max(end - start).min(limits.most);
            stream.has_grown = true;
        } else if waits {
            stream.grow(limits);
        }
        stream.due().is_some()
    }

    /// A write that continues none: somebody is forgotten for it.
    fn begin(&mut self, start: u64, end: u64, counts: &mut OriginCounts) {
        let clock = self.clock;
        let worth = |s: &&mut Stream| (s.writes > 1 && clock - s.at < OLD, s.at);
        let Some(stream) = self.streams.iter_mut().min_by_key(worth) else {
            return;
        };
        let unused = stream.copied - stream.used;
        counts.ahead_unused += unused;
        self.enough = match (2 * unused).cmp(&stream.used) {
            Greater => (2 * self.enough).min(DISTRUSTED),
            Less => (self.enough / 2).max(TRUSTED),
            Equal => self.enough,
        };
        *stream = Stream {
            at: clock,
            begin: start,
            start,
            next: end,
            writes: 1,
            ..Stream::default()
        };
    }

    /// What is to be copied ahead: for whom, from where, up to where, in one span.
    pub(super) fn due(&self) -> Option<(usize, u64, u64)> {
        let mut all = self.streams.iter().enumerate();
        all.find_map(|(which, stream)| {
            let (from, until) = stream.due()?;
            Some((which, from, until))
        })
    }

    /// What comes before `until` is there, or on its way: so many sectors since this was asked for.
    pub(super) fn copied(&mut self, which: usize, until: u64, sectors: u64) {
        if let Some(stream) = self.streams.get_mut(which) {
            stream.ahead = until;
            stream.copied += sectors;
        }
    }

    /// Nothing is to be copied ahead of this one, unless it goes on for as long again.
    pub(super) fn give_up(&mut self, which: usize) {
        if let Some(stream) = self.streams.get_mut(which) {
            stream.window = 0;
            stream.writes = 1;
        }
    }
}

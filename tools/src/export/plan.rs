// SPDX-License-Identifier: GPL-2.0-only

//! What there is to copy.

use super::image::HOLE_BYTES;
use super::BUFFER_BYTES;
use crate::buffer::AlignedBuf;
use crate::extents::Extents;
use crate::snapshot::Snapshot;
use std::ops::Range;

/// What one copier does at once.
pub struct Task {
    /// Where the task before ends: from there to the end of `bytes` all is done with this one.
    pub from: u64,
    pub bytes: Range<u64>,
    pub what: What,
}

impl Task {
    /// All that is done with it: the hole before its bytes, and these.
    pub fn all(&self) -> Range<u64> {
        self.from..self.bytes.end
    }

    /// How many bytes of it must be read.
    pub fn data_bytes(&self) -> usize {
        match self.what {
            What::Data => (self.bytes.end - self.bytes.start) as usize,
            What::Zero => 0,
        }
    }

    /// How many bytes of it, before the others, are zero.
    pub fn hole_bytes(&self) -> u64 {
        self.bytes.end - self.from - self.data_bytes() as u64
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// To be copied.
    Data,
    /// To be made zero.
    Zero,
}

/// Hands out what there is to do, in ascending order.
pub struct Plan<'a> {
    extents: Extents<'a>,
    /// Up to where it was handed out.
    at: u64,
    bytes: u64,
    /// The data that was found but not handed out.
    data: Range<u64>,
    /// Whether what is a hole is handed out, too.
    zero: bool,
}

impl<'a> Plan<'a> {
    /// Holes less than this between data are read with it.
    const GAP_BYTES: u64 = HOLE_BYTES as u64;
    /// Bytes made zero at once.
    const ZERO_BYTES: u64 = 64 << 20;

    /// What there is to do with the bytes `range` of `snapshot`; what is a hole, too, if `zero`.
    pub fn new(snapshot: &'a Snapshot, range: Range<u64>, zero: bool) -> Self {
        Self {
            extents: Extents::new(snapshot),
            at: range.start,
            bytes: range.end,
            data: range.start..range.start,
            zero,
        }
    }

    /// The next data, in whole blocks of any device: no block is written by two copiers.
    fn find(&mut self, from: u64) -> Range<u64> {
        let block = AlignedBuf::ALIGN as u64;
        let data = self.extents.next(from);
        if data.is_empty() {
            return self.bytes..self.bytes;
        }
        let end = data.end.next_multiple_of(block).min(self.bytes);
        (data.start - data.start % block).min(end)..end
    }

    /// Whether all was handed out.
    pub fn is_done(&self) -> bool {
        self.at >= self.bytes
    }

    /// The next thing to do.
    pub fn next(&mut self) -> Option<Task> {
        if self.is_done() {
            return None;
        }
        if self.data.end <= self.at {
            self.data = self.find(self.at);
        }
        let from = self.at;
        let hole = from..self.data.start.max(from);
        let (bytes, what) = if self.zero && !hole.is_empty() {
            let end = hole.end.min(from + Self::ZERO_BYTES);
            (hole.start..end, What::Zero)
        } else {
            let start = hole.end;
            let full = start + BUFFER_BYTES;
            while self.data.end < full {
                let more = self.find(self.data.end);
                let gap = more.start.saturating_sub(self.data.end);
                if more.is_empty() || gap >= Self::GAP_BYTES {
                    break;
                }
                self.data.end = more.end;
            }
            (start..self.data.end.min(full), What::Data)
        };
        self.at = bytes.end;
        Some(Task { from, bytes, what })
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! Which ranges differ between a snapshot and its origin, or between two snapshots of one origin.

use crate::buffer::AlignedBuf;
use crate::error::Result;
use crate::format::SECTOR_BYTES;
use crate::snapshot::Snapshot;
use std::ops::Range;

/// Bytes compared at once.
const BUFFER_BYTES: u64 = 1 << 20;

/// What to compare a snapshot with.
pub enum Other<'a> {
    /// Its origin.
    Origin,
    /// Another snapshot of the same origin.
    Snapshot(&'a Snapshot),
}

impl Other<'_> {
    /// Fills `buf` with what it holds from byte `offset` on, being compared with `snapshot`.
    pub fn read_at(&self, snapshot: &Snapshot, buf: &mut [u8], offset: u64) -> Result<()> {
        match (self, snapshot.origin()) {
            (Self::Snapshot(other), _) => other.read_at(buf, offset),
            (Self::Origin, Some(origin)) => origin.read_at(buf, offset),
            (Self::Origin, None) => {
                buf.fill(0);
                Ok(())
            }
        }
    }
}

/// Calls `tell` with each range of sectors that may differ, ascending and apart from each other.
///
/// A range that neither side keeps aside is the origin's on both sides. Every other one may differ;
/// with `compare` both sides are read, which needs them to share their origin, and only chunks
/// that do differ are told.
pub fn delta(
    snapshot: &Snapshot,
    other: &Other<'_>,
    compare: bool,
    mut tell: impl FnMut(Range<u64>) -> Result<()>,
) -> Result<()> {
    let size = match other {
        Other::Origin => snapshot.bytes(),
        Other::Snapshot(other) => snapshot.bytes().max(other.bytes()),
    };
    let mut merged = Merged {
        open: None,
        tell: &mut tell,
    };
    let mut sides = vec![kept(snapshot, size)];
    let mut grain = snapshot.chunk_bytes();
    if let Other::Snapshot(other) = other {
        sides.push(kept(other, size));
        grain = grain.min(other.chunk_bytes());
    }
    let mut reader = Comparer::new(snapshot, other, grain);
    // Gather the union first, so that no byte is compared twice.
    let mut union = Merged {
        open: None,
        tell: &mut |range| {
            if compare {
                reader.differing(range, &mut |part| merged.add(part))
            } else {
                merged.add(range)
            }
        },
    };
    let mut sides: Vec<_> = sides.into_iter().map(Iterator::peekable).collect();
    loop {
        let next = sides
            .iter_mut()
            .filter_map(|side| {
                side.peek()
                    .map(|range| range.start)
                    .map(|start| (start, side))
            })
            .min_by_key(|(start, _)| *start);
        let Some(range) = next.and_then(|(_, side)| side.next()) else {
            break;
        };
        union.add(range)?;
    }
    union.finish()?;
    merged.finish()
}

/// The byte ranges that `snapshot` keeps aside.
fn kept(snapshot: &Snapshot, size: u64) -> impl Iterator<Item = Range<u64>> + '_ {
    let chunk = snapshot.chunk_bytes();
    snapshot.map().runs().iter().map(move |run| {
        let end = run.old.saturating_add(run.length).saturating_mul(chunk);
        run.old.saturating_mul(chunk)..end.min(size)
    })
}

/// Joins ranges of bytes that touch, and tells them in sectors.
struct Merged<'a> {
    open: Option<Range<u64>>,
    tell: &'a mut dyn FnMut(Range<u64>) -> Result<()>,
}

impl Merged<'_> {
    fn add(&mut self, range: Range<u64>) -> Result<()> {
        match &mut self.open {
            Some(open) if range.start <= open.end => {
                open.end = open.end.max(range.end);
                Ok(())
            }
            open => open
                .replace(range)
                .map_or(Ok(()), |range| (self.tell)(range)),
        }
    }

    fn finish(mut self) -> Result<()> {
        self.open.take().map_or(Ok(()), |range| (self.tell)(range))
    }
}

/// Reads both sides.
struct Comparer<'a> {
    snapshot: &'a Snapshot,
    other: &'a Other<'a>,
    /// Bytes that are told together.
    grain: u64,
    buffers: [AlignedBuf; 2],
}

impl<'a> Comparer<'a> {
    fn new(snapshot: &'a Snapshot, other: &'a Other<'a>, grain: u64) -> Self {
        Self {
            snapshot,
            other,
            grain: grain.min(BUFFER_BYTES),
            buffers: [0; 2].map(|_| AlignedBuf::new(BUFFER_BYTES as usize)),
        }
    }

    fn differing(
        &mut self,
        range: Range<u64>,
        tell: &mut dyn FnMut(Range<u64>) -> Result<()>,
    ) -> Result<()> {
        let mut offset = range.start;
        while offset < range.end {
            let bytes = (range.end - offset).min(BUFFER_BYTES);
            let [left, right] = &mut self.buffers;
            let (left, right) = (&mut left[..bytes as usize], &mut right[..bytes as usize]);
            self.snapshot.read_at(left, offset)?;
            self.other.read_at(self.snapshot, right, offset)?;
            let grain = self.grain as usize;
            let pairs = left.chunks(grain).zip(right.chunks(grain));
            for (at, (left, right)) in pairs.enumerate() {
                if left != right {
                    let start = offset + (at * grain) as u64;
                    tell(start..start + left.len() as u64)?;
                }
            }
            offset += bytes;
        }
        Ok(())
    }
}

/// A range of bytes in sectors.
pub fn in_sectors(range: &Range<u64>) -> (u64, u64) {
    let sector = u64::from(SECTOR_BYTES);
    (range.start / sector, (range.end - range.start) / sector)
}

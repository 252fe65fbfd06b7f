// SPDX-License-Identifier: GPL-2.0-only

//! Merges a snapshot back into its origin.
//!
//! # Why it may be cut short at any point
//!
//! The list is worked off from its end, a batch of records at a time, in four steps: copy the
//! batch's chunks to the origin, many at a time, in its order; flush the origin; clear the batch's records, the last one first;
//! flush the COW device. A record disappears only when its chunk is durable in the origin, so at
//! every moment origin and COW device together are the same snapshot, and running the merge again
//! goes on where it was. The kernel's own merge works in this order too.
//!
//! A record that was cleared in memory but not on disk when the power failed is merged once more,
//! which changes nothing. A torn write can clear a sector of an area but not the one after it; what
//! stays there is beyond the end of the list, where the next run of the merge clears it first.

use crate::buffer::AlignedBuf;
use crate::cow::{byte_range, Cow};
use crate::device::Device;
use crate::duplicates::{old_used_twice, Distinct};
use crate::error::{Error, Result};
use crate::format::{Exception, Geometry};
use crate::growable::push;
use crate::interrupt::Interrupt;
use crate::report::Report;
use crate::run::{Run, Runs};
use crate::snapshot::{refuse_invalid, Map};
use crate::threads::share;
use serde::Serialize;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes written at once, at most.
const BUFFER_BYTES: u64 = 512 << 10;
/// Threads that copy: so many chunks, scattered over the origin, are on their way to it at a time.
const COPIERS: usize = 16;

/// How to merge.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Merge a snapshot marked invalid.
    pub trust_invalid: bool,
    /// Only find out what would be done.
    pub dry_run: bool,
    /// Bytes to copy between two flushes; at least a chunk is.
    pub batch_bytes: u64,
}

/// What a merge did, or would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Merged {
    /// Records merged and cleared.
    pub records: u64,
    /// Bytes copied.
    pub bytes: u64,
    /// Batches made durable.
    pub batches: u64,
}

/// Merges the snapshot that `cow` keeps into `origin`.
pub fn merge(
    cow: &Cow,
    origin: &Device,
    options: &Options,
    report: &Report,
    interrupt: &Interrupt,
) -> Result<Merged> {
    let layout = cow.snapshot()?;
    refuse_invalid(cow, &layout, options.trust_invalid)?;
    if origin.is_same(cow.device()) {
        return Err(Error::Refused(format!(
            "{}: it cannot be both the origin and the COW device",
            origin.path().display()
        )));
    }
    let mut merge = Merge {
        cow,
        origin,
        geometry: layout.geometry,
        records: 0,
        merged: Merged::default(),
    };
    let stale = merge.check_list()?;
    let chunk_bytes = merge.chunk_bytes();
    let bytes = merge.records * chunk_bytes;
    if options.dry_run {
        return Ok(Merged {
            records: merge.records,
            bytes,
            batches: bytes.div_ceil(options.batch_bytes.max(chunk_bytes)),
        });
    }
    if stale {
        merge.clear(merge.records, None)?;
    }
    let progress = report.progress("merging", bytes);
    let per_batch = (options.batch_bytes / chunk_bytes).max(1);
    while merge.records > 0 {
        if interrupt.asked() {
            return Err(Error::Interrupted(format!(
                "{} records are merged, {} are left; the same command goes on",
                merge.merged.records, merge.records
            )));
        }
        let first = merge.records.saturating_sub(per_batch);
        progress.advance((merge.records - first) * chunk_bytes);
        merge.batch(first)?;
    }
    Ok(merge.merged)
}

/// Bytes that follow each other in the origin, at most [`BUFFER_BYTES`].
struct Piece {
    /// The first byte in the origin.
    to: u64,
    bytes: u64,
    /// Where the COW device keeps them: first byte and number of bytes.
    sources: Vec<(u64, u64)>,
}

impl Piece {
    /// How many bytes may still be added, where byte `to` of the origin is the next.
    fn room(&self, to: u64) -> Option<u64> {
        (self.to + self.bytes == to).then_some(BUFFER_BYTES - self.bytes)
    }
}

struct Merge<'a> {
    cow: &'a Cow,
    origin: &'a Device,
    geometry: Geometry,
    /// How many records the list has left.
    records: u64,
    merged: Merged,
}

impl Merge<'_> {
    fn chunk_bytes(&self) -> u64 {
        self.geometry.chunk_size().bytes().into()
    }

    /// Checks the whole list and counts it; returns whether something stands after its end.
    fn check_list(&mut self) -> Result<bool> {
        let mut old_chunks = Distinct::default();
        let walked = self.cow.walk(self.geometry, |_, e| {
            old_chunks.give(e.old);
            Ok(())
        })?;
        let mut twice = None;
        if !old_chunks.is_certain() {
            old_used_twice(self.cow, &self.geometry, |old, _, _| {
                twice = twice.or(Some(old));
            })?;
        }
        if let Some(old) = twice {
            return Err(Map::twice(self.cow, old));
        }
        self.records = walked.records;
        Ok(walked.stale)
    }

    /// Merges the records from `first` to the end of the list.
    fn batch(&mut self, first: u64) -> Result<()> {
        let pieces = self.pieces(first)?;
        let next = AtomicUsize::new(0);
        share(COPIERS, |stop| {
            let mut buf = AlignedBuf::new(BUFFER_BYTES as usize);
            while !stop.asked() {
                let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) else {
                    break;
                };
                self.copy(piece, &mut buf)?;
            }
            Ok(())
        })?;
        self.origin.flush()?;
        self.clear(first, Some(self.records))?;
        self.merged.bytes += pieces.iter().map(|piece| piece.bytes).sum::<u64>();
        self.merged.records += self.records - first;
        self.merged.batches += 1;
        self.records = first;
        Ok(())
    }

    /// What to copy for the records from `first` to the end of the list, in the order of the
    /// origin.
    fn pieces(&self, first: u64) -> Result<Vec<Piece>> {
        let chunk_bytes = self.chunk_bytes();
        let mut runs = self.read_runs(first)?;
        runs.sort_unstable_by_key(|run| run.old);
        let mut pieces: Vec<Piece> = Vec::new();
        for run in runs {
            let (mut from, mut to) = (run.new * chunk_bytes, run.old * chunk_bytes);
            // The origin's last chunk may be a part of one.
            let end = (to + run.length * chunk_bytes).min(self.origin.bytes());
            while to < end {
                let room = pieces.last().and_then(|piece| piece.room(to)).unwrap_or(0);
                let bytes = (end - to).min(if room > 0 { room } else { BUFFER_BYTES });
                match pieces.last_mut() {
                    Some(piece) if room > 0 => {
                        piece.bytes += bytes;
                        push(&mut piece.sources, (from, bytes))?;
                    }
                    _ => push(
                        &mut pieces,
                        Piece {
                            to,
                            bytes,
                            sources: vec![(from, bytes)],
                        },
                    )?,
                }
                from += bytes;
                to += bytes;
            }
        }
        Ok(pieces)
    }

    /// The windows that hold the records `first..end`, each with the number of its first record.
    fn windows(&self, first: u64, end: u64) -> impl DoubleEndedIterator<Item = (u64, u64)> {
        let per_window = u64::from(self.geometry.records_per_window());
        (first / per_window..end.div_ceil(per_window)).map(move |w| (w, w * per_window))
    }

    fn read_runs(&self, first: u64) -> Result<Vec<Run>> {
        let mut buf = AlignedBuf::new(self.geometry.window_bytes() as usize);
        let mut runs = Runs::default();
        let mut list = Vec::new();
        for (window, first_in_window) in self.windows(first, self.records) {
            if let Some(extent) = self.geometry.window(window) {
                let offset = byte_range(extent).0;
                self.cow.device().read_at(&mut buf, offset)?;
            }
            let wanted = (first_in_window..)
                .zip(Exception::records(&buf))
                .filter(|(record, _)| (first..self.records).contains(record));
            for (_, e) in wanted {
                list.extend(runs.push(e));
            }
        }
        list.extend(runs.finish());
        Ok(list)
    }

    /// Copies a piece, which is written at once.
    fn copy(&self, piece: &Piece, buf: &mut AlignedBuf) -> Result<()> {
        let mut done = 0;
        for (from, bytes) in &piece.sources {
            let end = done + *bytes as usize;
            self.cow.device().read_at(&mut buf[done..end], *from)?;
            done = end;
        }
        self.origin.write_at(&buf[..done], piece.to)
    }

    /// Clears the records `first..end`, from the last window to the first, and flushes; to the end
    /// of the area where there is no `end`.
    fn clear(&self, first: u64, end: Option<u64>) -> Result<()> {
        let per_area = u64::from(self.geometry.exceptions_per_area());
        let end = end.unwrap_or((first / per_area + 1) * per_area);
        let mut buf = AlignedBuf::new(self.geometry.window_bytes() as usize);
        for (window, first_in_window) in self.windows(first, end).rev() {
            let keep = first.saturating_sub(first_in_window) as usize * Exception::BYTES;
            let Some(extent) = self.geometry.window(window) else {
                continue;
            };
            let offset = byte_range(extent).0;
            if keep > 0 {
                self.cow.device().read_at(&mut buf, offset)?;
            }
            buf[keep..].fill(0);
            self.cow.device().write_at(&buf, offset)?;
        }
        self.cow.device().flush()
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! Where a snapshot may hold anything but zeros, so that holes need not be read.

use crate::device::Device;
use crate::snapshot::Snapshot;
use std::ops::Range;

/// Finds what is no hole of a device, in ascending order at little cost.
pub struct Data<'a> {
    device: &'a Device,
    /// The last hole and the data after it that were found.
    hole: Range<u64>,
    data: Range<u64>,
}

impl<'a> Data<'a> {
    /// Looks at `device`.
    pub fn new(device: &'a Device) -> Self {
        Self {
            device,
            hole: 0..0,
            data: 0..0,
        }
    }

    /// The first range of bytes within `range` that may be data; an empty one at its end where all
    /// of it is a hole.
    pub fn first(&mut self, range: &Range<u64>) -> Range<u64> {
        if !self.hole.contains(&range.start) && !self.data.contains(&range.start) {
            self.data = self.device.data_from(range.start);
            self.hole = range.start..self.data.start;
        }
        let start = self.data.start.clamp(range.start, range.end);
        start..self.data.end.clamp(start, range.end)
    }
}

/// Finds where a snapshot may hold data, from its start to its end.
pub struct Extents<'a> {
    snapshot: &'a Snapshot,
    cow: Data<'a>,
    origin: Option<Data<'a>>,
    /// The run that the last range was in, or the one after it.
    run: usize,
}

impl<'a> Extents<'a> {
    /// Looks at `snapshot`.
    pub fn new(snapshot: &'a Snapshot) -> Self {
        Self {
            snapshot,
            cow: Data::new(snapshot.cow().device()),
            origin: snapshot.origin().map(Data::new),
            run: 0,
        }
    }

    /// The first range at or after byte `from`, which must not be less than the last time, that may
    /// be other than zero; an empty one at the snapshot's end where there is none.
    pub fn next(&mut self, from: u64) -> Range<u64> {
        let (chunk, bytes) = (self.snapshot.chunk_bytes(), self.snapshot.bytes());
        let runs = self.snapshot.map().runs();
        let mut at = from;
        while at < bytes {
            while runs
                .get(self.run)
                .is_some_and(|run| (run.old + run.length).saturating_mul(chunk) <= at)
            {
                self.run += 1;
            }
            let run = runs.get(self.run);
            let run_start = run.map_or(bytes, |run| run.old.saturating_mul(chunk).min(bytes));
            let found = match (run, &mut self.origin) {
                (Some(run), _) if run_start <= at => {
                    let end = ((run.old + run.length) * chunk).min(bytes);
                    // To the COW device and back.
                    let (old, new) = (run.old * chunk, run.new * chunk);
                    let found = self.cow.first(&(at - old + new..end - old + new));
                    found.start - new + old..found.end - new + old
                }
                (_, Some(origin)) => origin.first(&(at..run_start)),
                (_, None) => run_start..run_start,
            };
            if !found.is_empty() {
                return found;
            }
            at = found.end;
        }
        bytes..bytes
    }
}

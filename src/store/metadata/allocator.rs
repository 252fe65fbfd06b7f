// SPDX-License-Identifier: GPL-2.0-only

//! Which chunk of the COW device is next.

use crate::format::Geometry;

/// Hands out the chunks of a COW device in ascending order, from the first one again when a merge
/// left nothing, and counts those whose commit is outstanding.
pub struct Allocator {
    geometry: Geometry,
    /// The next chunk to hand out. A merge does not lower it, before all is merged: holes make the
    /// list shorter than its chunks reach, so that lower chunks may still be in use.
    next: u64,
    /// Chunks handed out and not yet committed.
    pending: u64,
    /// Chunks that are being committed.
    committing: u64,
    /// Records in the list.
    records: u64,
    /// Whether records were merged away, so that `next` says nothing about how full the COW is.
    merged: bool,
    /// Whether the snapshot was dropped.
    dropped: bool,
}

impl Allocator {
    /// For a list of `records` above which `next` is the first free chunk.
    pub fn new(geometry: Geometry, next: u64, records: u64) -> Self {
        Self {
            geometry,
            next,
            pending: 0,
            committing: 0,
            records,
            merged: false,
            dropped: false,
        }
    }

    /// The layout of the COW device.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Hands out at most `max` consecutive chunks of a COW device that is `cow_sectors` large now, at
    /// least one; returns the first and how many. `None` if none is left.
    pub fn allocate(&mut self, cow_sectors: u64, max: u32) -> Option<(u64, u32)> {
        if self.merged && self.records + self.pending + self.committing == 0 {
            // No chunk is in use. Nothing reads one either: nobody asks for chunks before the table
            // that merged was suspended, which ends its reads.
            self.next = Geometry::FIRST_DATA_CHUNK;
        }
        let first = self.next;
        let fits = |chunk: &u64| self.geometry.can_hold_data(*chunk, cow_sectors);
        let count = (first..first.saturating_add(max.into()))
            .take_while(fits)
            .count();
        if self.dropped || count == 0 {
            return None;
        }
        // A merge that was called off: how full the COW device is, `next` says again.
        self.merged = false;
        self.next = self.geometry.skip_metadata(first + count as u64);
        self.pending += count as u64;
        // CAST: At most `max`.
        Some((first, count as u32))
    }

    /// Notes that a chunk handed out is being committed; returns how many are left that will be.
    pub fn commit(&mut self) -> u64 {
        self.pending = self.pending.saturating_sub(1);
        self.committing += 1;
        self.pending
    }

    /// Notes that the snapshot was dropped: nothing is handed out any more, and what was handed out
    /// is not to be recorded.
    pub fn drop_snapshot(&mut self) {
        self.dropped = true;
    }

    /// Whether the snapshot was dropped.
    pub fn is_dropped(&self) -> bool {
        self.dropped
    }

    /// Notes the number of records in the list when so many commits are over.
    pub fn committed(&mut self, commits: u64, records: u64) {
        self.committing = self.committing.saturating_sub(commits);
        self.records = records;
    }

    /// Notes the number of records in the list after some were merged away.
    pub fn set_merged(&mut self, records: u64) {
        self.records = records;
        self.merged = true;
    }

    /// Records in the list.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Chunks in use, metadata included.
    ///
    /// During a merge this is what it would be had all been committed in the order of their
    /// chunks. LVM takes a merge for finished when it equals [`Self::metadata_chunks`], which is
    /// so only when no record is left.
    pub fn allocated_chunks(&self) -> u64 {
        if self.merged {
            self.metadata_chunks() + self.records
        } else {
            self.next
        }
    }

    /// Chunks in use for the header and for areas.
    pub fn metadata_chunks(&self) -> u64 {
        // The header, the area that the list ends in, and all before it.
        self.geometry.area_of(self.records) + 2
    }
}

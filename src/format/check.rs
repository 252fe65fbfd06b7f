// SPDX-License-Identifier: GPL-2.0-only

//! Checks the records of a COW device against its geometry and against each other.

use super::{
    Exception,
    Fault,
    Geometry,
    Pairs,
    Platform, //
};

/// Checks record number `record` alone: are both its chunks on their devices, and is the new
/// one no metadata?
pub fn check_alone(geometry: &Geometry, record: u64, e: Exception) -> Result<(), Fault> {
    let place = || geometry.place(record);
    if e.is_empty() {
        return Err(Fault::Missing(place()));
    }
    if e.new >= geometry.cow_chunks() {
        return Err(Fault::NewBeyondDevice(place(), e.new));
    }
    if geometry.is_metadata(e.new) {
        return Err(Fault::NewIsMetadata(place(), e.new));
    }
    if e.old >= geometry.origin_chunks() {
        return Err(Fault::OldBeyondOrigin(place(), e.old));
    }
    Ok(())
}

/// Checks records one by one, in the order they stand on disk.
///
/// # What finding duplicates costs
///
/// dm-snapshot hands out new chunks in ascending order and commits them in that order, so a record
/// whose new chunk is higher than all before it is no duplicate: it costs a comparison and no
/// memory. Chunks skipped on the way up are remembered as a gap; a record that comes late must
/// have its chunk in a gap, which [`RecordCheck::finish`] verifies by sorting the late ones.
/// Memory is that of [`Pairs`], 16 bytes for a gap and for a late record, so at most 16 bytes a
/// record and nearly none on a COW device without damage. Time grows with the number of records
/// alone, whatever their order. Nothing depends on the device's size.
pub struct RecordCheck<P: Platform> {
    geometry: Geometry,
    /// One more than the highest new chunk so far, area chunks skipped.
    next_new: u64,
    /// The first area chunk above `next_new`.
    next_area: u64,
    /// Chunks `first..end` that no record had used when the list passed them, ascending.
    gaps: Pairs<P>,
    /// `(new chunk, record number)` of records below `next_new` when they came.
    late: Pairs<P>,
}

impl<P: Platform> RecordCheck<P> {
    /// Starts with an empty list of records.
    pub fn new(geometry: Geometry) -> Self {
        Self {
            geometry,
            next_new: Geometry::FIRST_DATA_CHUNK,
            next_area: geometry.area_chunk_above(Geometry::FIRST_DATA_CHUNK),
            gaps: Pairs::new(),
            late: Pairs::new(),
        }
    }

    /// Checks record number `record`, alone and, as far as that can be said now, against the
    /// earlier ones.
    pub fn check(&mut self, record: u64, e: Exception) -> Result<(), Fault> {
        if !self.follows_and_fits(e) {
            check_alone(&self.geometry, record, e)?;
            if e.new < self.next_new {
                self.late.try_push(e.new, record)?;
                return Ok(());
            }
            if e.new > self.next_new {
                self.gaps.try_push(self.next_new, e.new)?;
            }
            self.next_area = self.geometry.area_chunk_above(e.new);
        }
        self.next_new = e.new + 1;
        if self.next_new == self.next_area {
            self.next_new += 1;
            self.next_area = self.geometry.area_chunk_above(self.next_area);
        }
        Ok(())
    }

    /// Whether `e` has the next new chunk and both its chunks are on their devices: it is right
    /// alone then, and shares its new chunk with no earlier one.
    ///
    /// The next new chunk is neither the header's nor an area's, so that nothing is left of
    /// [`check_alone`]. Nearly every record passes here, without a division.
    fn follows_and_fits(&self, e: Exception) -> bool {
        e.new == self.next_new
            && e.new < self.geometry.cow_chunks()
            && e.old < self.geometry.origin_chunks()
    }

    /// The first chunk above all that the records use, area chunks skipped: the next to hand out.
    pub fn next_new(&self) -> u64 {
        self.next_new
    }

    /// Completes the check: no new chunk is used twice. May sleep, and can be interrupted.
    pub fn finish(&mut self) -> Result<(), Fault> {
        self.late.sort(|new| new)?;
        let mut gaps = self.gaps.iter();
        let mut gap = gaps.next();
        let mut previous = None;
        for (new, record) in self.late.iter() {
            while gap.is_some_and(|(_, end)| end <= new) {
                gap = gaps.next();
            }
            let in_gap = gap.is_some_and(|(first, _)| first <= new);
            if !in_gap || previous == Some(new) {
                return Err(Fault::NewUsedTwice(self.geometry.place(record), new));
            }
            previous = Some(new);
        }
        Ok(())
    }
}

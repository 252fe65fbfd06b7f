// SPDX-License-Identifier: GPL-2.0-only

//! The list of records in the areas.

use super::{
    disk::Error,
    Disk, //
};
use crate::format::{
    check_alone,
    Exception,
    Extent,
    Fault,
    Geometry,
    NoMemory,
    SECTOR_BYTES, //
};
use core::ops::{
    DerefMut,
    Range, //
};

/// A run of records, the last of the list, whose old chunks and new chunks are consecutive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunOfRecords {
    /// The last record of the list.
    pub last: Exception,
    /// How many there are, at least 1.
    pub count: u32,
}

/// The list of records, of which one window is in memory.
///
/// # Invariants
///
/// - `buffer` is as large as a window. If `window` is `Some(n)`, it holds window `n`: the records
///   of the list that lie in it, then zeroes.
/// - `unwritten` records at the end of the list are in `buffer` only; the data of each of them is on stable
///   storage unless `unflushed`.
pub struct RecordList<B> {
    geometry: Geometry,
    /// Bytes that are written at once at least, in multiples of which all is written. Divides the
    /// bytes of a window.
    unit: usize,
    buffer: B,
    window: Option<u64>,
    records: u64,
    unwritten: usize,
    unflushed: bool,
    /// Whether the disk may hold other than zeroes after the end of the list, in its area.
    stale: bool,
    /// The area that was last asked to be zeroed ahead.
    zeroing: u64,
}

impl<B: DerefMut<Target = [u8]>> RecordList<B> {
    /// An empty list, on a disk where area 0 is zero.
    ///
    /// `unit` is what the disk writes at once, in bytes, a power of two.
    pub fn new(
        disk: &impl Disk<Buffer = B>,
        geometry: Geometry,
        unit: usize,
    ) -> Result<Self, NoMemory> {
        let window_bytes = geometry.window_bytes() as usize;
        // INVARIANT: A buffer begins as zeroes, which is what window 0 holds.
        Ok(Self {
            geometry,
            unit: unit.min(window_bytes),
            buffer: disk.buffer(window_bytes)?,
            window: Some(0),
            records: 0,
            unwritten: 0,
            unflushed: false,
            stale: false,
            zeroing: 0,
        })
    }

    /// Takes the list that a walk over the disk found: `records` of them, which end in the window
    /// whose content is `bytes`.
    pub fn found(&mut self, records: u64, bytes: &[u8]) {
        self.records = records;
        let window = self.geometry.window_of(records);
        let used = self.records_in(window) * Exception::BYTES;
        self.buffer.fill(0);
        for (to, from) in self.buffer.iter_mut().zip(&bytes[..used]) {
            *to = *from;
        }
        // INVARIANT: The buffer was filled just so.
        self.window = Some(window);
    }

    /// Notes that the disk holds other than zeroes after the end of the list, in its area.
    pub fn set_stale(&mut self) {
        self.stale = true;
    }

    /// The number of records in the list.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Lays the list out for a COW device and an origin that are so large now, in sectors, and
    /// writes `unit` at once from now on: a device can move to a disk with larger blocks.
    pub fn resize(&mut self, cow_sectors: u64, origin_sectors: u64, unit: usize) {
        self.geometry = self.geometry.resized(cow_sectors, origin_sectors);
        self.unit = unit.min(self.buffer.len());
    }

    /// The records of the list that lie in window `window`, counted from its start.
    fn records_in(&self, window: u64) -> usize {
        let before = self.geometry.first_record(window);
        // CAST: At most the records of a window.
        self.records
            .saturating_sub(before)
            .min(u64::from(self.geometry.records_per_window())) as usize
    }

    /// Brings window `window` into memory. Its records must be all right: the disk may have
    /// changed since they were checked.
    fn load<D: Disk<Buffer = B>>(&mut self, disk: &D, window: u64) -> Result<(), Error<D::Error>> {
        if self.window == Some(window) {
            return Ok(());
        }
        // INVARIANT: The buffer will hold no window until the read has gone well.
        self.window = None;
        let used = self.records_in(window);
        if used > 0 {
            let place = self.sector(window)?;
            let bytes = 0..self.buffer.len();
            disk.read(place, &mut self.buffer, bytes)
                .map_err(Error::Io)?;
        }
        let (list, rest) = self.buffer.split_at_mut(used * Exception::BYTES);
        let first = self.geometry.first_record(window);
        for (record, e) in (first..).zip(Exception::records(list)) {
            check_alone(&self.geometry, record, e).map_err(Error::Fault)?;
        }
        rest.fill(0);
        // INVARIANT: The buffer holds the list's records, then zeroes.
        self.window = Some(window);
        Ok(())
    }

    /// The first sector of window `window`.
    fn sector<E>(&self, window: u64) -> Result<u64, Error<E>> {
        self.geometry
            .window(window)
            .map(|extent| extent.sector)
            .ok_or(self.beyond_device(self.geometry.area_of_window(window)))
    }

    fn beyond_device<E>(&self, area: u64) -> Error<E> {
        Error::Fault(Fault::AreaBeyondDevice {
            area,
            cow_chunks: self.geometry.cow_chunks(),
        })
    }

    /// Where `records` of window `window` lie, widened to what is written at once: the sector on the
    /// disk, and the bytes of the buffer.
    fn place<E>(
        &self,
        window: u64,
        records: Range<usize>,
    ) -> Result<(u64, Range<usize>), Error<E>> {
        let below = self.unit - 1;
        let start = (records.start * Exception::BYTES) & !below;
        let end = (records.end * Exception::BYTES + below) & !below;
        let sector = self.sector(window)? + (start / SECTOR_BYTES as usize) as u64;
        Ok((sector, start..end))
    }

    /// Adds a record, in memory only. `stable` if its data is on stable storage already.
    ///
    /// There must be room: no record may follow one after which [`Self::must_write`] said so
    /// before [`Self::write_out`] succeeded.
    pub fn push<D: Disk<Buffer = B>>(
        &mut self,
        disk: &D,
        e: Exception,
        stable: bool,
    ) -> Result<(), Error<D::Error>> {
        let window = self.geometry.window_of(self.records);
        self.load(disk, window)?;
        if self.stale {
            self.clear_stale(disk, window)?;
        }
        let at = self.records_in(window) * Exception::BYTES;
        for (to, from) in self.buffer[at..].iter_mut().zip(e.to_bytes()) {
            *to = from;
        }
        self.records += 1;
        // INVARIANT: Nothing is said of data that is not on stable storage.
        self.unflushed |= !stable;
        self.unwritten += 1;
        Ok(())
    }

    /// Whether the window is full, so that the records must be written before the next is added.
    pub fn must_write(&self) -> bool {
        self.records & (u64::from(self.geometry.records_per_window()) - 1) == 0
    }

    /// Writes the records that are in memory only; on stable storage, after their data, when it
    /// returns.
    pub fn write_out<D: Disk<Buffer = B>>(&mut self, disk: &D) -> Result<(), Error<D::Error>> {
        let Some(window) = self.window.filter(|_| self.unwritten > 0) else {
            return Ok(());
        };
        let in_window = self.records_in(window);
        let last = self.records - 1;
        let area = self.geometry.area_of(last);
        let per_area = self.geometry.exceptions_per_area();
        let in_area = self.geometry.index_in_area(last) + 1;
        if in_area == per_area {
            // The list will end in the next area, which must be zero before this record can be
            // read: the flush that precedes it sees to that.
            disk.zero(self.area(area + 1)?).map_err(Error::Io)?;
            self.unflushed = true;
        }
        let (first, bytes) = self.place(window, in_window - self.unwritten..in_window)?;
        let written = if self.unflushed {
            disk.flush_and_write(first, &self.buffer, bytes)
        } else {
            disk.write(first, &self.buffer, bytes)
        };
        written.map_err(Error::Io)?;
        // INVARIANT: All records are written.
        self.unwritten = 0;
        self.unflushed = false;
        if self.must_write() {
            // INVARIANT: The next window holds no records.
            self.buffer.fill(0);
            self.window = Some(window + 1);
        }
        if in_area >= per_area / 2 && in_area < per_area && self.zeroing != area + 1 {
            if let Ok(next) = self.area::<D::Error>(area + 1) {
                disk.zero_ahead(next);
                self.zeroing = area + 1;
            }
        }
        Ok(())
    }

    /// The extent of area `area`.
    fn area<E>(&self, area: u64) -> Result<Extent, Error<E>> {
        let chunk = self.geometry.area_chunk(area);
        chunk
            .map(|chunk| self.geometry.chunks(chunk, 1))
            .ok_or(self.beyond_device(area))
    }

    /// Zeroes what follows the end of the list in its area.
    ///
    /// Before a record is added, and not together with it: torn, that write could leave the
    /// record and what follows it.
    fn clear_stale<D: Disk<Buffer = B>>(
        &mut self,
        disk: &D,
        window: u64,
    ) -> Result<(), Error<D::Error>> {
        let area = self.area(self.geometry.area_of_window(window))?;
        let mut rest = area;
        rest.sector = self.sector(window)? + (self.buffer.len() / SECTOR_BYTES as usize) as u64;
        rest.sectors = area.sector + area.sectors - rest.sector;
        if rest.sectors > 0 {
            disk.zero(rest).map_err(Error::Io)?;
        }
        let unused = self.records_in(window)..self.geometry.records_per_window() as usize;
        let (first, bytes) = self.place(window, unused)?;
        disk.flush_and_write(first, &self.buffer, bytes)
            .map_err(Error::Io)?;
        self.stale = false;
        Ok(())
    }

    /// The run of records that the list ends with, as far as it lies in a window; `None` if the
    /// list is empty. No longer than what a copy of it may have in sectors, an `int`.
    // The C core merges by runs, our targets by batches: each module uses one of the two.
    #[allow(dead_code)]
    pub fn last_run<D: Disk<Buffer = B>>(
        &mut self,
        disk: &D,
    ) -> Result<Option<RunOfRecords>, Error<D::Error>> {
        let Some(number) = self.records.checked_sub(1) else {
            return Ok(None);
        };
        let window = self.geometry.window_of(number);
        self.load(disk, window)?;
        let used = self.records_in(window) * Exception::BYTES;
        let mut records = Exception::records(&self.buffer[..used]).rev();
        let Some(last) = records.next() else {
            return Ok(None);
        };
        // The origin's size may not have been known when the snapshot was activated. Of a run, the
        // last record has the highest chunks.
        check_alone(&self.geometry, number, last).map_err(Error::Fault)?;
        let limit = i32::MAX as u32 >> self.geometry.chunk_size().shift();
        let follows = |(e, distance): &(Exception, u64)| {
            last.old.checked_sub(*distance) == Some(e.old)
                && last.new.checked_sub(*distance) == Some(e.new)
        };
        let before = records.zip(1..u64::from(limit)).take_while(follows).count();
        Ok(Some(RunOfRecords {
            last,
            // CAST: Less than the records of a window.
            count: 1 + before as u32,
        }))
    }

    /// Shows `visit` records from the end of the list on, the last one first: not the last `skip`, and
    /// at most `max`, but at least one if there is one. It ends early where a window begins if that
    /// spares the next one from being read twice.
    // As above, the other way round.
    #[allow(dead_code)]
    pub fn last<D: Disk<Buffer = B>>(
        &mut self,
        disk: &D,
        skip: u64,
        max: u32,
        mut visit: impl FnMut(Exception),
    ) -> Result<(), Error<D::Error>> {
        // Where other windows come into memory, nothing may be in memory only.
        self.write_out(disk)?;
        let mut end = self.records.saturating_sub(skip);
        let mut left = u64::from(max);
        let per_window = u64::from(self.geometry.records_per_window());
        while let Some(last) = end.checked_sub(1).filter(|_| left > 0) {
            let window = self.geometry.window_of(last);
            let first = self.geometry.first_record(window);
            if left < u64::from(max) && left < per_window {
                break;
            }
            self.load(disk, window)?;
            let count = (end - first).min(left);
            // CAST: At most the records of a window.
            let (from, to) = ((end - count - first) as usize, (end - first) as usize);
            let bytes = &self.buffer[from * Exception::BYTES..to * Exception::BYTES];
            let numbers = (end - count..end).rev();
            for (number, e) in numbers.zip(Exception::records(bytes).rev()) {
                // The origin's size may not have been known when the snapshot was activated.
                check_alone(&self.geometry, number, e).map_err(Error::Fault)?;
                visit(e);
            }
            end -= count;
            left -= count;
        }
        Ok(())
    }

    /// Removes the last `count` records; on stable storage when it returns.
    ///
    /// The last window goes first, so that what is there is a list at any moment. After an error
    /// nobody knows of one window whether its records are removed.
    ///
    /// The caller has the merged data on the origin's stable storage. Nothing on the COW device
    /// needs to be durable before its record is gone, so there is no flush.
    pub fn remove_last<D: Disk<Buffer = B>>(
        &mut self,
        disk: &D,
        count: u32,
    ) -> Result<(), Error<D::Error>> {
        let mut left = u64::from(count).min(self.records);
        while let Some(last) = self.records.checked_sub(1).filter(|_| left > 0) {
            let window = self.geometry.window_of(last);
            let used = self.records_in(window);
            let removed = left.min(used as u64);
            // CAST: At most `used`.
            let kept = used - removed as usize;
            if kept > 0 {
                self.load(disk, window)?;
            }
            let (first, bytes) = self.place(window, kept..used)?;
            // INVARIANT: Until the write has gone well, the buffer is not what is on the disk.
            self.window = None;
            self.buffer[kept * Exception::BYTES..].fill(0);
            disk.write(first, &self.buffer, bytes).map_err(Error::Io)?;
            self.records -= removed;
            self.window = Some(window);
            left -= removed;
        }
        Ok(())
    }
}

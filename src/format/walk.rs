// SPDX-License-Identifier: GPL-2.0-only

//! Walks the records of a COW device, a window at a time.

use super::{
    pairs::go_on,
    Exception,
    Fault,
    Geometry,
    Platform,
    RecordCheck, //
};

/// Why a walk ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkError<E> {
    /// The metadata is refused.
    Fault(Fault),
    /// The visitor returned an error.
    Visit(E),
}

impl<E> From<Fault> for WalkError<E> {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Reads the list of records from the windows of the areas, and checks each.
///
/// The caller feeds window 0, 1, 2, … until [`Walk::next_window`] is `None`, then calls
/// [`Walk::finish`].
pub struct Walk<P: Platform> {
    geometry: Geometry,
    check: RecordCheck<P>,
    /// The window to be fed next.
    window: u64,
    /// The number of records, once the end of the list was seen.
    records: Option<u64>,
    /// Whether bytes after the end of the list, in its area, are other than zero.
    stale: bool,
}

impl<P: Platform> Walk<P> {
    /// Starts at the first record.
    pub fn new(geometry: Geometry) -> Self {
        Self {
            geometry,
            check: RecordCheck::new(geometry),
            window: 0,
            records: None,
            stale: false,
        }
    }

    /// The number of the window to feed next; `None` when the whole area that the list ends in was
    /// seen.
    pub fn next_window(&self) -> Option<u64> {
        let area_seen = self.geometry.index_of_window(self.window) == 0;
        (self.records.is_none() || !area_seen).then_some(self.window)
    }

    /// The number of records in the list, once its end was seen.
    pub fn records(&self) -> Option<u64> {
        self.records
    }

    /// Takes the content of window [`Walk::next_window`] and calls `visit` for each record in it.
    pub fn feed<E>(
        &mut self,
        window: &[u8],
        mut visit: impl FnMut(Exception) -> Result<(), E>,
    ) -> Result<(), WalkError<E>> {
        go_on::<P>()?;
        let mut rest: &[u8] = &[];
        if self.records.is_some() {
            rest = window;
        } else {
            let first = self.geometry.first_record(self.window);
            for (record, e) in (first..).zip(Exception::records(window)) {
                if e.is_empty() {
                    self.records = Some(record);
                    // CAST: Within the window.
                    let end = (record - first) as usize * Exception::BYTES;
                    rest = window.get(end..).unwrap_or_default();
                    break;
                }
                self.check.check(record, e)?;
                visit(e).map_err(WalkError::Visit)?;
            }
        }
        self.stale |= rest.iter().any(|byte| *byte != 0);
        self.window += 1;
        Ok(())
    }

    /// Completes the checks that need the whole list.
    ///
    /// Returns what was found; a list that the device ended before it did is a fault.
    pub fn finish(mut self) -> Result<Walked, Fault> {
        self.check.finish()?;
        let Some(records) = self.records else {
            return Err(Fault::AreaBeyondDevice {
                area: self.geometry.area_of_window(self.window),
                cow_chunks: self.geometry.cow_chunks(),
            });
        };
        Ok(Walked {
            records,
            next_new: self.check.next_new(),
            stale: self.stale,
        })
    }
}

/// What a complete walk found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walked {
    /// The number of records.
    pub records: u64,
    /// The first chunk above all that the records use, area chunks skipped.
    pub next_new: u64,
    /// Whether the area that the list ends in holds something after its end: a torn write of the
    /// C store leaves that, and a later record would bring it to life.
    pub stale: bool,
}

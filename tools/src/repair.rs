// SPDX-License-Identifier: GPL-2.0-only

//! Makes a sound COW device from what can be trusted of a damaged one.
//!
//! # What is trusted
//!
//! A record is kept if both its chunks lie on their devices, its new chunk is no metadata chunk,
//! and no other record makes it doubtful:
//!
//! * Of records with the same new chunk at most one is right. dm-snapshot hands out new chunks in
//!   ascending order, so one that lies between its neighbours' is kept if it is the only such one;
//!   otherwise none is.
//! * Of records with the same old chunk the last is kept: it is the one that the store in Linux 7.3's
//!   dm-snapshot reads and writes.
//!
//! The list ends with the first empty record, as for the kernel. What follows it was either cleared
//! on purpose (by a merge) or lost its predecessors to damage; only the user can know, and may ask
//! to have it looked at.

use crate::buffer::{is_zero, AlignedBuf};
use crate::cow::{byte_range, Cow, Origin};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::format::{check_alone, ChunkSize, Exception, Fault, Geometry, Place, SECTOR_BYTES};
use crate::interrupt::Interrupt;
use crate::report::Report;
use crate::restore::AreaWriter;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// How to repair.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Sectors in a chunk, where the header cannot be believed.
    pub chunk_sectors: Option<u32>,
    /// Mark an invalid snapshot valid again.
    pub trust_invalid: bool,
    /// Look for records after the end of the list too.
    pub past_end: bool,
}

/// Why a record was dropped.
#[derive(Debug)]
pub enum Reason {
    /// It is wrong by itself.
    Fault(Fault),
    /// Another record has the same new chunk, and nothing says which is right.
    NewDoubtful(u64),
    /// A later record has the same old chunk.
    OldUsedTwice(u64, Place),
    /// It stands after the end of the list.
    PastEnd(Place),
    /// It cannot be read; this many records share the fate.
    Unreadable(Place, u64, Error),
    /// Its chunk cannot be read.
    DataUnreadable(Place, Error),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => fault.fmt(f),
            Self::NewDoubtful(new) => {
                write!(f, "new chunk {new} is also another record's")
            }
            Self::OldUsedTwice(old, last) => {
                write!(f, "old chunk {old} is also that of {last}, which is kept")
            }
            Self::PastEnd(place) => write!(f, "{place}: it stands after the end of the list"),
            Self::Unreadable(place, count, error) => {
                write!(f, "{place} and the {} after it: {error}", count - 1)
            }
            Self::DataUnreadable(place, error) => write!(f, "{place}: its chunk is lost: {error}"),
        }
    }
}

/// A record that was not kept.
#[derive(Debug)]
pub struct Dropped {
    /// The record's number in the list; that of the first where several cannot be read.
    pub record: u64,
    /// The record, where it could be read.
    pub exception: Option<Exception>,
    /// Why.
    pub reason: Reason,
}

/// What a repair did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Records kept.
    pub kept: u64,
    /// Records dropped.
    pub dropped: u64,
    /// Whether the new header says that the snapshot is valid.
    pub valid: bool,
}

/// What a repair works from.
pub struct Plan {
    geometry: Geometry,
    valid: bool,
    kept: Vec<(u64, Exception)>,
    dropped: Vec<Dropped>,
}

impl Plan {
    /// Reads all records of `cow` and decides which to keep.
    pub fn new(cow: &Cow, origin: Origin, options: &Options) -> Result<Self> {
        let (geometry, valid) = geometry(cow, origin, options)?;
        let mut plan = Self {
            geometry,
            valid: valid || options.trust_invalid,
            kept: Vec::new(),
            dropped: Vec::new(),
        };
        plan.read(cow, options.past_end);
        plan.drop_doubtful_new();
        plan.drop_repeated_old();
        plan.dropped.sort_by_key(|dropped| dropped.record);
        Ok(plan)
    }

    /// What is dropped, in the order of the list.
    pub fn dropped(&self) -> &[Dropped] {
        &self.dropped
    }

    /// How many records are kept.
    pub fn kept(&self) -> u64 {
        self.kept.len() as u64
    }

    fn drop(&mut self, record: u64, exception: impl Into<Option<Exception>>, reason: Reason) {
        self.dropped.push(Dropped {
            record,
            exception: exception.into(),
            reason,
        });
    }

    fn read(&mut self, cow: &Cow, past_end: bool) {
        let geometry = self.geometry;
        let per_window = u64::from(geometry.records_per_window());
        let per_area = u64::from(geometry.windows_per_area());
        let mut buf = AlignedBuf::new(geometry.window_bytes() as usize);
        let mut ended = false;
        // Whether this area had a record that was kept.
        let mut of_use = true;
        for window in 0.. {
            let Some(extent) = geometry.window(window) else {
                break;
            };
            if window % per_area == 0 {
                // After the end, an area without any record ends the search.
                if ended && !(past_end && of_use) {
                    break;
                }
                of_use = false;
            }
            let first = window * per_window;
            let read = cow.device().read_at(&mut buf, byte_range(extent).0);
            if let Err(error) = read {
                let reason = Reason::Unreadable(geometry.place(first), per_window, error);
                self.drop(first, None, reason);
                continue;
            }
            for (record, e) in (first..).zip(Exception::records(&buf)) {
                let check = check_alone(&geometry, record, e);
                match check {
                    _ if e.is_empty() && (e.old == 0 || !ended) => ended = true,
                    _ if ended && !past_end => {
                        self.drop(record, e, Reason::PastEnd(geometry.place(record)));
                    }
                    Err(fault) => self.drop(record, e, Reason::Fault(fault)),
                    Ok(()) => {
                        of_use = true;
                        self.kept.push((record, e));
                    }
                }
            }
        }
    }

    /// Of the records that share a new chunk, keeps the only one between its neighbours, if there
    /// is such a one.
    fn drop_doubtful_new(&mut self) {
        let mut count: HashMap<u64, u32> = HashMap::new();
        let mut order: Vec<u64> = self.kept.iter().map(|(_, e)| e.new).collect();
        let list = order.clone();
        order.sort_unstable();
        for pair in order.windows(2).filter(|pair| pair[0] == pair[1]) {
            count.insert(pair[0], 0);
        }
        if count.is_empty() {
            return;
        }
        let fits = |at: usize| {
            let before = at
                .checked_sub(1)
                .is_none_or(|before| list[before] < list[at]);
            before && list.get(at + 1).is_none_or(|after| list[at] < *after)
        };
        for (at, new) in list.iter().enumerate() {
            if let Some(fitting) = count.get_mut(new) {
                *fitting += u32::from(fits(at));
            }
        }
        for (at, (record, e)) in std::mem::take(&mut self.kept).into_iter().enumerate() {
            match count.get(&e.new) {
                Some(fitting) if *fitting != 1 || !fits(at) => {
                    let fault = Fault::NewUsedTwice(self.geometry.place(record), e.new);
                    let reason = match fitting {
                        1 => Reason::Fault(fault),
                        _ => Reason::NewDoubtful(e.new),
                    };
                    self.drop(record, e, reason);
                }
                _ => self.kept.push((record, e)),
            }
        }
    }

    fn drop_repeated_old(&mut self) {
        let mut order: Vec<(u64, u64)> = self
            .kept
            .iter()
            .map(|(record, e)| (e.old, *record))
            .collect();
        order.sort_unstable();
        let mut repeated: HashMap<u64, u64> = HashMap::new();
        for same in order.chunk_by(|a, b| a.0 == b.0) {
            if let [earlier @ .., last] = same {
                repeated.extend(earlier.iter().map(|(_, record)| (*record, last.1)));
            }
        }
        drop(order);
        if repeated.is_empty() {
            return;
        }
        for (record, e) in std::mem::take(&mut self.kept) {
            match repeated.get(&record) {
                Some(last) => {
                    let last = self.geometry.place(*last);
                    self.drop(record, e, Reason::OldUsedTwice(e.old, last));
                }
                None => self.kept.push((record, e)),
            }
        }
    }

    /// Writes what is kept to `output`: the chunks first, in the places they have, then the areas.
    ///
    /// `tell` hears of records whose chunk turns out to be unreadable.
    pub fn write(
        self,
        cow: &Cow,
        output: Device,
        report: &Report,
        interrupt: &Interrupt,
        mut tell: impl FnMut(&Dropped),
    ) -> Result<Repaired> {
        if output.is_same(cow.device()) {
            return Err(Error::Refused(format!(
                "{}: a repair is never made in place; give another output",
                output.path().display()
            )));
        }
        let chunk = self.geometry.chunk_size();
        let geometry = Geometry::new(chunk, output.sectors(), u64::MAX);
        let geometry = geometry.map_err(|fault| Error::Fault {
            path: output.path().into(),
            fault,
        })?;
        let output = Arc::new(output);
        let mut areas = AreaWriter::new(Arc::clone(&output), geometry)?;
        let mut repaired = Repaired {
            dropped: self.dropped.iter().map(Dropped::records).sum(),
            valid: self.valid,
            ..Repaired::default()
        };
        let bytes = u64::from(chunk.bytes());
        let progress = report.progress("copying", self.kept.len() as u64 * bytes);
        let mut buf = AlignedBuf::new(bytes.min(1 << 20) as usize);
        for (record, e) in self.kept {
            if interrupt.asked() {
                return Err(Error::Interrupted(format!(
                    "{} is marked invalid; make it anew",
                    output.path().display()
                )));
            }
            match copy_chunk(cow.device(), &output, e.new * bytes, bytes, &mut buf) {
                Ok(()) => {
                    repaired.kept += 1;
                    areas.push(e)?;
                }
                Err(error) if is_read_error(&error, cow.device()) => {
                    repaired.dropped += 1;
                    tell(&Dropped {
                        record,
                        exception: Some(e),
                        reason: Reason::DataUnreadable(self.geometry.place(record), error),
                    });
                }
                Err(error) => return Err(error),
            }
            progress.advance(bytes);
        }
        areas.finish(self.valid)?;
        Ok(repaired)
    }
}

impl Dropped {
    /// How many records this stands for.
    pub fn records(&self) -> u64 {
        match self.reason {
            Reason::Unreadable(_, count, _) => count,
            _ => 1,
        }
    }
}

fn is_read_error(error: &Error, device: &Device) -> bool {
    matches!(error, Error::Io { path, action: "read", .. } if path == device.path())
}

fn copy_chunk(
    from: &Device,
    to: &Device,
    offset: u64,
    bytes: u64,
    buf: &mut AlignedBuf,
) -> Result<()> {
    let mut done = 0;
    while done < bytes {
        let part = (bytes - done).min(buf.len() as u64) as usize;
        from.read_at(&mut buf[..part], offset + done)?;
        if is_zero(&buf[..part]) {
            to.write_zeros(&buf[..part], offset + done)?;
        } else {
            to.write_at(&buf[..part], offset + done)?;
        }
        done += part as u64;
    }
    Ok(())
}

/// The geometry to read `cow` with, and whether its header says that the snapshot is valid.
fn geometry(cow: &Cow, origin: Origin, options: &Options) -> Result<(Geometry, bool)> {
    let layout = cow.layout();
    if let Some(sectors) = options.chunk_sectors {
        let chunk = ChunkSize::for_devices(sectors, cow.device().block(), origin.block);
        let chunk = chunk.map_err(|fault| {
            Error::Refused(format!(
                "chunk size {sectors} sectors cannot be used: {fault}"
            ))
        })?;
        let geometry = Geometry::new(chunk, cow.device().sectors(), origin.sectors);
        // A header that was lost says nothing of validity.
        let valid = matches!(layout, Ok(Some(layout)) if layout.header.valid);
        return Ok((geometry.map_err(|fault| cow.fault(fault))?, valid));
    }
    let what = match layout {
        Ok(Some(layout)) => return Ok((layout.geometry, layout.header.valid)),
        Ok(None) => "header: the magic is zero".to_owned(),
        Err(fault) => fault.to_string(),
    };
    let advice = match guess_chunk_size(cow) {
        Some(guess) => format!("the first area looks like chunks of {guess} sectors"),
        None => "the first area does not tell the chunk size".to_owned(),
    };
    Err(Error::Refused(format!(
        "{}: {what}; {advice}: give --chunk-size SECTORS, and --trust-invalid, as the header that \
         told whether the snapshot is valid is lost",
        cow.device().path().display()
    )))
}

/// The chunk size, in sectors, with which the first area makes most sense.
pub fn guess_chunk_size(cow: &Cow) -> Option<u32> {
    let mut best = None;
    let mut sectors = cow.device().block() / SECTOR_BYTES;
    while let Ok(chunk) = ChunkSize::new(sectors) {
        let Ok(geometry) = Geometry::new(chunk, cow.device().sectors(), u64::MAX) else {
            break;
        };
        let score = first_window_score(cow, &geometry);
        if score > best.map_or(0, |(score, _)| score) {
            best = Some((score, sectors));
        }
        sectors *= 2;
    }
    best.map(|(_, sectors)| sectors)
}

/// How many records of the first window, from its start on, could be such: their new chunks ascend
/// from the first data chunk on without leaving more out than they use.
fn first_window_score(cow: &Cow, geometry: &Geometry) -> u64 {
    let mut buf = AlignedBuf::new(geometry.window_bytes() as usize);
    let Some(extent) = geometry.window(0) else {
        return 0;
    };
    if cow
        .device()
        .read_at(&mut buf, byte_range(extent).0)
        .is_err()
    {
        return 0;
    }
    let mut last = 1;
    let mut score = 0;
    for e in Exception::records(&buf) {
        let alone = check_alone(geometry, 0, e);
        if alone.is_err() || e.new <= last || e.new > 2 * (score + 2) {
            break;
        }
        last = e.new;
        score += 1;
    }
    score
}

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
//! * Of records with the same old chunk the first is kept: a chunk is copied before it is overwritten
//!   for the first time. A later copy has what was written since, or belongs to another life of the
//!   device. (Which of them dm-snapshot's C core reads depends on what else is in its table.)
//!
//! The list ends with the first empty record, as for the kernel. What follows it was either cleared
//! on purpose (by a merge) or lost its predecessors to damage; only the user can know, and may ask
//! to have it looked at.

use crate::buffer::{is_zero, AlignedBuf};
use crate::cow::{byte_range, Cow, Origin};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::format::{check_alone, ChunkSize, Exception, Fault, Geometry, Place};
use crate::growable::push;
use crate::guess::guess_chunk_size;
use crate::interrupt::Interrupt;
use crate::report::Report;
use crate::restore::AreaWriter;
use serde::Serialize;
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
    /// An earlier record has the same old chunk.
    OldUsedTwice(u64, Place),
    /// It stands after the end of the list.
    PastEnd(Place),
    /// It cannot be read; this many records share the fate.
    Unreadable(Place, u64, Error),
    /// Its chunk cannot be read.
    DataUnreadable(Place, Error),
}

impl Reason {
    /// One word for programs and summaries.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Fault(fault) => fault.kind(),
            Self::NewDoubtful(_) => "new-doubtful",
            Self::OldUsedTwice(..) => "old-used-twice",
            Self::PastEnd(_) => "past-end",
            Self::Unreadable(..) => "unreadable",
            Self::DataUnreadable(..) => "data-unreadable",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => fault.fmt(f),
            Self::NewDoubtful(new) => {
                write!(f, "new chunk {new} is also another record's")
            }
            Self::OldUsedTwice(old, first) => {
                write!(f, "old chunk {old} is also that of {first}, which is kept")
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// Records kept.
    pub kept: u64,
    /// Records dropped.
    pub dropped: u64,
    /// Whether the new header says that the snapshot is valid.
    pub valid: bool,
}

/// Why a record that is sound alone was dropped.
#[derive(Clone, Copy, Debug)]
enum Doubt {
    NewUsedTwice,
    New,
    /// The last record with the same old chunk.
    Old(u64),
}

/// What a record is by itself.
enum Found {
    /// An empty one.
    Empty,
    /// One after the end of the list, which nobody asked for.
    PastEnd,
    Fault(Fault),
    Sound,
}

/// What a repair works from.
///
/// It takes 24 bytes for each record that is sound alone. Of the others only the number is kept:
/// they are read again to be told.
pub struct Plan {
    geometry: Geometry,
    valid: bool,
    past_end: bool,
    kept: Vec<(u64, Exception)>,
    doubts: Vec<(u64, Doubt)>,
    dropped: u64,
}

impl Plan {
    /// Reads all records of `cow` and decides which to keep.
    pub fn new(
        cow: &Cow,
        origin: Origin,
        options: &Options,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let (geometry, valid) = geometry(cow, origin, options)?;
        let mut plan = Self {
            geometry,
            valid: valid || options.trust_invalid,
            past_end: options.past_end,
            kept: Vec::new(),
            doubts: Vec::new(),
            dropped: 0,
        };
        let (mut kept, mut dropped) = (Vec::new(), 0);
        plan.read(cow, interrupt, |record, e, found| match found {
            Ok(Found::Empty) => Ok(()),
            Ok(Found::Sound) => push(&mut kept, (record, e)),
            Ok(Found::PastEnd | Found::Fault(_)) => {
                dropped += 1;
                Ok(())
            }
            Err((records, _)) => {
                dropped += records;
                Ok(())
            }
        })?;
        plan.kept = kept;
        plan.drop_doubtful_new()?;
        plan.drop_repeated_old()?;
        plan.doubts.sort_unstable_by_key(|(record, _)| *record);
        plan.dropped = dropped + plan.doubts.len() as u64;
        Ok(plan)
    }

    /// Whether the new header says that the snapshot is valid.
    pub fn valid(&self) -> bool {
        self.valid
    }

    /// How many records are dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How many records are kept.
    pub fn kept(&self) -> u64 {
        self.kept.len() as u64
    }

    /// Calls `tell` with what is dropped, in the order of the list.
    pub fn tell_dropped(
        &self,
        cow: &Cow,
        interrupt: &Interrupt,
        mut tell: impl FnMut(&Dropped),
    ) -> Result<()> {
        if self.dropped == 0 {
            return Ok(());
        }
        let mut doubts = self.doubts.iter().peekable();
        self.read(cow, interrupt, |record, e, found| {
            let place = self.geometry.place(record);
            let (exception, reason) = match found {
                Ok(Found::Empty) => return Ok(()),
                Ok(Found::PastEnd) => (Some(e), Reason::PastEnd(place)),
                Ok(Found::Fault(fault)) => (Some(e), Reason::Fault(fault)),
                Ok(Found::Sound) => {
                    let Some((_, doubt)) = doubts.next_if(|(doubtful, _)| *doubtful == record)
                    else {
                        return Ok(());
                    };
                    let reason = match doubt {
                        Doubt::NewUsedTwice => Reason::Fault(Fault::NewUsedTwice(place, e.new)),
                        Doubt::New => Reason::NewDoubtful(e.new),
                        Doubt::Old(first) => {
                            Reason::OldUsedTwice(e.old, self.geometry.place(*first))
                        }
                    };
                    (Some(e), reason)
                }
                Err((records, error)) => (None, Reason::Unreadable(place, records, error)),
            };
            tell(&Dropped {
                record,
                exception,
                reason,
            });
            Ok(())
        })
    }

    /// Calls `visit` with the number of each record, the record, and what it is by itself; or the
    /// first number of a window that cannot be read, how many it holds, and why.
    fn read(
        &self,
        cow: &Cow,
        interrupt: &Interrupt,
        mut visit: impl FnMut(u64, Exception, std::result::Result<Found, (u64, Error)>) -> Result<()>,
    ) -> Result<()> {
        let geometry = self.geometry;
        let per_window = u64::from(geometry.records_per_window());
        let per_area = u64::from(geometry.windows_per_area());
        let mut buf = AlignedBuf::new(geometry.window_bytes() as usize);
        let mut ended = false;
        // Whether this area had a record that is sound.
        let mut of_use = true;
        for window in 0.. {
            let Some(extent) = geometry.window(window) else {
                break;
            };
            if interrupt.asked() {
                let device = cow.device().path().display();
                return Err(Error::Interrupted(format!("while {device} was read")));
            }
            if window % per_area == 0 {
                // After the end, an area without any record ends the search.
                if ended && !(self.past_end && of_use) {
                    break;
                }
                of_use = false;
            }
            let first = window * per_window;
            let read = cow.device().read_at(&mut buf, byte_range(extent).0);
            if let Err(error) = read {
                visit(first, Exception::default(), Err((per_window, error)))?;
                continue;
            }
            for (record, e) in (first..).zip(Exception::records(&buf)) {
                let found = match check_alone(&geometry, record, e) {
                    _ if e.is_empty() && (e.old == 0 || !ended) => {
                        ended = true;
                        Found::Empty
                    }
                    _ if ended && !self.past_end => Found::PastEnd,
                    Err(fault) => Found::Fault(fault),
                    Ok(()) => {
                        of_use = true;
                        Found::Sound
                    }
                };
                visit(record, e, Ok(found))?;
            }
        }
        Ok(())
    }

    /// Of the records that share a new chunk, keeps the only one between its neighbours, if there
    /// is such a one.
    fn drop_doubtful_new(&mut self) -> Result<()> {
        let mut order = Vec::new();
        for (_, e) in &self.kept {
            push(&mut order, e.new)?;
        }
        order.sort_unstable();
        // Each new chunk that is named more than once, with how many of the records fit.
        let mut shared: Vec<(u64, u64)> = Vec::new();
        for pair in order.windows(2).filter(|pair| pair[0] == pair[1]) {
            if shared.last().is_none_or(|(new, _)| *new != pair[0]) {
                push(&mut shared, (pair[0], 0))?;
            }
        }
        drop(order);
        if shared.is_empty() {
            return Ok(());
        }
        let kept = std::mem::take(&mut self.kept);
        let fits = |at: usize| {
            let new = |at: usize| kept[at].1.new;
            let before = at.checked_sub(1).is_none_or(|before| new(before) < new(at));
            before && (at + 1 == kept.len() || new(at) < new(at + 1))
        };
        let find = |shared: &[(u64, u64)], new| shared.binary_search_by_key(&new, |(new, _)| *new);
        for (at, (_, e)) in kept.iter().enumerate() {
            if let Ok(found) = find(&shared, e.new) {
                shared[found].1 += u64::from(fits(at));
            }
        }
        let mut keep = Vec::new();
        for (at, (record, e)) in kept.iter().enumerate() {
            let fitting = find(&shared, e.new).map(|found| shared[found].1);
            match fitting {
                Ok(1) if !fits(at) => push(&mut self.doubts, (*record, Doubt::NewUsedTwice))?,
                Ok(fitting) if fitting != 1 => push(&mut self.doubts, (*record, Doubt::New))?,
                _ => push(&mut keep, (*record, *e))?,
            }
        }
        self.kept = keep;
        Ok(())
    }

    fn drop_repeated_old(&mut self) -> Result<()> {
        let mut order = Vec::new();
        for (record, e) in &self.kept {
            push(&mut order, (e.old, *record))?;
        }
        order.sort_unstable();
        let doubts = self.doubts.len();
        for same in order.chunk_by(|a, b| a.0 == b.0) {
            if let [(_, first), later @ ..] = same {
                for (_, record) in later {
                    push(&mut self.doubts, (*record, Doubt::Old(*first)))?;
                }
            }
        }
        let repeated = &mut self.doubts[doubts..];
        repeated.sort_unstable_by_key(|(record, _)| *record);
        let mut repeated = repeated.iter().peekable();
        self.kept.retain(|(record, _)| {
            repeated
                .next_if(|(repeated, _)| repeated == record)
                .is_none()
        });
        Ok(())
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
            dropped: self.dropped,
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

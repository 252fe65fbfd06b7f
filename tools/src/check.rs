// SPDX-License-Identifier: GPL-2.0-only

//! Checks a COW device: would the kernel load it, and what is wrong with it?

use crate::cow::{Cow, Layout};
use crate::duplicates::{old_used_twice, Distinct, Repeats};
use crate::error::{Error, Result};
use crate::format::{check_alone, CowState, Fault, Geometry, Header};
use crate::guess::guess_chunk_size;
use crate::run::Runs;
use std::fmt;

/// What the kernel would do with the COW device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Begin a new snapshot: there is none.
    New,
    /// Go on to the records, which were not read: the header is sound.
    Header,
    /// Load the snapshot.
    Loads,
    /// Load the snapshot as invalid: every read of it fails.
    Invalid,
    /// Refuse it.
    Refused(Fault),
}

impl Verdict {
    /// One word for programs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Header => "header",
            Self::Loads => "loads",
            Self::Invalid => "invalid",
            Self::Refused(_) => "refused",
        }
    }

    /// Whether there is a usable snapshot, or none at all.
    pub fn is_good(&self) -> bool {
        matches!(self, Self::New | Self::Header | Self::Loads)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("there is no snapshot; the kernel would begin a new one"),
            Self::Header => f.write_str("the header is sound; the records were not read"),
            Self::Loads => f.write_str("the kernel would load the snapshot"),
            Self::Invalid => f.write_str("the kernel would load the snapshot as invalid"),
            Self::Refused(_) => f.write_str("the kernel would refuse the snapshot"),
        }
    }
}

/// What is odd, though the kernel loads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warning {
    /// The header's `valid` is neither 0 nor 1.
    OddValid(u32),
    /// The area that the list ends in is not zero after it.
    Stale,
    /// The header is zero, and where chunks have this many sectors, records stand behind it.
    HeaderLost(u32),
}

impl Warning {
    /// One word for programs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::OddValid(_) => "odd-valid",
            Self::Stale => "stale",
            Self::HeaderLost(_) => "header-lost",
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OddValid(valid) => write!(
                f,
                "header: valid is {valid} at byte 4; the kernel takes that for 1"
            ),
            Self::Stale => f.write_str(
                "the area that the list ends in is not zero after it; \
                 the next record written there would bring the rest to life",
            ),
            Self::HeaderLost(sectors) => write!(
                f,
                "the header is zero, but records stand behind it: either it was lost, or LVM wiped \
                 it for a new snapshot. A new one would be written over them; if they are wanted, \
                 do not activate it: snap_repair --chunk-size {sectors} --trust-invalid makes a \
                 COW device of them"
            ),
        }
    }
}

/// What a check tells as it finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The kernel would refuse the snapshot for it.
    Fault(Fault),
    /// The kernel would not mind.
    Warning(Warning),
}

/// The list of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// Records in it.
    pub records: u64,
    /// Runs that the records form.
    pub runs: u64,
    /// Data chunks that no record uses though one uses a higher chunk; 0 if there was a fault.
    pub holes: u64,
}

/// What a check found.
#[derive(Clone, Copy, Debug)]
pub struct Checked {
    /// What the kernel would do.
    pub verdict: Verdict,
    /// Header and geometry; `None` for a new snapshot and one without a sound header.
    pub layout: Option<Layout>,
    /// The list of records; `None` where it was not read.
    pub list: Option<List>,
    /// How many faults were told.
    pub faults: u64,
    /// How many warnings were told.
    pub warnings: u64,
    /// Whether records stand behind a header that is zero.
    pub header_lost: bool,
}

impl Checked {
    /// Whether the kernel could have the device as it is, and nothing would be lost by it.
    pub fn is_good(&self) -> bool {
        self.verdict.is_good() && !self.header_lost
    }
}

/// A check under way.
struct Check<'a> {
    checked: Checked,
    first_fault: Option<Fault>,
    tell: &'a mut dyn FnMut(Finding),
}

impl Check<'_> {
    fn fault(&mut self, fault: Fault) {
        self.checked.faults += 1;
        self.first_fault.get_or_insert(fault);
        (self.tell)(Finding::Fault(fault));
    }

    fn warn(&mut self, warning: Warning) {
        self.checked.warnings += 1;
        (self.tell)(Finding::Warning(warning));
    }

    /// Checks the header, and whether it is there where records are.
    fn header(&mut self, cow: &Cow, table_sectors: u32) {
        let verdict = match cow.state(table_sectors) {
            Ok(CowState::New(_)) => Verdict::New,
            Ok(CowState::Valid(_)) => Verdict::Header,
            Ok(CowState::Invalid(_)) => Verdict::Invalid,
            Err(fault) => Verdict::Refused(fault),
        };
        self.checked.verdict = verdict;
        if matches!(Header::read(cow.header_bytes()), Ok(None)) {
            if let Some(sectors) = guess_chunk_size(cow) {
                self.checked.header_lost = true;
                self.warn(Warning::HeaderLost(sectors));
            }
        }
        match verdict {
            Verdict::Refused(fault) => return self.fault(fault),
            Verdict::New => return,
            Verdict::Header | Verdict::Loads | Verdict::Invalid => {}
        }
        match cow.layout() {
            Ok(layout) => self.checked.layout = layout,
            // The kernel does not lay out an invalid snapshot.
            Err(fault) => self.fault(fault),
        }
        let [_, valid, ..] = Header::fields(cow.header_bytes());
        if valid > 1 {
            self.warn(Warning::OddValid(valid));
        }
    }

    /// Walks the list.
    fn list(&mut self, cow: &Cow, geometry: &Geometry) -> Result<()> {
        let mut list = List::default();
        let mut runs = Runs::default();
        let mut old_chunks = Distinct::default();
        let walked = cow.walk(*geometry, |_, e| {
            list.runs += u64::from(runs.push(e).is_some());
            old_chunks.give(e.old);
            Ok(())
        });
        list.runs += u64::from(runs.finish().is_some());

        let refused = match walked {
            Ok(walked) => {
                list.records = walked.records;
                list.holes = data_chunks_below(geometry, walked.next_new) - walked.records;
                if walked.stale {
                    self.warn(Warning::Stale);
                }
                if !old_chunks.is_certain() {
                    self.find_old_used_twice(cow, geometry)?;
                }
                self.first_fault
            }
            Err(Error::Fault { fault, .. }) => {
                list = self.find_faults(cow, geometry)?;
                self.find_old_used_twice(cow, geometry)?;
                Some(fault)
            }
            Err(error) => return Err(error),
        };
        self.checked.list = Some(list);
        // The kernel does not look at the records of an invalid snapshot.
        if self.checked.verdict == Verdict::Header {
            self.checked.verdict = refused.map_or(Verdict::Loads, Verdict::Refused);
        }
        Ok(())
    }

    /// Walks the list without stopping at a fault. Leaves out records that share an old chunk.
    fn find_faults(&mut self, cow: &Cow, geometry: &Geometry) -> Result<List> {
        let told = |fault| cow.fault(fault);
        let mut list = List::default();
        let mut new_chunks = Repeats::default();
        let mut runs = Runs::default();
        let ended = cow.records(*geometry, |record, e| {
            list.records = record + 1;
            list.runs += u64::from(runs.push(e).is_some());
            match check_alone(geometry, record, e) {
                Ok(()) => new_chunks.give(e.new, record).map_err(told)?,
                Err(fault) => self.fault(fault),
            }
            Ok(())
        })?;
        list.runs += u64::from(runs.finish().is_some());

        let twice = |new, _, again| self.fault(Fault::NewUsedTwice(geometry.place(again), new));
        new_chunks.finish(twice).map_err(told)?;
        if !ended {
            self.fault(Fault::AreaBeyondDevice {
                area: geometry.areas(),
                cow_chunks: geometry.cow_chunks(),
            });
        }
        Ok(list)
    }

    /// Walks the list for records that share an old chunk.
    fn find_old_used_twice(&mut self, cow: &Cow, geometry: &Geometry) -> Result<()> {
        old_used_twice(cow, geometry, |old, first, again| {
            let new = [first, again];
            self.fault(Fault::OldUsedTwice { old, new });
        })
    }
}

/// How much is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The header only.
    Header,
    /// Everything that can be known without reading data.
    Everything,
}

/// Checks `cow` as far as `depth` says, and calls `tell` with each finding.
///
/// `table_sectors` is the chunk size that the table would ask for if there is no snapshot yet, in
/// sectors, 0 for the default.
///
/// The records are walked once as the kernel does. Only where there is a fault, or where old chunks
/// are too far apart to be told apart at once, they are walked again, for all faults.
pub fn check(
    cow: &Cow,
    depth: Depth,
    table_sectors: u32,
    tell: &mut dyn FnMut(Finding),
) -> Result<Checked> {
    let mut check = Check {
        checked: Checked {
            verdict: Verdict::New,
            layout: None,
            list: None,
            faults: 0,
            warnings: 0,
            header_lost: false,
        },
        first_fault: None,
        tell,
    };
    check.header(cow, table_sectors);
    if let (Some(layout), Depth::Everything) = (check.checked.layout, depth) {
        check.list(cow, &layout.geometry)?;
    }
    Ok(check.checked)
}

/// How many chunks below `chunk` may hold data.
fn data_chunks_below(geometry: &Geometry, chunk: u64) -> u64 {
    let stride = u64::from(geometry.exceptions_per_area()) + 1;
    // Below `chunk` lie the header and the areas at 1, 1 + stride, …
    let areas = (chunk + stride - 2) / stride;
    chunk - 1 - areas
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::ChunkSize;

    #[test]
    fn counts_data_chunks() {
        let chunk = ChunkSize::new(1).unwrap();
        let geometry = Geometry::new(chunk, 1000, 1000).unwrap();
        let mut count = 0;
        for chunk in 2..1000 {
            assert_eq!(data_chunks_below(&geometry, chunk), count, "chunk {chunk}");
            count += u64::from(!geometry.is_metadata(chunk));
        }
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! Checks a COW device: would the kernel load it, and what is wrong with it?

use crate::cow::{Cow, Layout};
use crate::duplicates::{old_used_twice, Distinct, Repeats};
use crate::error::{Error, Result};
use crate::format::{check_alone, CowState, Fault, Geometry, Header};
use crate::run::Runs;
use std::fmt;

/// What the kernel would do with the COW device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Begin a new snapshot: there is none.
    New,
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
            Self::Loads => "loads",
            Self::Invalid => "invalid",
            Self::Refused(_) => "refused",
        }
    }

    /// Whether there is a usable snapshot, or none at all.
    pub fn is_good(&self) -> bool {
        matches!(self, Self::New | Self::Loads)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("there is no snapshot; the kernel would begin a new one"),
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
}

impl Warning {
    /// One word for programs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::OddValid(_) => "odd-valid",
            Self::Stale => "stale",
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
        }
    }
}

/// What a check found.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What the kernel would do.
    pub verdict: Verdict,
    /// The header and what follows from it, where the header is usable.
    pub layout: Option<Layout>,
    /// How many records the list has.
    pub records: u64,
    /// How many runs the records form.
    pub runs: u64,
    /// Data chunks that no record uses though later ones are used.
    pub holes: u64,
    /// The first faults, [`Checked::MAX_TOLD`] at most.
    pub faults: Vec<Fault>,
    /// How many faults there are.
    pub fault_count: u64,
    /// The first warnings, [`Checked::MAX_TOLD`] at most.
    pub warnings: Vec<Warning>,
    /// How many warnings there are.
    pub warning_count: u64,
}

impl Checked {
    /// How many faults and how many warnings are told one by one.
    pub const MAX_TOLD: usize = 1000;

    fn new(verdict: Verdict) -> Self {
        Self {
            verdict,
            layout: None,
            records: 0,
            runs: 0,
            holes: 0,
            faults: Vec::new(),
            fault_count: 0,
            warnings: Vec::new(),
            warning_count: 0,
        }
    }

    fn refused(fault: Fault) -> Self {
        let mut checked = Self::new(Verdict::Refused(fault));
        checked.fault(fault);
        checked
    }

    fn fault(&mut self, fault: Fault) {
        self.fault_count += 1;
        if self.faults.len() < Self::MAX_TOLD {
            self.faults.push(fault);
        }
    }

    fn warn(&mut self, warning: Warning) {
        self.warning_count += 1;
        if self.warnings.len() < Self::MAX_TOLD {
            self.warnings.push(warning);
        }
    }
}

/// Checks the header only; `table_sectors` is the chunk size that the table would ask for if there
/// is no snapshot yet, in sectors, 0 for the default.
pub fn check_header(cow: &Cow, table_sectors: u32) -> Checked {
    let verdict = match cow.state(table_sectors) {
        Ok(CowState::New(_)) => return Checked::new(Verdict::New),
        Ok(CowState::Valid(_)) => Verdict::Loads,
        Ok(CowState::Invalid(_)) => Verdict::Invalid,
        Err(fault) => return Checked::refused(fault),
    };
    let mut checked = Checked::new(verdict);
    match cow.layout() {
        Ok(layout) => checked.layout = layout,
        // The kernel does not lay out an invalid snapshot.
        Err(fault) => checked.fault(fault),
    }
    let [_, valid, ..] = Header::fields(cow.header_bytes());
    if valid > 1 {
        checked.warn(Warning::OddValid(valid));
    }
    checked
}

/// Checks everything that can be known without reading data.
///
/// The records are walked once as the kernel does. Only where there is a fault, or where old chunks
/// are too far apart to be told apart at once, they are walked again, for all faults. For
/// `table_sectors` see [`check_header`].
pub fn check(cow: &Cow, table_sectors: u32) -> Result<Checked> {
    let mut checked = check_header(cow, table_sectors);
    let Some(Layout { geometry, .. }) = checked.layout else {
        return Ok(checked);
    };

    let mut runs = Runs::default();
    let mut old_chunks = Distinct::default();
    let walked = cow.walk(geometry, |_, e| {
        checked.runs += u64::from(runs.push(e).is_some());
        old_chunks.give(e.old);
        Ok(())
    });
    checked.runs += u64::from(runs.finish().is_some());

    let refused = match walked {
        Ok(walked) => {
            checked.records = walked.records;
            checked.holes = data_chunks_below(&geometry, walked.next_new) - walked.records;
            if walked.stale {
                checked.warn(Warning::Stale);
            }
            if !old_chunks.is_certain() {
                find_old_used_twice(cow, &geometry, &mut checked)?;
            }
            checked.faults.first().copied()
        }
        Err(Error::Fault { fault, .. }) => {
            find_faults(cow, &geometry, &mut checked)?;
            find_old_used_twice(cow, &geometry, &mut checked)?;
            Some(fault)
        }
        Err(error) => return Err(error),
    };
    // The kernel does not look at the records of an invalid snapshot.
    if checked.verdict == Verdict::Loads {
        checked.verdict = refused.map_or(Verdict::Loads, Verdict::Refused);
    }
    Ok(checked)
}

/// How many chunks below `chunk` may hold data.
fn data_chunks_below(geometry: &Geometry, chunk: u64) -> u64 {
    let stride = u64::from(geometry.exceptions_per_area()) + 1;
    // Below `chunk` lie the header and the areas at 1, 1 + stride, …
    let areas = (chunk + stride - 2) / stride;
    chunk - 1 - areas
}

/// Walks the list without stopping at a fault. Leaves out records that share an old chunk.
fn find_faults(cow: &Cow, geometry: &Geometry, checked: &mut Checked) -> Result<()> {
    let told = |fault| cow.fault(fault);
    let mut new_chunks = Repeats::default();
    let mut runs = Runs::default();
    checked.runs = 0;
    let ended = cow.records(*geometry, |record, e| {
        checked.records = record + 1;
        checked.runs += u64::from(runs.push(e).is_some());
        match check_alone(geometry, record, e) {
            Ok(()) => new_chunks.give(e.new, record).map_err(told)?,
            Err(fault) => checked.fault(fault),
        }
        Ok(())
    })?;
    checked.runs += u64::from(runs.finish().is_some());

    let twice = |new, _, again| checked.fault(Fault::NewUsedTwice(geometry.place(again), new));
    new_chunks.finish(twice).map_err(told)?;
    if !ended {
        checked.fault(Fault::AreaBeyondDevice {
            area: geometry.areas(),
            cow_chunks: geometry.cow_chunks(),
        });
    }
    Ok(())
}

/// Walks the list for records that share an old chunk.
fn find_old_used_twice(cow: &Cow, geometry: &Geometry, checked: &mut Checked) -> Result<()> {
    old_used_twice(cow, geometry, |old, first, again| {
        let new = [first, again];
        checked.fault(Fault::OldUsedTwice { old, new });
    })
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

// SPDX-License-Identifier: GPL-2.0-only

//! `snap_check`

use super::{OriginArgs, Tool};
use crate::check::{check, Checked, Depth, Finding, Warning};
use crate::cow::Cow;
use crate::device::Access;
use crate::error::{Error, Result};
use crate::format::Fault;
use crate::growable::push;
use crate::interrupt::Interrupt;
use crate::lvm::Volumes;
use crate::report::Report;
use crate::units::{chunk_sectors, Units};
use clap::Args;
use serde::{Serialize, Serializer};
use std::path::PathBuf;

#[derive(Args)]
pub struct Check {
    /// The COW device, a file that holds its content, or the VG/LV of a snapshot
    #[arg(value_name = "INPUT")]
    input: PathBuf,

    #[command(flatten)]
    origin: OriginArgs,

    /// The chunk size that the table would ask for, 0 for the default; it only matters where there
    /// is no snapshot yet
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = chunk_sectors)]
    chunk_size: u32,

    /// Only check the header; nothing is said of the records, which are not read
    #[arg(long)]
    header_only: bool,

    /// Tell every fault, however many there are, not only the first 20, or 1000 with --json
    #[arg(long)]
    all: bool,

    /// The unit in which the chunk size is told: h, b, s, k, m, g, t, p, e as LVM has them; JSON is in
    /// sectors
    #[arg(long, value_name = "UNIT", default_value = "s", value_parser = Units::parse)]
    units: Units,

    /// Write the result as a JSON object to standard output
    #[arg(long)]
    json: bool,

    /// Suppress output messages, return only exit code
    #[arg(short, long)]
    quiet: bool,
}

/// How many faults are told without `--all`.
const TOLD: u64 = 20;

/// And how many with `--json`.
const TOLD_JSON: u64 = 1000;

impl Tool for Check {
    const NAME: &'static str = "snap_check";
    const ABOUT: &'static str = "Check the metadata of a snapshot's COW device";
    const LONG_ABOUT: &'static str = "\
Reads the header and every record of the list, and says what is wrong, where, and whether the \
kernel would load the snapshot. Each record's chunks must lie on their devices, no new chunk may \
be a metadata chunk, and no old and no new chunk may be used twice. It warns of what the kernel \
takes though it is odd, as bytes after the end of the list. Nothing is ever written.

Where the header is zero there is no snapshot, and the kernel would begin a new one. If records \
stand behind such a header, it may have been lost; that is said and the exit status is 1.

What is found is written to standard output. With --json that is an object: its \"verdict\" is \
\"loads\", \"new\" (there is no snapshot, the kernel would begin one), \"invalid\" (loaded, but \
every read fails), \"refused\", or, with --header-only, \"header\" (the header is sound). What was \
not read is null.";
    const EXTRA: &'static str = "\
EXAMPLES
  snap_check /dev/vg/cow
  snap_check --origin /dev/vg/origin --json cow.img

  The exit status is 0 if the kernel would load the snapshot, or begin a new one where no record \
is, and 1 otherwise.";

    fn quiet(&self) -> bool {
        self.quiet
    }

    fn run(self, report: &Report, volumes: &Volumes) -> Result<bool> {
        let named = volumes.cow(&self.input)?;
        let origin = self.origin.known(&named, volumes)?.origin()?;
        let cow = Cow::open(&named.cow, Access::Read, origin)?.watching(&Interrupt::watch()?);
        let depth = if self.header_only {
            Depth::Header
        } else {
            Depth::Everything
        };
        let limit = match (self.all, self.json) {
            (true, _) => u64::MAX,
            (_, true) => TOLD_JSON,
            _ => TOLD,
        };
        let checked = if self.json {
            let mut findings = Findings::default();
            let checked = check(&cow, depth, self.chunk_size, &mut |finding| {
                findings.keep(finding, limit);
            })?;
            if findings.lost {
                return Err(Error::NoMemory);
            }
            report.json(&Json::new(&cow, &checked, &findings));
            checked
        } else {
            let mut faults = 0;
            let checked = check(&cow, depth, self.chunk_size, &mut |finding| match finding {
                Finding::Fault(fault) => {
                    faults += 1;
                    if faults <= limit {
                        report.line(format_args!("error: {fault}"));
                    }
                }
                Finding::Warning(warning) => report.line(format_args!("warning: {warning}")),
            })?;
            tell(&checked, limit, self.units, report);
            checked
        };
        Ok(checked.is_good())
    }
}

/// Says what is left to say after the findings.
fn tell(checked: &Checked, limit: u64, units: Units, report: &Report) {
    let more = checked.faults.saturating_sub(limit);
    if more > 0 {
        report.line(format_args!("error: {more} more faults (--all tells them)"));
    }
    if let Some(layout) = checked.layout {
        let chunk_size = units.show(layout.header.chunk_sectors.into());
        let chunks = layout.geometry.cow_chunks();
        let list = checked.list.map_or(String::new(), |list| {
            format!(
                ", {} records in {} runs, {} holes",
                list.records, list.runs, list.holes
            )
        });
        report.line(format_args!(
            "chunk size {chunk_size}, {chunks} chunks{list}"
        ));
    }
    report.line(checked.verdict);
}

/// What was found, kept to be told at the end.
#[derive(Default)]
struct Findings {
    faults: Vec<Fault>,
    warnings: Vec<Warning>,
    /// Whether memory did not suffice.
    lost: bool,
}

impl Findings {
    fn keep(&mut self, finding: Finding, limit: u64) {
        let kept = match finding {
            Finding::Fault(_) if self.faults.len() as u64 >= limit => Ok(()),
            Finding::Fault(fault) => push(&mut self.faults, fault),
            Finding::Warning(warning) => push(&mut self.warnings, warning),
        };
        self.lost |= kept.is_err();
    }
}

/// The object that `--json` writes.
#[derive(Serialize)]
struct Json<'a> {
    verdict: &'static str,
    cow_size: u64,
    header: Option<HeaderJson>,
    records: Option<u64>,
    runs: Option<u64>,
    holes: Option<u64>,
    #[serde(serialize_with = "faults_json")]
    faults: &'a [Fault],
    fault_count: u64,
    warnings: Vec<WarningJson>,
    warning_count: u64,
}

#[derive(Serialize)]
struct HeaderJson {
    valid: bool,
    chunk_size: u32,
    cow_chunks: u64,
    areas: u64,
}

#[derive(Serialize)]
struct FaultJson {
    kind: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    area: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    byte: Option<u64>,
}

#[derive(Serialize)]
struct WarningJson {
    kind: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk_size: Option<u32>,
}

impl<'a> Json<'a> {
    fn new(cow: &Cow, checked: &Checked, findings: &'a Findings) -> Self {
        Self {
            verdict: checked.verdict.name(),
            cow_size: cow.device().sectors(),
            header: checked.layout.map(|layout| HeaderJson {
                valid: layout.header.valid,
                chunk_size: layout.header.chunk_sectors,
                cow_chunks: layout.geometry.cow_chunks(),
                areas: layout.geometry.areas(),
            }),
            records: checked.list.map(|list| list.records),
            runs: checked.list.map(|list| list.runs),
            holes: checked.list.map(|list| list.holes),
            faults: &findings.faults,
            fault_count: checked.faults,
            warnings: findings.warnings.iter().map(WarningJson::from).collect(),
            warning_count: checked.warnings,
        }
    }
}

impl From<&Fault> for FaultJson {
    fn from(fault: &Fault) -> Self {
        let place = fault.place();
        Self {
            kind: fault.kind(),
            message: fault.to_string(),
            area: place.map(|place| place.area),
            record: place.map(|place| place.index),
            byte: place.map(|place| place.byte),
        }
    }
}

impl From<&Warning> for WarningJson {
    fn from(warning: &Warning) -> Self {
        Self {
            kind: warning.name(),
            message: warning.to_string(),
            chunk_size: match warning {
                Warning::HeaderLost(sectors) => Some(*sectors),
                Warning::OddValid(_) | Warning::Stale => None,
            },
        }
    }
}

/// One after the other: there can be millions.
fn faults_json<S: Serializer>(faults: &[Fault], to: S) -> std::result::Result<S::Ok, S::Error> {
    to.collect_seq(faults.iter().map(FaultJson::from))
}

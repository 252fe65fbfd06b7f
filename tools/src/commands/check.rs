// SPDX-License-Identifier: GPL-2.0-only

//! `snap_check`

use super::{OriginArgs, Tool};
use crate::check::{check, check_header, Checked};
use crate::cow::Cow;
use crate::device::Access;
use crate::error::Result;
use crate::format::{Fault, Place};
use crate::report::Report;
use clap::Args;
use serde_json::{json, Value};
use std::path::PathBuf;

#[derive(Args)]
pub struct Check {
    /// The COW device, or a file that holds its content
    #[arg(value_name = "INPUT")]
    input: PathBuf,

    #[command(flatten)]
    origin: OriginArgs,

    /// The chunk size that the table would ask for, in sectors of 512 bytes, 0 for the default; it
    /// only matters where there is no snapshot yet
    #[arg(long, value_name = "SECTORS", default_value_t = 0)]
    chunk_size: u32,

    /// Only check the header
    #[arg(long)]
    header_only: bool,

    /// Tell every fault, not only the first ones
    #[arg(long)]
    all: bool,

    /// Write the result as a JSON object to standard output
    #[arg(long)]
    json: bool,

    /// Suppress output messages, return only exit code
    #[arg(short, long)]
    quiet: bool,
}

/// How many faults, and how many warnings, are told without `--all`.
const TOLD: usize = 20;

impl Tool for Check {
    const NAME: &'static str = "snap_check";
    const ABOUT: &'static str = "Check the metadata of a snapshot's COW device";
    const LONG_ABOUT: &'static str = "\
Reads the header and every record of the list, and says what is wrong, where, and whether the \
kernel would load the snapshot. Each record's chunks must lie on their devices, no new chunk may \
be a metadata chunk, and no old and no new chunk may be used twice. It warns of what the kernel \
takes though it is odd, as bytes after the end of the list. Nothing is ever written.

With --json the object's \"verdict\" is \"loads\", \"new\" (there is no snapshot, the kernel \
would begin one), \"invalid\" (loaded, but every read fails) or \"refused\".";
    const EXTRA: &'static str = "\
EXAMPLES
  snap_check /dev/vg/cow
  snap_check --origin /dev/vg/origin --json cow.img

  The exit status is 0 if the kernel would load the snapshot or begin a new one, 1 otherwise.";

    fn quiet(&self) -> bool {
        self.quiet
    }

    fn run(self, report: &Report) -> Result<bool> {
        let cow = Cow::open(&self.input, Access::Read, self.origin.origin()?)?;
        let checked = if self.header_only {
            check_header(&cow, self.chunk_size)
        } else {
            check(&cow, self.chunk_size)?
        };
        if self.json {
            report.json(&to_json(&cow, &checked));
        } else {
            self.tell(&checked, report);
        }
        Ok(checked.verdict.is_good())
    }
}

impl Check {
    fn tell(&self, checked: &Checked, report: &Report) {
        let told = if self.all { usize::MAX } else { TOLD };
        for fault in checked.faults.iter().take(told) {
            report.error(fault);
        }
        let more = checked.fault_count - checked.faults.len().min(told) as u64;
        if more > 0 {
            report.error(format_args!("{more} more faults"));
        }
        for warning in checked.warnings.iter().take(told) {
            report.warn(warning);
        }
        let more = checked.warning_count - checked.warnings.len().min(told) as u64;
        if more > 0 {
            report.warn(format_args!("{more} more warnings"));
        }
        if let Some(layout) = checked.layout {
            report.line(format_args!(
                "chunk size {} sectors, {} chunks, {} records in {} runs, {} holes",
                layout.header.chunk_sectors,
                layout.geometry.cow_chunks(),
                checked.records,
                checked.runs,
                checked.holes,
            ));
        }
        report.line(checked.verdict);
    }
}

fn to_json(cow: &Cow, checked: &Checked) -> Value {
    let faults: Vec<Value> = checked.faults.iter().map(fault_json).collect();
    let warnings: Vec<Value> = checked
        .warnings
        .iter()
        .map(|warning| json!({ "kind": warning.name(), "message": warning.to_string() }))
        .collect();
    let header = checked.layout.map(|layout| {
        json!({
            "valid": layout.header.valid,
            "chunk_size": layout.header.chunk_sectors,
            "cow_chunks": layout.geometry.cow_chunks(),
            "areas": layout.geometry.areas(),
        })
    });
    json!({
        "verdict": checked.verdict.name(),
        "cow_size": cow.device().sectors(),
        "header": header,
        "records": checked.records,
        "runs": checked.runs,
        "holes": checked.holes,
        "faults": faults,
        "fault_count": checked.fault_count,
        "warnings": warnings,
        "warning_count": checked.warning_count,
    })
}

fn fault_json(fault: &Fault) -> Value {
    let mut value = json!({ "kind": fault.kind(), "message": fault.to_string() });
    if let Some(Place { area, index, byte }) = fault.place() {
        value["area"] = area.into();
        value["record"] = index.into();
        value["byte"] = byte.into();
    }
    value
}

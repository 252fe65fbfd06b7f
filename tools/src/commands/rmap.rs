// SPDX-License-Identifier: GPL-2.0-only

//! `snap_rmap`

use super::Tool;
use crate::cow::{Cow, Origin};
use crate::device::Access;
use crate::error::Result;
use crate::interrupt::Interrupt;
use crate::lvm::Volumes;
use crate::report::Report;
use crate::rmap::{rmap, Use, Used};
use clap::Args;
use serde_json::{json, Value};
use std::ops::RangeInclusive;
use std::path::PathBuf;

#[derive(Args)]
pub struct Rmap {
    /// The COW device, a file that holds its content, or the VG/LV of a snapshot
    #[arg(value_name = "COW")]
    input: PathBuf,

    /// The chunks of the COW device that are asked for: N, or FIRST..END without END
    #[arg(value_name = "CHUNK", required = true, value_parser = numbers)]
    chunks: Vec<RangeInclusive<u64>>,

    /// The numbers are sectors of the COW device, as in the kernel's log, and no chunks
    #[arg(long)]
    sectors: bool,

    /// Write the result as a JSON array to standard output
    #[arg(long)]
    json: bool,

    /// Suppress output messages, return only exit code
    #[arg(short, long)]
    quiet: bool,
}

/// Parses `N` or `FIRST..END`.
fn numbers(text: &str) -> std::result::Result<RangeInclusive<u64>, String> {
    if text.contains("..") {
        let range = super::chunk_range(text)?;
        return Ok(range.start..=range.end - 1);
    }
    let number = text.parse();
    number
        .map(|number| number..=number)
        .map_err(|_| format!("`{text}` is no number"))
}

impl Tool for Rmap {
    const NAME: &'static str = "snap_rmap";
    const ABOUT: &'static str = "Tell which chunk of the origin a chunk of the COW device keeps";
    const LONG_ABOUT: &'static str = "\
Tells for each chunk of the COW device that is asked for which chunk of the origin it keeps, or \
what else it is: the header, an area of metadata, or unused. So it can be known what a bad sector \
of the COW device costs.

The records are checked as the kernel does when it loads the snapshot.";
    const EXTRA: &'static str = "\
EXAMPLES
  snap_rmap /dev/vg/cow 17
  snap_rmap vg/snap 100..200
  snap_rmap --sectors cow.img 819200

OUTPUT
  4: old chunk 18, origin sectors 144 to 151
  1: area 0
  0: header
  99: unused";

    fn quiet(&self) -> bool {
        self.quiet
    }

    fn run(self, report: &Report, volumes: &Volumes) -> Result<bool> {
        let named = volumes.cow(&self.input)?;
        let cow = Cow::open(&named.cow, Access::Read, Origin::UNKNOWN)?;
        let cow = cow.watching(&Interrupt::watch()?);
        let chunk_sectors = u64::from(cow.snapshot()?.header.chunk_sectors);
        let unit = if self.sectors { chunk_sectors } else { 1 };
        let asked = self.chunks.iter();
        let asked = asked.map(|range| range.start() / unit..=range.end() / unit);
        let mut list = Vec::new();
        rmap(&cow, asked.collect(), |used| {
            if self.json {
                return crate::growable::push(&mut list, to_json(&used));
            }
            let Used { new, what } = used;
            match what {
                Use::Header => report.line(format_args!("{new}: header")),
                Use::Area(area) => report.line(format_args!("{new}: area {area}")),
                Use::Unused => report.line(format_args!("{new}: unused")),
                Use::Data { old, .. } => {
                    let first = old.saturating_mul(chunk_sectors);
                    report.line(format_args!(
                        "{new}: old chunk {old}, origin sectors {first} to {}",
                        first.saturating_add(chunk_sectors - 1)
                    ));
                }
            }
            Ok(())
        })?;
        if self.json {
            report.json(&list);
        }
        Ok(true)
    }
}

fn to_json(used: &Used) -> Value {
    let new = used.new;
    match used.what {
        Use::Header => json!({ "new": new, "kind": "header" }),
        Use::Area(area) => json!({ "new": new, "kind": "area", "area": area }),
        Use::Unused => json!({ "new": new, "kind": "unused" }),
        Use::Data { old, record } => {
            json!({ "new": new, "kind": "data", "old": old, "record": record })
        }
    }
}

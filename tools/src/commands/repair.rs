// SPDX-License-Identifier: GPL-2.0-only

//! `snap_repair`

use super::{OriginArgs, Tool};
use crate::cow::Cow;
use crate::device::Access;
use crate::error::{Error, Result};
use crate::growable::push;
use crate::interrupt::Interrupt;
use crate::lvm::Volumes;
use crate::output::Output;
use crate::repair::{Dropped, Options, Plan, Repaired};
use crate::report::Report;
use crate::units::chunk_sectors;
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Args)]
pub struct Repair {
    /// The damaged COW device, or a file that holds its content; it is not changed
    #[arg(short, long, value_name = "FILE")]
    input: PathBuf,

    /// The COW device to make: a new file, or a block device
    #[arg(short, long, value_name = "FILE", required_unless_present = "dry_run")]
    output: Option<PathBuf>,

    #[command(flatten)]
    origin: OriginArgs,

    /// The chunk size, where the header is lost
    #[arg(long, value_name = "SIZE", value_parser = chunk_sectors)]
    chunk_size: Option<u32>,

    /// Mark an invalid snapshot valid again
    #[arg(long)]
    trust_invalid: bool,

    /// Look for records after the end of the list too
    #[arg(long)]
    past_end: bool,

    /// Only say what would be dropped
    #[arg(long)]
    dry_run: bool,

    /// List every record that is dropped, not only the first 100
    #[arg(short, long, conflicts_with = "quiet")]
    verbose: bool,

    /// Overwrite what the output holds
    #[arg(long)]
    force: bool,

    /// Write the result as a JSON object to standard output
    #[arg(long)]
    json: bool,

    /// Suppress output messages, return only exit code
    #[arg(short, long)]
    quiet: bool,
}

impl Tool for Repair {
    const NAME: &'static str = "snap_repair";
    const ABOUT: &'static str = "Make a sound COW device from a damaged one";
    const LONG_ABOUT: &'static str = "\
Reads the records of a damaged COW device and writes those that can be trusted, with their chunks, \
to another device or file, which the kernel loads. It is never done in place. Each record dropped \
is listed on standard output, with the reason; of many the first 100, and how many there are of \
each kind. Reading a dropped record's chunk from the new \
snapshot gives what the origin holds now.

A record is dropped if one of its chunks lies beyond its device's end or its new chunk is a \
metadata chunk (give --origin to have old chunks checked); if its new chunk is also another \
record's, unless it alone fits the ascending order in which chunks are handed out; if its old chunk \
is also an earlier record's, which is the copy that was made first; if it or its chunk cannot be \
read.

The first empty record ends the list. Records after it are usually left from a merge and must not \
come back to life. Where damage zeroed a part of an area, --past-end looks at them all the same.

A snapshot is marked invalid when the COW device was full or an I/O failed. From then on the \
origin was written without keeping the old chunks: every chunk of the origin that was first written \
after that moment reads as new data in the snapshot, and nothing tells which ones these are. With \
--trust-invalid the new COW device is marked valid all the same; mount such a snapshot read-only, \
check what it holds, and never merge it unseen. A header that was lost counts as invalid, too.";
    const EXTRA: &'static str = "\
EXAMPLES
  snap_repair --dry-run -i damaged.img
  snap_repair -i damaged.img --origin /dev/vg/origin -o repaired.img
  snap_repair -i damaged.img --chunk-size 8 --trust-invalid -o repaired.img";

    fn quiet(&self) -> bool {
        self.quiet
    }

    fn run(self, report: &Report, volumes: &Volumes) -> Result<bool> {
        let interrupt = Interrupt::watch()?;
        let named = volumes.cow(&self.input)?;
        let origin_args = self.origin.known(&named, volumes)?;
        let origin = origin_args.origin()?;
        let cow = Cow::open(&named.cow, Access::Read, origin)?.watching(&interrupt);
        let options = Options {
            chunk_sectors: self.chunk_size,
            trust_invalid: self.trust_invalid,
            past_end: self.past_end,
        };
        let plan = Plan::new(&cow, origin, &options, &interrupt)?;
        let limit = if self.verbose { u64::MAX } else { TOLD };
        let mut listing = Listing::new(limit, self.json);
        plan.tell_dropped(&cow, &interrupt, |dropped| listing.tell(dropped, report))?;
        let Some(path) = self.output.filter(|_| !self.dry_run) else {
            let repaired = Repaired {
                kept: plan.kept(),
                dropped: plan.dropped(),
                valid: plan.valid(),
            };
            listing.finish(true, repaired, report)?;
            return Ok(true);
        };
        let path = volumes.output(&path)?;
        let output = origin_args.keep_from(Output::new(&path, self.force));
        let output = output
            .apart_from(cow.device())
            .device(cow.device().bytes())?;
        let repaired = plan.write(&cow, output, report, &interrupt, |dropped| {
            listing.tell(dropped, report);
        });
        let repaired = match repaired {
            Ok(repaired) => repaired,
            Err(error) => {
                listing.tell_untold(report);
                return Err(error);
            }
        };
        listing.finish(false, repaired, report)?;
        if !repaired.valid {
            report.warn("the snapshot is still marked invalid; see --trust-invalid");
        } else if self.trust_invalid {
            report.warn(
                "the snapshot is marked valid; what of the origin was first written after it \
                 became invalid reads as new data",
            );
        }
        Ok(true)
    }
}

/// How many records are listed unless all are.
const TOLD: u64 = 100;

/// The records that are dropped: listed as text while they are found, or kept for `--json`.
struct Listing {
    limit: u64,
    told: u64,
    /// How many were not listed, by kind.
    untold: BTreeMap<&'static str, u64>,
    /// `None` where they are listed as text.
    kept: Option<Vec<DroppedJson>>,
    /// Whether memory did not suffice to keep them.
    lost: bool,
}

/// A record that is not kept, or several that cannot be read.
#[derive(Serialize)]
struct DroppedJson {
    kind: &'static str,
    message: String,
    record: u64,
    records: u64,
    old: Option<u64>,
    new: Option<u64>,
}

/// The object that `--json` writes.
#[derive(Serialize)]
struct Json<'a> {
    dry_run: bool,
    #[serde(flatten)]
    repaired: Repaired,
    list: &'a [DroppedJson],
    not_listed: &'a BTreeMap<&'static str, u64>,
}

impl Listing {
    fn new(limit: u64, json: bool) -> Self {
        Self {
            limit,
            told: 0,
            untold: BTreeMap::new(),
            kept: json.then(Vec::new),
            lost: false,
        }
    }

    fn tell(&mut self, dropped: &Dropped, report: &Report) {
        if self.told >= self.limit {
            *self.untold.entry(dropped.reason.name()).or_default() += dropped.records();
            return;
        }
        self.told += 1;
        if let Some(kept) = &mut self.kept {
            self.lost |= push(kept, dropped.into()).is_err();
            return;
        }
        match dropped.exception {
            Some(e) => report.line(format_args!(
                "dropped {} {}: {}",
                e.old, e.new, dropped.reason
            )),
            None => report.line(format_args!("dropped: {}", dropped.reason)),
        }
    }

    /// Says how many were not listed.
    fn tell_untold(&self, report: &Report) {
        if self.kept.is_some() {
            return;
        }
        for (kind, count) in &self.untold {
            report.line(format_args!(
                "dropped {count} more: {kind} (--verbose lists them)"
            ));
        }
    }

    fn finish(&self, dry_run: bool, repaired: Repaired, report: &Report) -> Result<()> {
        self.tell_untold(report);
        match &self.kept {
            Some(_) if self.lost => return Err(Error::NoMemory),
            Some(list) => report.json(&Json {
                dry_run,
                repaired,
                list,
                not_listed: &self.untold,
            }),
            None if dry_run => {
                report.info(format_args!("{} records would be kept", repaired.kept));
            }
            None => report.info(format_args!(
                "{} records kept, {} dropped",
                repaired.kept, repaired.dropped
            )),
        }
        Ok(())
    }
}

impl From<&Dropped> for DroppedJson {
    fn from(dropped: &Dropped) -> Self {
        Self {
            kind: dropped.reason.name(),
            message: dropped.reason.to_string(),
            record: dropped.record,
            records: dropped.records(),
            old: dropped.exception.map(|e| e.old),
            new: dropped.exception.map(|e| e.new),
        }
    }
}

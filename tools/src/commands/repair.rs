// SPDX-License-Identifier: GPL-2.0-only

//! `snap_repair`

use super::{OriginArgs, Tool};
use crate::cow::Cow;
use crate::device::Access;
use crate::error::Result;
use crate::interrupt::Interrupt;
use crate::lvm::Volumes;
use crate::output::Output;
use crate::repair::{Dropped, Options, Plan};
use crate::report::Report;
use clap::Args;
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

    /// The chunk size in sectors of 512 bytes, where the header is lost
    #[arg(long, value_name = "SECTORS")]
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
is also a later record's, which is the one that Linux 7.3's own store reads; if it or its chunk cannot be \
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
        let mut listing = Listing {
            told: 0,
            all: self.verbose,
            untold: BTreeMap::new(),
        };
        plan.tell_dropped(&cow, &interrupt, |dropped| listing.tell(dropped, report))?;
        let Some(path) = self.output.filter(|_| !self.dry_run) else {
            listing.finish(report);
            report.info(format_args!("{} records would be kept", plan.kept()));
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
        listing.finish(report);
        let repaired = repaired?;
        report.info(format_args!(
            "{} records kept, {} dropped",
            repaired.kept, repaired.dropped
        ));
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

/// The records that are dropped, as far as they are listed.
struct Listing {
    told: u64,
    all: bool,
    /// How many were not listed, by kind.
    untold: BTreeMap<&'static str, u64>,
}

impl Listing {
    /// How many are listed unless all are.
    const TOLD: u64 = 100;

    fn tell(&mut self, dropped: &Dropped, report: &Report) {
        if !self.all && self.told == Self::TOLD {
            *self.untold.entry(dropped.reason.name()).or_default() += dropped.records();
            return;
        }
        self.told += 1;
        match dropped.exception {
            Some(e) => report.line(format_args!(
                "dropped {} {}: {}",
                e.old, e.new, dropped.reason
            )),
            None => report.line(format_args!("dropped: {}", dropped.reason)),
        }
    }

    fn finish(&self, report: &Report) {
        for (kind, count) in &self.untold {
            report.line(format_args!(
                "dropped {count} more: {kind} (--verbose lists them)"
            ));
        }
    }
}

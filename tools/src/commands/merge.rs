// SPDX-License-Identifier: GPL-2.0-only

//! `snap_merge`

use super::{refuse_own_cow, Tool};
use crate::cow::{Cow, Origin};
use crate::device::{Access, Device};
use crate::error::{Error, Result};
use crate::format::SECTOR_BYTES;
use crate::interrupt::Interrupt;
use crate::lvm::Volumes;
use crate::merge::{merge, Merged, Options};
use crate::report::Report;
use crate::units::sectors;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;

#[derive(Args)]
pub struct Merge {
    /// The COW device, a file that holds its content, or the VG/LV of a snapshot; its list is empty
    /// afterwards
    #[arg(short, long, value_name = "FILE")]
    input: PathBuf,

    /// The origin, which becomes what the snapshot is; known where the COW device is given by LVM's
    /// name, and needed otherwise
    #[arg(long, value_name = "DEV")]
    origin: Option<PathBuf>,

    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,

    /// Merge a snapshot that is marked invalid
    #[arg(long)]
    trust_invalid: bool,

    /// How much is copied before it is made durable
    #[arg(long, value_name = "SIZE", default_value = "64m", value_parser = sectors)]
    batch: u64,

    /// Write the result as a JSON object to standard output
    #[arg(long)]
    json: bool,

    /// Suppress output messages, return only exit code
    #[arg(short, long)]
    quiet: bool,
}

/// The object that `--json` writes.
#[derive(Serialize)]
struct Json {
    dry_run: bool,
    #[serde(flatten)]
    merged: Merged,
}

impl Tool for Merge {
    const NAME: &'static str = "snap_merge";
    const ABOUT: &'static str = "Merge a snapshot back into its origin";
    const LONG_ABOUT: &'static str = "\
Copies every chunk that the COW device holds to its place in the origin and clears its record, as \
lvconvert --merge has the kernel do, but offline. The devices must not be in use. The origin's own \
content of these chunks is lost.

A record is cleared only when its chunk is durable in the origin. Interrupted at any point, by \
whatever means, origin and COW device are still the same snapshot; run the same command again to \
complete the merge. The list is checked before anything is written: a damaged one, or one that \
names an old chunk twice, is refused.";
    const EXTRA: &'static str = "\
EXAMPLES
  snap_merge --dry-run -i /dev/vg/cow --origin /dev/vg/origin
  snap_merge -i cow.img --origin origin.img";

    fn quiet(&self) -> bool {
        self.quiet
    }

    fn run(self, report: &Report, volumes: &Volumes) -> Result<bool> {
        let access = if self.dry_run {
            Access::Read
        } else {
            Access::Write
        };
        let interrupt = Interrupt::watch()?;
        let named = volumes.cow(&self.input)?;
        let Some(origin) = volumes.origin(&named, self.origin.as_deref())? else {
            return Err(Error::Refused(
                "give --origin, which is to be merged into".into(),
            ));
        };
        refuse_own_cow(&origin, &named.cow)?;
        let origin = Device::open(&origin, access)?;
        let cow = Cow::open(&named.cow, access, Origin::of(&origin)?)?.watching(&interrupt);
        report.tail(&origin);
        let options = Options {
            trust_invalid: self.trust_invalid,
            dry_run: self.dry_run,
            batch_bytes: self.batch.saturating_mul(SECTOR_BYTES.into()),
        };
        let merged = merge(&cow, &origin, &options, report, &interrupt)?;
        let did = if self.dry_run {
            "would be merged"
        } else {
            "merged"
        };
        if self.json {
            let dry_run = self.dry_run;
            report.json(&Json { dry_run, merged });
        } else {
            report.info(format_args!(
                "{} records, {} bytes {did} in {} batches",
                merged.records, merged.bytes, merged.batches
            ));
        }
        Ok(true)
    }
}

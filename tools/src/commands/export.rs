// SPDX-License-Identifier: GPL-2.0-only

//! `snap_export`

use super::{refuse_own_cow, Tool};
use crate::cow::{Cow, Origin};
use crate::device::{Access, Device};
use crate::error::{Error, Result};
use crate::export::{export, Format, Options};
use crate::interrupt::Interrupt;
use crate::lvm::Volumes;
use crate::output::is_standard;
use crate::report::Report;
use crate::snapshot::Snapshot;
use crate::units::sectors;
use clap::Args;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

#[derive(Args)]
pub struct Export {
    /// The COW device, a file that holds its content, or the VG/LV of a snapshot
    #[arg(short, long, value_name = "FILE")]
    input: PathBuf,

    /// The origin; known where the COW device is given by LVM's name, and needed otherwise
    #[arg(long, value_name = "DEV")]
    origin: Option<PathBuf>,

    /// The image to write: a new file, a block device or a pipe; - for standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// What the image is to be
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    /// Tell the SHA-256 of the content
    #[arg(long)]
    sha256: bool,

    /// Read the image again when it is written, and compare it with the origin and the COW device
    #[arg(long)]
    verify: bool,

    /// Only what the COW device holds, each chunk in its place; the rest is zero
    #[arg(long, conflicts_with = "origin")]
    cow_only: bool,

    /// With --cow-only, the size of the image
    #[arg(long, value_name = "SIZE", requires = "cow_only", value_parser = sectors)]
    origin_size: Option<u64>,

    /// Export a snapshot that is marked invalid
    #[arg(long)]
    trust_invalid: bool,

    /// Overwrite what the output holds
    #[arg(long)]
    force: bool,

    /// Begin from the start even if an earlier export was interrupted
    #[arg(long)]
    restart: bool,

    /// Where to note how far the export came [default for a file: OUTPUT.partial.state]
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,

    /// How often what was written is made durable and noted, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    checkpoint: u64,

    /// Write the result as a JSON object to standard output
    #[arg(long)]
    json: bool,

    /// Suppress output messages, return only exit code
    #[arg(short, long)]
    quiet: bool,
}

impl Tool for Export {
    const NAME: &'static str = "snap_export";
    const ABOUT: &'static str = "Write a snapshot's content to an image";
    const LONG_ABOUT: &'static str = "\
Writes what reading the snapshot would give, from the origin and the COW device, without the \
kernel. Neither is changed. Where the image is zero an image file gets holes.

To a pipe or standard output the image goes from its first byte to its last, zeros and all; \
nothing else is written there, and a terminal is refused. With --verify the image is read again \
when it is durable, past what the page cache has of it where that can be, and compared with origin \
and COW device.

An image file is called OUTPUT.partial until it is complete. Interrupted, by whatever means, the \
same command goes on where it was: OUTPUT.partial.state says up to where the image is durable. An \
export to a block device can go on only if --state names such a file. With files as inputs, the \
state is refused when one of them was changed since. An export to a pipe cannot go on, nor can one to a \
qcow2 image: that has its name when it is complete, and disappears otherwise. Killed by SIGKILL, it leaves a file \
.OUTPUT.XXXXXX beside it, which nobody needs.

What somebody writes to while it is read is no snapshot any more: snap_export fails then, and the image is \
removed, or nobody can go on with it. Writes are told by the time of a file's last change, and by what the kernel \
counts of a block device's; what a program writes by mmap to a file on tmpfs is not told. A file that the image \
replaces is locked until then, as other tools lock it.";
    const EXTRA: &'static str = "\
EXAMPLES
  snap_export -i /dev/vg/cow --origin /dev/vg/origin -o snapshot.img
  snap_export -i vg/snap -o snapshot.img
  snap_export -i vg/snap -o - | zstd > snapshot.img.zst
  snap_export -i vg/snap -o - | ssh HOST 'dd of=snapshot.img bs=1M'
  snap_export -i vg/snap --verify --sha256 -o snapshot.img
  snap_export -i vg/snap --format qcow2 -o snapshot.qcow2
  snap_export -i cow.img --cow-only -o changed.img

SHA-256
  What --sha256 tells is that of the content, byte for byte as reading the snapshot gives it: what \
sha256sum tells of an image file. It is written as a line \"sha256 DIGEST\" to standard \
output, or to standard error where the image goes to standard output.";

    fn quiet(&self) -> bool {
        self.quiet
    }

    fn run(self, report: &Report, volumes: &Volumes) -> Result<bool> {
        let interrupt = Interrupt::watch()?;
        let to_stdout = is_standard(&self.output);
        if to_stdout && self.json {
            return Err(Error::Refused(
                "--json writes to standard output, and so does -o".into(),
            ));
        }
        let named = volumes.cow(&self.input)?;
        if named.origin.is_none() && self.origin.is_none() && !self.cow_only {
            return Err(Error::Refused(
                "give --origin, or --cow-only for what the COW device holds".into(),
            ));
        }
        let origin = volumes.origin(&named, self.origin.as_deref())?;
        let origin = origin.filter(|_| !self.cow_only);
        if let Some(origin) = &origin {
            refuse_own_cow(origin, &named.cow)?;
        }
        let origin = origin.map(|path| Device::open(&path, Access::Read));
        let origin = origin.transpose()?.map(Arc::new);
        let size = match origin.as_deref() {
            Some(device) => Origin::of(device)?,
            None => Origin::of_size(self.origin_size)?,
        };
        if let Some(origin) = &origin {
            report.tail(origin);
        }
        let cow = Cow::open(&named.cow, Access::Read, size)?.watching(&interrupt);
        let snapshot = Snapshot::new(cow, origin, self.origin_size, self.trust_invalid)?;
        let options = Options {
            format: self.format,
            output: volumes.output(&self.output)?,
            sha256: self.sha256,
            verify: self.verify,
            force: self.force,
            restart: self.restart,
            state: self.state,
            checkpoint: Duration::from_secs(self.checkpoint),
        };
        let exported = export(&snapshot, &options, report, &interrupt)?;
        if self.json {
            report.json(&exported);
            return Ok(true);
        }
        match &exported.sha256 {
            Some(sha256) if to_stdout => report.info(format_args!("sha256 {sha256}")),
            Some(sha256) => report.line(format_args!("sha256 {sha256}")),
            None => {}
        }
        if exported.verified {
            report.info("the image is what was read");
        }
        report.info(format_args!(
            "{} bytes exported, {} of them written",
            exported.bytes, exported.written
        ));
        Ok(true)
    }
}

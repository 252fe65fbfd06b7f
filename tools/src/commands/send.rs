// SPDX-License-Identifier: GPL-2.0-only

//! `snap_send`

use super::siblings::Siblings;
use super::Tool;
use crate::delta::Other;
use crate::error::{Error, Result};
use crate::format::SECTOR_BYTES;
use crate::interrupt::Interrupt;
use crate::lvm::Volumes;
use crate::output::{is_standard, Output};
use crate::report::Report;
use crate::send::{send, Source};
use crate::snapshot::Snapshot;
use crate::units::Units;
use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
pub struct Send {
    /// The COW device of the snapshot to send, or its VG/LV; left out, what the origin is now is sent
    #[arg(short, long, value_name = "FILE", required_unless_present = "base")]
    input: Option<PathBuf>,

    /// The COW device of the snapshot of the same origin that the receiver has, or its VG/LV; left out,
    /// all is sent
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,

    /// The origin; known where the COW device is given by LVM's name, and needed otherwise
    #[arg(long, value_name = "DEV")]
    origin: Option<PathBuf>,

    /// Where to write the stream: a file or a pipe; - for standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,

    /// Overwrite what the output holds
    #[arg(long)]
    force: bool,

    /// Read only what may differ. Then nobody notices if what the receiver has is not the base where
    /// it stays as it is: an increment left out, a write to the copy, an image restored by hand
    #[arg(long, requires = "base")]
    trust_base: bool,

    /// Send snapshots that are marked invalid
    #[arg(long)]
    trust_invalid: bool,

    /// The unit of what is told: h, b, s, k, m, g, t, p, e as LVM has them; JSON is in bytes
    #[arg(long, value_name = "UNIT", default_value = "h", value_parser = Units::parse)]
    units: Units,

    /// Write the result as a JSON object to standard output
    #[arg(long)]
    json: bool,

    /// Suppress output messages, return only exit code
    #[arg(short, long)]
    quiet: bool,
}

impl Tool for Send {
    const NAME: &'static str = "snap_send";
    const ABOUT: &'static str = "Send a snapshot, or what differs between two, as a stream";
    const LONG_ABOUT: &'static str = "\
Writes a stream of which snap_receive makes the snapshot: of a copy of another snapshot of the same \
origin, the base, if that is given, or else of nothing. With a base only what differs is sent. \
Without --input it is the origin, as it is now, that is sent, and the base that is given is what it \
was.

The stream is made from the origin and the COW devices, without the kernel; none of them is changed. \
It has a digest for each of its parts, for what the base holds where that is replaced, and for all of \
base and snapshot, so that the receiver notices what was damaged, what is missing, and what is not \
the base, before it changes anything; and in the end that it has the snapshot. For that both read all \
that there is. With --trust-base only what one of both snapshots keeps is read and compared: \
that the rest of the receiver's copy is the base's is taken for granted.

What somebody writes to while it is read is no snapshot any more: snap_send fails then, and the stream has no \
end, by which snap_receive knows. Writes are told by the time of a file's last change, and by what the kernel \
counts of a block device's; what a program writes by mmap to a file on tmpfs is not told.

The same devices give the same stream, so that a receiver that was cut short can go on with it.";
    const EXTRA: &'static str = "\
EXAMPLES
  snap_send -i vg/monday | ssh HOST snap_receive -o image
  snap_send -i vg/tuesday --base vg/monday | ssh HOST snap_receive -o image
  snap_send --base vg/tuesday | ssh HOST snap_receive -o image
  snap_send -i cow2 --base cow1 --origin origin.img -o tuesday.stream

SHA-256
  What is told of the snapshot, unless --trust-base is given, is what sha256sum tells of its image.";

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
        let cows = [self.base.as_deref(), self.input.as_deref()];
        let snapshots = Siblings {
            cows: cows.into_iter().flatten().collect(),
            origin: self.origin.as_deref(),
            origin_size: None,
            needs_origin: Some("give --origin"),
            trust_invalid: self.trust_invalid,
        }
        .open(volumes, &interrupt)?;
        let source = match &snapshots[..] {
            [base, now] => Source::Since {
                base,
                now: Other::Snapshot(now),
            },
            [base] if self.base.is_some() => Source::Since {
                base,
                now: Other::Origin,
            },
            others => Source::Whole(&others[0]),
        };
        if let Some(origin) = snapshots[0].origin() {
            report.tail(origin);
        }
        let output = Output::new(&volumes.output(&self.output)?, self.force);
        let inputs = snapshots.iter().flat_map(Snapshot::inputs);
        let output = inputs.fold(output, Output::apart_from);
        let output = output.watching(&interrupt);
        let sent = match send(&source, &output, self.trust_base, report, &interrupt) {
            // Writing ends when that is asked for.
            Err(Error::Io { .. }) if interrupt.asked() => {
                return Err(Error::Interrupted("the stream is not complete".into()));
            }
            sent => sent?,
        };
        if self.json {
            report.json(&sent);
            return Ok(true);
        }
        if let Some(sha256) = &sent.sha256 {
            report.info(format_args!("sha256 {sha256}"));
        }
        let replaced = self.units.show(sent.replaced / u64::from(SECTOR_BYTES));
        match self.base {
            Some(_) => report.info(format_args!("{replaced} sent, in {} ranges", sent.ranges)),
            None => report.info(format_args!("{replaced} sent")),
        }
        Ok(true)
    }
}

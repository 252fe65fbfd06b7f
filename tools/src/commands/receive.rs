// SPDX-License-Identifier: GPL-2.0-only

//! `snap_receive`

use super::Tool;
use crate::error::{Error, Result};
use crate::format::SECTOR_BYTES;
use crate::input::Input;
use crate::interrupt::Interrupt;
use crate::lvm::Volumes;
use crate::output::Output;
use crate::receive::{receive, Options, Received};
use crate::report::Report;
use crate::transfer::Reader;
use crate::units::{sectors, Units};
use clap::Args;
use serde::Serialize;
use std::io::BufReader;
use std::path::{Path, PathBuf};

#[derive(Args)]
pub struct Receive {
    /// The stream to read; - for standard input
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    input: PathBuf,

    /// The file or block device, or its VG/LV, that becomes the snapshot; it holds the base, if the
    /// stream needs one
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// Overwrite what the output holds with a stream that needs no base
    #[arg(long)]
    force: bool,

    /// Where to note how far the base is replaced [default for a file: OUTPUT.state]
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,

    /// How much of a base is replaced before it is made durable and noted
    #[arg(long, value_name = "SIZE", default_value = "64m", value_parser = sectors)]
    batch: u64,

    /// Only check the stream, and whether the output is its base or could be written
    #[arg(long)]
    dry_run: bool,

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

/// The object that `--json` writes.
#[derive(Serialize)]
struct Json {
    dry_run: bool,
    #[serde(flatten)]
    received: Received,
}

impl Tool for Receive {
    const NAME: &'static str = "snap_receive";
    const ABOUT: &'static str = "Make an image the snapshot that a stream brings";
    const LONG_ABOUT: &'static str = "\
Reads what snap_send wrote. A stream that needs no base becomes a new file, which gets its name when \
it is complete, or is written over a device. One that needs a base makes the snapshot of it, in \
place: OUTPUT is a copy of the base, in a file or on a device.

Before anything is changed, every range that is going to be replaced is compared with what the base \
holds there, and so is all of it, by its digest; an output of another size or with anything else is \
refused. Afterwards all of it is compared with the digest of the snapshot. (With what \
snap_send --trust-base sent, only what is replaced is compared.) What the stream brings may be there \
already: then nothing is done.

While a base is replaced the output is neither base nor snapshot, and a state file says so. \
Interrupted, by whatever means, by a stream that ends early or is damaged, too, it becomes \
the snapshot when the same stream is received once more; the part that was done is compared and not \
written again. Nothing else may be received there before, except a whole snapshot with --force, which \
needs nothing of what is there. With a device as the base, --state names that file.";
    const EXTRA: &'static str = "\
EXAMPLES
  snap_send -i vg/monday | ssh HOST snap_receive -o image
  snap_send -i vg/tuesday --base vg/monday | ssh HOST snap_receive -o image
  snap_receive --dry-run -i tuesday.stream -o image
  snap_receive -i tuesday.stream -o vg/copy --state /var/tmp/copy.state";
    const NAMES: &'static str = "\
LVM NAMES
  The output may be given as VG/LV. It must be active and in use by nobody, and no snapshot.";

    fn quiet(&self) -> bool {
        self.quiet
    }

    fn run(self, report: &Report, volumes: &Volumes) -> Result<bool> {
        let interrupt = Interrupt::watch()?;
        let input = match self.input == Path::new("-") {
            true => Path::new(Input::STANDARD),
            false => &self.input,
        };
        let output = Output::new(&volumes.output(&self.output)?, self.force);
        let options = Options {
            output: output.apart_from_path(input),
            state: self.state,
            window_bytes: self.batch.saturating_mul(SECTOR_BYTES.into()),
            dry_run: self.dry_run,
        };
        // What cannot be an output is refused before somebody waits for a stream.
        options.output.kind()?;
        let stream = Input::open(&self.input, &interrupt)?;
        let received = Reader::new(BufReader::with_capacity(BUFFER_BYTES, stream))
            .and_then(|stream| receive(stream, &options, report, &interrupt));
        let received = match received {
            // Reading ends when that is asked for.
            Err(Error::Stream { .. }) if interrupt.asked() => {
                let what = "receive the same stream once more";
                return Err(Error::Interrupted(what.into()));
            }
            received => received?,
        };
        let dry_run = self.dry_run;
        if self.json {
            report.json(&Json { dry_run, received });
            return Ok(true);
        }
        let show = |bytes| self.units.show(bytes / u64::from(SECTOR_BYTES));
        let (replaced, written) = (show(received.replaced), show(received.written));
        if received.resumed {
            report.info("gone on with what an earlier receive left");
        }
        if received.already {
            report.info("it is the snapshot already");
        } else if dry_run {
            report.info(format_args!("{replaced} would be replaced"));
        } else {
            report.info(format_args!("{replaced} received, {written} written"));
        }
        if received.verified {
            report.info("all of it is what was sent");
        } else if !dry_run {
            report.info("only what is replaced was compared: it was sent with --trust-base");
        }
        Ok(true)
    }
}

/// Bytes read at once.
const BUFFER_BYTES: usize = 256 * 1024;

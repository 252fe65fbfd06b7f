// SPDX-License-Identifier: GPL-2.0-only

//! `snap_restore`

use super::{OriginArgs, Tool};
use crate::dump::read;
use crate::error::{Error, Result};
use crate::lvm::Volumes;
use crate::output::{Kind, Output};
use crate::report::Report;
use crate::restore::Restorer;
use clap::Args;
use serde_json::json;
use std::fs::File;
use std::io::{self, stdin, BufRead, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

#[derive(Args)]
pub struct Restore {
    /// The dump to read; - for standard input
    #[arg(short, long, value_name = "FILE")]
    input: PathBuf,

    /// The COW device to write, or a file, made if there is none
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    #[command(flatten)]
    origin: OriginArgs,

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

impl Tool for Restore {
    const NAME: &'static str = "snap_restore";
    const ABOUT: &'static str = "Write the metadata of a COW device from a dump";
    const LONG_ABOUT: &'static str = "\
Reads what snap_dump wrote, in any of its formats, and writes header and areas to a COW device, \
byte for byte what the kernel would read. Data chunks are not touched: a dump holds none.

An output that holds something is refused without --force. From the first write until the last \
record is durable the header says that the snapshot is invalid, so that one cut short is never \
taken for a complete one. Where there is an output already, the whole dump is read and checked \
before anything is written; a copy of it is kept in TMPDIR meanwhile.";
    const EXTRA: &'static str = "\
EXAMPLES
  snap_dump cow.img | snap_restore -i - -o new.img
  snap_restore --force -i snap.txt -o /dev/vg/cow";

    fn quiet(&self) -> bool {
        self.quiet
    }

    fn run(self, report: &Report, volumes: &Volumes) -> Result<bool> {
        let origin_args = OriginArgs {
            origin: self
                .origin
                .origin
                .map(|path| volumes.device(&path))
                .transpose()?,
            ..self.origin
        };
        let output = volumes.output(&self.output)?;
        let target = origin_args.keep_from(Output::new(&output, self.force));
        let target = target.apart_from_path(&self.input);
        let origin = origin_args.origin()?;
        let mut dump = open(&self.input)?;
        if !matches!(target.kind()?, Kind::Missing) {
            // Nothing shall be lost for the sake of a dump that is not whole.
            dump = Box::new(verified(dump, Restorer::new(target.clone(), origin))?);
        }
        let mut restorer = Restorer::new(target, origin);
        read(dump, &mut restorer)?;
        let records = restorer
            .records()
            .ok_or_else(|| Error::parse("end", "there is none"))?;
        if self.json {
            report.json(&json!({ "records": records }));
        } else {
            report.info(format_args!("{records} records restored"));
        }
        Ok(true)
    }
}

/// Reads `dump` to its end, with `restorer` checking what it says; returns a copy of it.
fn verified(dump: Box<dyn BufRead>, restorer: Restorer) -> Result<BufReader<File>> {
    let failed = |source| Error::file(&std::env::temp_dir(), "keep the dump in", source);
    let copy = tempfile::tempfile().map_err(failed)?;
    let mut tee = Tee {
        from: dump,
        to: BufWriter::new(copy),
    };
    read(
        BufReader::with_capacity(BUFFER_BYTES, &mut tee),
        &mut restorer.dry(),
    )?;
    let mut copy = tee.to.into_inner().map_err(|e| failed(e.into_error()))?;
    copy.rewind().map_err(failed)?;
    Ok(BufReader::with_capacity(BUFFER_BYTES, copy))
}

/// Bytes read at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// Reads, and writes what was read to a second place.
struct Tee<R, W> {
    from: R,
    to: W,
}

impl<R: Read, W: Write> Read for Tee<R, W> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let bytes = self.from.read(buf)?;
        self.to.write_all(&buf[..bytes])?;
        Ok(bytes)
    }
}

fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    if path == Path::new("-") {
        return Ok(Box::new(stdin().lock()));
    }
    let file = File::open(path).map_err(|e| Error::file(path, "open", e))?;
    Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, file)))
}

// SPDX-License-Identifier: GPL-2.0-only

//! An export from the first byte to the last, which cannot be gone on with: to a pipe, or to an
//! image that is not the content byte for byte.

use super::in_order::InOrder;
use super::plan::Plan;
use super::qcow2::{Reader, Writer};
use super::sink::Sink;
use super::{copy_in_order, Exported, Format, Hash, Options, NO_SNAPSHOT};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::new_file::NewFile;
use crate::output::{Kind, Output};
use crate::report::Report;
use crate::snapshot::Snapshot;

/// Writes what `snapshot` holds to `output`, which is of that `kind`.
pub fn export(
    output: &Output,
    kind: Kind,
    snapshot: &Snapshot,
    options: &Options,
    report: &Report,
    interrupt: &Interrupt,
) -> Result<Exported> {
    let refused = |what: &str| {
        Err(Error::Refused(format!(
            "{}: {what}",
            output.path().display()
        )))
    };
    let is_file = matches!(kind, Kind::Missing | Kind::File);
    if options.format == Format::Qcow2 && !is_file {
        return refused("a qcow2 image must be a file; for a device or a pipe it must be raw");
    }
    if options.verify && !is_file {
        return refused("what is written there cannot be read again to verify it");
    }
    if options.state.is_some() || options.restart {
        return refused(
            "an export to there cannot be gone on with; leave out --state and --restart",
        );
    }
    let whole = Whole {
        output,
        snapshot,
        report,
        interrupt,
    };
    let (written, sha256) = match is_file {
        true => whole.qcow2(options)?,
        false => whole.stream(options)?,
    };
    Ok(Exported {
        bytes: snapshot.bytes(),
        resumed_at: 0,
        written,
        sha256,
        verified: options.verify,
    })
}

struct Whole<'a> {
    output: &'a Output,
    snapshot: &'a Snapshot,
    report: &'a Report,
    interrupt: &'a Interrupt,
}

impl Whole<'_> {
    /// To a pipe. Returns how many bytes were written, and the hash if it was asked for.
    fn stream(&self, options: &Options) -> Result<(u64, Option<String>)> {
        let sink = Sink::Stream(Box::new(self.output.binary_stream()?));
        let hash = options.sha256.then(Hash::default);
        let (sink, hash) = self.copy("exporting", sink, hash)?;
        self.snapshot.refuse_written(NO_SNAPSHOT)?;
        Ok((sink.finish()?, hash.map(Hash::hex)))
    }

    /// To a new file that becomes a qcow2 image.
    fn qcow2(&self, options: &Options) -> Result<(u64, Option<String>)> {
        self.output.refuse_file()?;
        let file = NewFile::create(self.output)?;
        let name = self.output.path();
        let bytes = self.snapshot.bytes();
        let sink = Sink::Qcow2(Box::new(Writer::new(file.file(), name, bytes)?));
        let hash = options.sha256.then(Hash::default);
        let (sink, hash) = self.copy("exporting", sink, hash)?;
        let written = sink.finish()?;
        let compared = match options.verify {
            true => self.verify(Reader::new(file.file(), name)?),
            false => Ok(()),
        };
        // What was written meanwhile is no fault of the image.
        self.snapshot.refuse_written(NO_SNAPSHOT)?;
        compared?;
        file.finish()?;
        Ok((written, hash.map(Hash::hex)))
    }

    /// Refuses an image that does not hold the snapshot.
    fn verify(&self, image: Reader) -> Result<()> {
        let bytes = self.snapshot.bytes();
        if image.bytes() != bytes {
            return Err(Error::Refused(format!(
                "{}: it has {} bytes, but the snapshot has {bytes}",
                self.output.path().display(),
                image.bytes()
            )));
        }
        self.copy("verifying", Sink::Compare(Box::new(image)), None)?;
        Ok(())
    }

    /// Gives `sink` and `hash` the content, and returns both.
    fn copy(
        &self,
        what: &'static str,
        sink: Sink,
        hash: Option<Hash>,
    ) -> Result<(Sink, Option<Hash>)> {
        let bytes = self.snapshot.bytes();
        let plan = Plan::new(self.snapshot, 0..bytes, true);
        let in_order = InOrder::new(0, (sink, hash));
        let progress = self.report.progress(what, bytes);
        copy_in_order(self.snapshot, plan, &in_order, self.interrupt, |task| {
            progress.advance(task.bytes.end - task.from);
        })?;
        let (done, given) = in_order.into_inner();
        if done < bytes {
            return Err(Error::Interrupted(format!(
                "{what} {}, at byte {done} of {bytes}; nobody can go on with it",
                self.output.path().display()
            )));
        }
        Ok(given)
    }
}

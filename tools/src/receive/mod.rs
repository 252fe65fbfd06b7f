// SPDX-License-Identifier: GPL-2.0-only

//! Makes an image what a stream brings.
//!
//! # What is sure
//!
//! A stream that needs a base first says what the base holds in every range that is going to be
//! replaced. All of them are compared before the first is written: if one is different, nothing
//! changes. What lies between them is the same in the base and in the snapshot; that is compared by
//! the digest of the whole base, and afterwards by that of the whole snapshot, unless the sender was
//! told to trust the base and left them out. A receive that goes on has no whole base any more, and
//! compares only the result.
//!
//! # Why it may be cut short at any point
//!
//! What is replaced is replaced in ascending order, a window at a time. Before one is begun, that
//! all before it is durable, and where it is, is noted durably. So after whatever interruption
//! all before the window is the snapshot's and all after it the base's, which is compared anew, and
//! the window is written once more.

mod state;
mod target;

use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::report::Report;
use crate::transfer::{Before, Content, Reader};
use serde::Serialize;
use std::io::Read;
use std::path::PathBuf;
use target::Target;

/// Where to receive to, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// A file or a block device.
    pub output: Output,
    /// Where to note how far it came; for a file that is the base, `NAME.state` by default.
    pub state: Option<PathBuf>,
    /// Bytes of the window in which a base is replaced before that is made durable and noted.
    pub window_bytes: u64,
    /// Only find out whether it would do.
    pub dry_run: bool,
}

/// What was received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Received {
    /// Bytes of the snapshot.
    pub bytes: u64,
    /// Bytes that the stream replaces.
    pub replaced: u64,
    /// Bytes that were written or made zero now.
    pub written: u64,
    /// Whether an earlier receive was gone on with.
    pub resumed: bool,
    /// Whether the output was the snapshot already.
    pub already: bool,
    /// Whether all of it was compared with the digest that is in the stream.
    pub verified: bool,
}

/// Makes the output what `stream` brings.
pub fn receive(
    mut stream: Reader<impl Read>,
    options: &Options,
    report: &Report,
    interrupt: &Interrupt,
) -> Result<Received> {
    let head = stream.head();
    let mut target = Target::open(head, options)?;
    let progress = report.progress("comparing", head.bytes);
    let mut compared = 0;
    let (replaced, base) = loop {
        refuse_interrupted(interrupt, &target)?;
        match stream.before()? {
            Before::Check(check) => {
                target.check(&check)?;
                progress.advance(check.range.end - compared);
                compared = check.range.end;
            }
            Before::Begin { bytes, base } => break (bytes, base),
        }
    };
    drop(progress);
    target.begin(stream.digest(), base, report, interrupt)?;
    let progress = report.progress("receiving", replaced);
    let snapshot = loop {
        refuse_interrupted(interrupt, &target)?;
        let range = match stream.content()? {
            Content::Data { offset, bytes } => target.write(offset, bytes)?,
            Content::Zero(range) => target.zero(range, interrupt)?,
            Content::End { snapshot } => break snapshot,
        };
        progress.advance(range.end - range.start);
    };
    drop(progress);
    let mut received = Received {
        bytes: head.bytes,
        replaced,
        verified: snapshot.is_some() && !options.dry_run,
        ..Received::default()
    };
    target.finish(snapshot, &mut received, report, interrupt)?;
    Ok(received)
}

fn refuse_interrupted(interrupt: &Interrupt, target: &Target) -> Result<()> {
    if interrupt.asked() {
        return Err(Error::Interrupted(target.left().into()));
    }
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0-only

//! Writes a snapshot, or what differs between two, as a stream.
//!
//! Both sides are read where one of them keeps a chunk; where neither does they are the origin, and
//! so the same. What does not differ is not sent.

use crate::buffer::{is_zero, AlignedBuf};
use crate::delta::{delta, Other};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::export::plan::{Plan, What};
use crate::growable::push;
use crate::interrupt::Interrupt;
use crate::output::{Kind, Output};
use crate::report::Report;
use crate::snapshot::Snapshot;
use crate::transfer::{parts, Before, Check, Content, Head, Writer, PART_BYTES};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::ops::Range;

/// Zeros in blocks of this many bytes are sent as such.
const ZERO_BYTES: usize = 64 << 10;

/// What to send.
pub enum Source<'a> {
    /// All of a snapshot.
    Whole(&'a Snapshot),
    /// What makes another snapshot, or the origin, of the base.
    Since {
        /// The base, which has an origin.
        base: &'a Snapshot,
        /// What becomes of it.
        now: Other<'a>,
    },
}

/// What was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sent {
    /// Bytes of the snapshot.
    pub bytes: u64,
    /// Ranges that differ from the base; 0 where there is no base.
    pub ranges: u64,
    /// Their bytes, or all.
    pub replaced: u64,
    /// Bytes of the stream.
    pub stream: u64,
    /// The SHA-256 of the snapshot, if it was asked for.
    pub sha256: Option<String>,
}

impl<'a> Source<'a> {
    /// Bytes of the snapshot.
    fn bytes(&self) -> u64 {
        match self {
            Self::Whole(snapshot) | Self::Since { base: snapshot, .. } => snapshot.bytes(),
        }
    }

    fn base(&self) -> Option<&'a Snapshot> {
        match self {
            Self::Whole(_) => None,
            Self::Since { base, .. } => Some(base),
        }
    }

    /// Fills `buf` with what the snapshot holds from byte `offset` on.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        match self {
            Self::Whole(snapshot) => snapshot.read_at(buf, offset),
            Self::Since { base, now } => now.read_at(base, buf, offset),
        }
    }
}

/// Sends `source` to `output`; with `sha256` so that the receiver can check all of base and
/// snapshot, which are read from start to end then.
pub fn send(
    source: &Source<'_>,
    output: &Output,
    sha256: bool,
    report: &Report,
    interrupt: &Interrupt,
) -> Result<Sent> {
    if output.kind()? == Kind::BlockDevice {
        // Where the stream ends there, nothing would tell.
        return Err(Error::Refused(format!(
            "{}: a stream goes to a file, a pipe or standard output, not to a device",
            output.path().display()
        )));
    }
    let (bytes, base) = (source.bytes(), source.base());
    let head = Head {
        bytes,
        has_base: base.is_some(),
    };
    let mut sender = Sender {
        source,
        writer: Writer::new(output.binary_stream()?, head)?,
        buf: AlignedBuf::new(PART_BYTES as usize),
        interrupt,
    };
    let ranges = match source {
        Source::Whole(_) => Vec::new(),
        Source::Since { base, now } => sender.checks(base, now)?,
    };
    let replaced = match source {
        Source::Whole(_) => bytes,
        Source::Since { .. } => ranges.iter().map(|range| range.end - range.start).sum(),
    };
    let base = base.filter(|_| sha256);
    let base = base.map(|base| sender.sha256(|buf, offset| base.read_at(buf, offset)));
    let begin = Before::Begin {
        bytes: replaced,
        base: base.transpose()?,
    };
    sender.writer.before(&begin)?;
    let progress = report.progress("sending", replaced);
    match source {
        Source::Whole(snapshot) => {
            let mut plan = Plan::new(snapshot, 0..bytes, true);
            while let Some(task) = plan.next() {
                let bytes = task.bytes.end - task.bytes.start;
                match task.what {
                    What::Zero => sender.writer.content(&Content::Zero(task.bytes))?,
                    What::Data => sender.content(task.bytes)?,
                }
                progress.advance(bytes);
            }
        }
        Source::Since { .. } => {
            for range in &ranges {
                sender.content(range.clone())?;
                progress.advance(range.end - range.start);
            }
        }
    }
    let read = |buf: &mut [u8], offset| source.read_at(buf, offset);
    let snapshot = sha256.then(|| sender.sha256(read)).transpose()?;
    sender.writer.content(&Content::End { snapshot })?;
    Ok(Sent {
        bytes,
        ranges: ranges.len() as u64,
        replaced,
        stream: sender.writer.finish()?,
        sha256: snapshot.map(|digest| digest.to_string()),
    })
}

struct Sender<'a> {
    source: &'a Source<'a>,
    writer: Writer,
    buf: AlignedBuf,
    interrupt: &'a Interrupt,
}

impl Sender<'_> {
    /// Sends what the ranges that differ hold in the base; returns them.
    fn checks(&mut self, base: &Snapshot, now: &Other<'_>) -> Result<Vec<Range<u64>>> {
        let source = self.source;
        let mut ranges = Vec::new();
        delta(base, now, true, |range| {
            for part in parts(range.clone()) {
                let buf = self.part(&part)?;
                base.read_at(buf, part.start)?;
                let base = Digest::of(buf);
                source.read_at(buf, part.start)?;
                let check = Check {
                    range: part,
                    base,
                    snapshot: Digest::of(buf),
                };
                self.writer.before(&Before::Check(check))?;
            }
            push(&mut ranges, range)
        })?;
        Ok(ranges)
    }

    /// Sends what the snapshot holds in `range`.
    fn content(&mut self, range: Range<u64>) -> Result<()> {
        let source = self.source;
        for part in parts(range) {
            source.read_at(self.part(&part)?, part.start)?;
            let bytes = &self.buf[..(part.end - part.start) as usize];
            let blocks: Vec<(bool, &[u8])> = bytes
                .chunks(ZERO_BYTES)
                .map(|block| (is_zero(block), block))
                .collect();
            let mut offset = part.start;
            for blocks in blocks.chunk_by(|one, two| one.0 == two.0) {
                let length = blocks.iter().map(|(_, block)| block.len()).sum::<usize>();
                let end = offset + length as u64;
                let at = (offset - part.start) as usize;
                self.writer.content(&match blocks[0].0 {
                    true => Content::Zero(offset..end),
                    false => Content::Data {
                        offset,
                        bytes: &bytes[at..at + length],
                    },
                })?;
                offset = end;
            }
        }
        Ok(())
    }

    /// The digest of all that `read` reads.
    fn sha256(&mut self, read: impl Fn(&mut [u8], u64) -> Result<()>) -> Result<Digest> {
        let mut hash = Sha256::new();
        for part in parts(0..self.source.bytes()) {
            let buf = self.part(&part)?;
            read(buf, part.start)?;
            hash.update(buf);
        }
        Ok(hash.finalize().into())
    }

    /// Room for `part`, unless the user asked to stop.
    fn part(&mut self, part: &Range<u64>) -> Result<&mut [u8]> {
        if self.interrupt.asked() {
            return Err(Error::Interrupted("the stream is not complete".into()));
        }
        Ok(&mut self.buf[..(part.end - part.start) as usize])
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! Writes a snapshot, or what differs between two, as a stream.
//!
//! Both sides are read where one of them keeps a chunk; where neither does they are the origin, and
//! so the same. What does not differ is not sent, but it is read, so that the receiver can compare
//! all that it has; unless that is trusted.

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
    /// The SHA-256 of the snapshot, if all of it was read.
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

    /// Refuses what somebody wrote to while it was read.
    fn refuse_written(&self) -> Result<()> {
        const LEFT: &str = "the stream is not complete";
        if let Self::Since {
            now: Other::Snapshot(now),
            ..
        } = self
        {
            now.refuse_written(LEFT)?;
        }
        match self {
            Self::Whole(snapshot) | Self::Since { base: snapshot, .. } => {
                snapshot.refuse_written(LEFT)
            }
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

/// Sends `source` to `output`. With `trust_base` only what differs is read, and the receiver cannot
/// compare more.
pub fn send(
    source: &Source<'_>,
    output: &Output,
    trust_base: bool,
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
    let (ranges, told, digests) = match source {
        Source::Whole(_) => (Vec::new(), None, None),
        Source::Since { base, now } => {
            let (ranges, told) = sender.checks(base, now)?;
            let digests = match trust_base {
                true => None,
                false => Some(sender.digests(base, &ranges, report)?),
            };
            (ranges, Some(told), digests)
        }
    };
    let replaced = match source {
        Source::Whole(_) => bytes,
        Source::Since { .. } => ranges.iter().map(|range| range.end - range.start).sum(),
    };
    let begin = Before::Begin {
        bytes: replaced,
        base: digests.map(|(base, _)| base),
    };
    // From there on the receiver changes what it has.
    source.refuse_written()?;
    sender.writer.before(&begin)?;
    let progress = report.progress("sending", replaced);
    let snapshot: Option<Digest> = match source {
        Source::Whole(snapshot) => {
            let mut hash = Sha256::new();
            let mut plan = Plan::new(snapshot, 0..bytes, true);
            while let Some(task) = plan.next() {
                let bytes = task.bytes.end - task.bytes.start;
                match task.what {
                    What::Zero => sender.zero(task.bytes, &mut hash)?,
                    What::Data => sender.content(task.bytes, |part| hash.update(part))?,
                }
                progress.advance(bytes);
            }
            Some(hash.finalize().into())
        }
        Source::Since { .. } => {
            let mut sent = Sha256::new();
            for range in &ranges {
                sender.content(range.clone(), |part| sent.update(Digest::of(part).0))?;
                progress.advance(range.end - range.start);
            }
            if told != Some(sent.finalize().into()) {
                return Err(Error::Refused(
                    "the snapshot was changed while it was sent; the stream is not complete".into(),
                ));
            }
            digests.map(|(_, snapshot)| snapshot)
        }
    };
    source.refuse_written()?;
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
    /// Sends what the ranges that differ hold in base and snapshot; returns them, and a digest of
    /// what they hold in the snapshot, by the digests of their parts.
    fn checks(&mut self, base: &Snapshot, now: &Other<'_>) -> Result<(Vec<Range<u64>>, Digest)> {
        let source = self.source;
        let mut ranges = Vec::new();
        let mut told = Sha256::new();
        delta(base, now, true, |range| {
            for part in parts(range.clone()) {
                let buf = self.part(&part)?;
                base.read_at(buf, part.start)?;
                let base = Digest::of(buf);
                source.read_at(buf, part.start)?;
                let snapshot = Digest::of(buf);
                told.update(snapshot.0);
                let check = Check {
                    range: part,
                    base,
                    snapshot,
                };
                self.writer.before(&Before::Check(check))?;
            }
            push(&mut ranges, range)
        })?;
        Ok((ranges, told.finalize().into()))
    }

    /// Sends what the snapshot holds in `range`, and tells `also` of it, part by part.
    fn content(&mut self, range: Range<u64>, mut also: impl FnMut(&[u8])) -> Result<()> {
        let source = self.source;
        for part in parts(range) {
            source.read_at(self.part(&part)?, part.start)?;
            let bytes = &self.buf[..(part.end - part.start) as usize];
            also(bytes);
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

    /// Sends that the snapshot holds zeros in `range`.
    fn zero(&mut self, range: Range<u64>, hash: &mut Sha256) -> Result<()> {
        for part in parts(range.clone()) {
            let zeros = self.part(&part)?;
            zeros.fill(0);
            hash.update(zeros);
        }
        self.writer.content(&Content::Zero(range))
    }

    /// The digests of all of the base and all of the snapshot, which differ in `ranges`. Where they
    /// do not, what is read of one is that of both.
    fn digests(
        &mut self,
        base: &Snapshot,
        ranges: &[Range<u64>],
        report: &Report,
    ) -> Result<(Digest, Digest)> {
        let source = self.source;
        let progress = report.progress("reading", source.bytes());
        let mut hashes = [Sha256::new(), Sha256::new()];
        let mut ranges = ranges.iter().peekable();
        for part in parts(0..source.bytes()) {
            let buf = self.part(&part)?;
            base.read_at(buf, part.start)?;
            hashes[0].update(&*buf);
            while ranges.next_if(|range| range.end <= part.start).is_some() {}
            if ranges.peek().is_some_and(|range| range.start < part.end) {
                source.read_at(buf, part.start)?;
            }
            hashes[1].update(&*buf);
            progress.advance(part.end - part.start);
        }
        let [base, snapshot] = hashes.map(|hash| hash.finalize().into());
        Ok((base, snapshot))
    }

    /// Room for `part`, unless the user asked to stop.
    fn part(&mut self, part: &Range<u64>) -> Result<&mut [u8]> {
        if self.interrupt.asked() {
            return Err(Error::Interrupted("the stream is not complete".into()));
        }
        Ok(&mut self.buf[..(part.end - part.start) as usize])
    }
}

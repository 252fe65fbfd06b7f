// SPDX-License-Identifier: GPL-2.0-only

//! Reads a stream.

use super::{
    kind, Before, Check, Content, Head, FRAME_BYTES, HAS_BASE, HEAD_BYTES, MAGIC, PART_BYTES,
    VERSION,
};
use crate::buffer::AlignedBuf;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::format::SECTOR_BYTES;
use sha2::{Digest as _, Sha256};
use std::io::{self, Read};
use std::ops::Range;

/// Bytes of the payload of a check.
const CHECK_BYTES: usize = 2 * Digest::BYTES;

/// A stream that is being read. Whatever it gives was checked against its digests, lies within the
/// snapshot, and is in ascending order.
pub struct Reader<R> {
    from: R,
    hash: Sha256,
    /// Bytes read.
    at: u64,
    head: Head,
    /// Up to where the ranges of the present kind came, and how many bytes they have.
    end: u64,
    sum: u64,
    /// How many bytes are to be replaced.
    total: u64,
    /// Whether the digests of all of base and snapshot are there.
    has_digests: bool,
    payload: AlignedBuf,
}

/// A frame whose digest was right.
struct Frame {
    /// The byte of the stream at which it stands.
    at: u64,
    kind: u32,
    offset: u64,
    length: u64,
    payload_bytes: usize,
}

impl<R: Read> Reader<R> {
    /// Reads the head.
    pub fn new(from: R) -> Result<Self> {
        let mut reader = Self {
            from,
            hash: Sha256::new(),
            at: 0,
            head: Head {
                bytes: 0,
                has_base: false,
            },
            end: 0,
            sum: 0,
            total: 0,
            has_digests: false,
            payload: AlignedBuf::new(PART_BYTES as usize),
        };
        let mut head = [0; HEAD_BYTES];
        let (magic, rest) = head.split_at_mut(MAGIC.len());
        reader.fill(magic)?;
        if magic != MAGIC {
            return Err(fault(0, "it is no stream of snap_send"));
        }
        reader.fill(rest)?;
        let version = u32_at(&head, 8);
        if version != VERSION {
            let what = format!("it is of version {version}, and this knows version {VERSION}");
            return Err(fault(8, what));
        }
        reader.unseal(0)?;
        let (flags, bytes) = (u32_at(&head, 12), u64_at(&head, 16));
        if flags & !HAS_BASE != 0 {
            return Err(fault(
                12,
                format!("it has flags that are not known: {flags:#x}"),
            ));
        }
        if bytes == 0 || bytes % u64::from(SECTOR_BYTES) != 0 || i64::try_from(bytes).is_err() {
            return Err(fault(16, format!("a snapshot cannot have {bytes} bytes")));
        }
        reader.head = Head {
            bytes,
            has_base: flags & HAS_BASE != 0,
        };
        Ok(reader)
    }

    /// What the stream is about.
    pub fn head(&self) -> Head {
        self.head
    }

    /// How many bytes of it were read.
    pub fn bytes_read(&self) -> u64 {
        self.at
    }

    /// The digest of all that was read. Two streams that have the same when the content begins are
    /// about the same ranges of the same base and the same snapshot.
    pub fn digest(&self) -> Digest {
        self.hash.clone().finalize().into()
    }

    /// What is said before anything is replaced; to be called until that is [`Before::Begin`].
    pub fn before(&mut self) -> Result<Before> {
        let frame = self.frame()?;
        match (frame.kind, frame.payload_bytes) {
            (kind::CHECK, CHECK_BYTES) if self.head.has_base && frame.length <= PART_BYTES => {
                Ok(Before::Check(Check {
                    range: self.range(&frame)?,
                    base: self.digest_at(0),
                    snapshot: self.digest_at(Digest::BYTES),
                }))
            }
            (kind::BEGIN, bytes) if frame.offset == 0 && self.begins_with(bytes) => {
                let told = match self.head.has_base {
                    true => self.sum,
                    false => self.head.bytes,
                };
                if frame.length != told {
                    let length = frame.length;
                    let what = format!("{length} bytes are to be replaced, and {told} were told");
                    return Err(fault(frame.at, what));
                }
                (self.end, self.sum, self.total) = (0, 0, told);
                // A whole snapshot always has one.
                self.has_digests = !self.head.has_base || bytes > 0;
                Ok(Before::Begin {
                    bytes: told,
                    base: self.digest_of(&frame),
                })
            }
            _ => Err(frame.unexpected()),
        }
    }

    /// What the snapshot holds; to be called until that is [`Content::End`].
    pub fn content(&mut self) -> Result<Content<'_>> {
        let frame = self.frame()?;
        match (frame.kind, frame.payload_bytes) {
            (kind::DATA, bytes) if bytes as u64 == frame.length => Ok(Content::Data {
                offset: self.range(&frame)?.start,
                bytes: &self.payload[..bytes],
            }),
            (kind::ZERO, 0) => self.range(&frame).map(Content::Zero),
            (kind::END, bytes)
                if (frame.offset, frame.length) == (0, 0) && self.ends_with(bytes) =>
            {
                let (sum, total) = (self.sum, self.total);
                if sum != total {
                    let what = format!("{sum} bytes are replaced, and {total} were told");
                    return Err(fault(frame.at, what));
                }
                let snapshot = self.digest_of(&frame);
                match self.read(&mut [0])? {
                    0 => Ok(Content::End { snapshot }),
                    _ => Err(fault(self.at - 1, "something follows its end")),
                }
            }
            _ => Err(frame.unexpected()),
        }
    }

    /// Whether a frame that begins the content can have as many bytes.
    fn begins_with(&self, bytes: usize) -> bool {
        bytes == 0 || (bytes == Digest::BYTES && self.head.has_base)
    }

    /// Whether the last frame can.
    fn ends_with(&self, bytes: usize) -> bool {
        bytes == if self.has_digests { Digest::BYTES } else { 0 }
    }

    fn frame(&mut self) -> Result<Frame> {
        let at = self.at;
        let mut head = [0; FRAME_BYTES];
        self.fill(&mut head)?;
        let payload_bytes = u32_at(&head, 4) as usize;
        if payload_bytes > self.payload.len() {
            return Err(damaged(at));
        }
        let mut payload = std::mem::replace(&mut self.payload, AlignedBuf::new(0));
        let filled = self.fill(&mut payload[..payload_bytes]);
        self.payload = payload;
        filled?;
        self.unseal(at)?;
        Ok(Frame {
            at,
            kind: u32_at(&head, 0),
            offset: u64_at(&head, 8),
            length: u64_at(&head, 16),
            payload_bytes,
        })
    }

    /// The range of `frame`, which must follow those before it; without a base, at once.
    fn range(&mut self, frame: &Frame) -> Result<Range<u64>> {
        let sector = u64::from(SECTOR_BYTES);
        let (start, length) = (frame.offset, frame.length);
        let follows = match self.head.has_base {
            true => start >= self.end,
            false => start == self.end,
        };
        let end = start.checked_add(length);
        match end.filter(|end| *end <= self.head.bytes && length > 0 && follows) {
            Some(end) if start % sector == 0 && end % sector == 0 => {
                self.end = end;
                self.sum += length;
                Ok(start..end)
            }
            _ => {
                let what = format!("{length} bytes at byte {start} cannot follow");
                Err(fault(frame.at, what))
            }
        }
    }

    fn digest_at(&self, at: usize) -> Digest {
        Digest(std::array::from_fn(|i| self.payload[at + i]))
    }

    /// The digest that is the payload, if there is one.
    fn digest_of(&self, frame: &Frame) -> Option<Digest> {
        (frame.payload_bytes > 0).then(|| self.digest_at(0))
    }

    /// Reads the digest of all before it, the last part of which began at byte `begin`.
    fn unseal(&mut self, begin: u64) -> Result<()> {
        let expected = self.digest();
        let mut digest = [0; Digest::BYTES];
        self.fill(&mut digest)?;
        if digest != expected.0 {
            return Err(damaged(begin));
        }
        Ok(())
    }

    fn fill(&mut self, buf: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < buf.len() {
            match self.read(&mut buf[done..])? {
                0 => return Err(fault(self.at, "it ends there, and is not complete")),
                bytes => done += bytes,
            }
        }
        self.hash.update(&*buf);
        Ok(())
    }

    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        loop {
            match self.from.read(buf) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(fault(self.at, format!("cannot read: {e}"))),
                Ok(bytes) => {
                    self.at += bytes as u64;
                    return Ok(bytes);
                }
            }
        }
    }
}

impl Frame {
    fn unexpected(&self) -> Error {
        let (kind, bytes) = (self.kind, self.payload_bytes);
        let what = format!("a frame of kind {kind} with {bytes} bytes cannot stand there");
        fault(self.at, what)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn damaged(at: u64) -> Error {
    fault(at, "it is damaged there: its digest is another one")
}

fn fault(at: u64, what: impl Into<String>) -> Error {
    Error::Stream {
        at,
        what: what.into(),
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! Writes a stream.

use super::{kind, Before, Content, Head, HAS_BASE, MAGIC, VERSION};
use crate::digest::Digest;
use crate::error::Result;
use crate::stream::Stream;
use sha2::{Digest as _, Sha256};
use std::ops::Range;

/// A stream that is being written. Its parts must be put in their order.
pub struct Writer {
    to: Stream,
    hash: Sha256,
}

impl Writer {
    /// Begins one.
    pub fn new(to: Stream, head: Head) -> Result<Self> {
        let mut writer = Self {
            to,
            hash: Sha256::new(),
        };
        writer.put(&MAGIC)?;
        writer.put(&VERSION.to_le_bytes())?;
        let flags = if head.has_base { HAS_BASE } else { 0 };
        writer.put(&flags.to_le_bytes())?;
        writer.put(&head.bytes.to_le_bytes())?;
        writer.seal()?;
        Ok(writer)
    }

    /// Says what is to be replaced.
    pub fn before(&mut self, before: &Before) -> Result<()> {
        match before {
            Before::Check(check) => {
                let payload = [check.base.0, check.snapshot.0];
                self.frame(kind::CHECK, &check.range, payload.as_flattened())
            }
            Before::Begin { bytes, base } => self.frame(kind::BEGIN, &(0..*bytes), bytes_of(base)),
        }
    }

    /// Says what a range holds.
    pub fn content(&mut self, content: &Content<'_>) -> Result<()> {
        match content {
            Content::Data { offset, bytes } => {
                let range = *offset..offset + bytes.len() as u64;
                self.frame(kind::DATA, &range, bytes)
            }
            Content::Zero(range) => self.frame(kind::ZERO, range, &[]),
            Content::End { snapshot } => self.frame(kind::END, &(0..0), bytes_of(snapshot)),
        }
    }

    /// Writes what is left, makes it durable, and returns how many bytes the stream has.
    pub fn finish(mut self) -> Result<u64> {
        self.to.finish()?;
        Ok(self.to.position())
    }

    fn frame(&mut self, kind: u32, range: &Range<u64>, payload: &[u8]) -> Result<()> {
        self.put(&kind.to_le_bytes())?;
        self.put(&(payload.len() as u32).to_le_bytes())?;
        self.put(&range.start.to_le_bytes())?;
        self.put(&(range.end - range.start).to_le_bytes())?;
        self.put(payload)?;
        self.seal()
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.to.put(bytes)
    }

    /// Ends a head or a frame.
    fn seal(&mut self) -> Result<()> {
        let digest = Digest::from(self.hash.clone().finalize());
        self.put(&digest.0)
    }
}

fn bytes_of(digest: &Option<Digest>) -> &[u8] {
    digest.as_ref().map_or(&[], |digest| &digest.0)
}

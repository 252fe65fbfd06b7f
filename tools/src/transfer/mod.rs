// SPDX-License-Identifier: GPL-2.0-only

//! The stream that brings a snapshot, or what differs between two, to where it is received.
//!
//! `Documentation/send-stream.md` has it byte by byte. A head is followed by frames: what the
//! ranges that are replaced must hold before, then what they hold afterwards. Each ends with the
//! SHA-256 of all of the stream before it, so that what is read is what was written, in its order,
//! up to there.

mod reader;
mod writer;

use crate::digest::Digest;
use std::ops::Range;

pub use reader::Reader;
pub use writer::Writer;

/// What a stream begins with.
const MAGIC: [u8; 8] = *b"snapsend";
/// The version of the stream.
const VERSION: u32 = 1;
/// The flag of a stream that needs a base; there is no other.
const HAS_BASE: u32 = 1;
/// Bytes of the head, without its digest.
const HEAD_BYTES: usize = 24;
/// Bytes of a frame before its payload.
const FRAME_BYTES: usize = 24;
/// The most bytes that a frame of data, or a check, is about.
pub const PART_BYTES: u64 = 1 << 20;

/// What kind of frame it is, by its number.
mod kind {
    pub const CHECK: u32 = 1;
    pub const BEGIN: u32 = 2;
    pub const DATA: u32 = 3;
    pub const ZERO: u32 = 4;
    pub const END: u32 = 5;
}

/// What a stream is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the snapshot, and of the base if there is one; whole sectors.
    pub bytes: u64,
    /// Whether it makes the snapshot of a base, and not of nothing.
    pub has_base: bool,
}

/// What is said before anything is replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Before {
    /// A range is going to be replaced.
    Check(Check),
    /// All ranges were told.
    Begin {
        /// Bytes that are replaced in all.
        bytes: u64,
        /// The digest of the whole base, if there is one and the sender read all of it.
        base: Option<Digest>,
    },
}

/// A range that is going to be replaced, in ascending order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The bytes, [`PART_BYTES`] at most.
    pub range: Range<u64>,
    /// The digest of what the base holds there.
    pub base: Digest,
    /// That of what the snapshot holds.
    pub snapshot: Digest,
}

/// What the snapshot holds in the ranges that are replaced, in ascending order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// Bytes, [`PART_BYTES`] at most.
    Data {
        /// The first byte in the snapshot.
        offset: u64,
        /// What is there and after it.
        bytes: &'a [u8],
    },
    /// Zeros.
    Zero(Range<u64>),
    /// That was all.
    End {
        /// The digest of the whole snapshot, unless only what differs from the base was read.
        snapshot: Option<Digest>,
    },
}

/// Cuts a range into parts of [`PART_BYTES`] at most.
pub fn parts(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let end = range.end;
    range
        .step_by(PART_BYTES as usize)
        .map(move |start| start..end.min(start + PART_BYTES))
}

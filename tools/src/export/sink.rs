// SPDX-License-Identifier: GPL-2.0-only

//! What is given the content in the order of its bytes.

use super::qcow2::{Reader, Writer};
use crate::error::Result;
use crate::stream::Stream;

/// What is given the content from the first byte to the last.
pub enum Sink {
    /// A pipe or the like.
    Stream(Box<Stream>),
    /// A qcow2 image that is written.
    Qcow2(Box<Writer>),
    /// A qcow2 image that must hold just that.
    Compare(Box<Reader>),
    /// Nothing: only the hash is wanted.
    None,
}

impl Sink {
    /// Gives it `bytes`.
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Stream(stream) => stream.put(bytes),
            Self::Qcow2(image) => image.put(bytes),
            Self::Compare(image) => image.compare(bytes),
            Self::None => Ok(()),
        }
    }

    /// Gives it that many zeros.
    pub fn put_zeros(&mut self, bytes: u64) -> Result<()> {
        match self {
            Self::Stream(stream) => zeros(bytes).try_for_each(|zeros| stream.put(zeros)),
            Self::Qcow2(image) => image.put_zeros(bytes),
            Self::Compare(image) => image.compare_zeros(bytes),
            Self::None => Ok(()),
        }
    }

    /// Ends what is written, durably where that can be; returns how many bytes of the content were.
    pub fn finish(self) -> Result<u64> {
        match self {
            Self::Stream(mut stream) => {
                stream.finish()?;
                Ok(stream.position())
            }
            Self::Qcow2(image) => image.finish(),
            Self::Compare(_) | Self::None => Ok(0),
        }
    }
}

/// Zeros, `bytes` in all.
pub fn zeros(bytes: u64) -> impl Iterator<Item = &'static [u8]> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let piece = ZEROS.len() as u64;
    (0..bytes.div_ceil(piece)).map(move |number| {
        let left = bytes - number * piece;
        &ZEROS[..left.min(piece) as usize]
    })
}

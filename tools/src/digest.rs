// SPDX-License-Identifier: GPL-2.0-only

//! What a SHA-256 comes to.

use sha2::digest::Output;
use sha2::Sha256;
use std::fmt;

/// A SHA-256; shown in hexadecimal, as sha256sum shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(pub [u8; Digest::BYTES]);

impl Digest {
    /// Bytes of a digest.
    pub const BYTES: usize = 32;

    /// That of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        <Sha256 as sha2::Digest>::digest(bytes).into()
    }
}

impl From<Output<Sha256>> for Digest {
    fn from(output: Output<Sha256>) -> Self {
        Self(output.into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

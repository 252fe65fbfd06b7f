// SPDX-License-Identifier: GPL-2.0-only

//! One record of a metadata area.

/// An exception: `old`, a chunk of the origin, was copied to `new`, a chunk of the COW device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exception {
    /// The chunk of the origin.
    pub old: u64,
    /// The chunk of the COW device; 0, the header's own chunk, marks a record as empty.
    pub new: u64,
}

impl Exception {
    /// Bytes of a record on disk.
    pub const BYTES: usize = 16;

    /// Reads a record.
    pub const fn read(bytes: &[u8; Self::BYTES]) -> Self {
        let both = u128::from_le_bytes(*bytes);
        Self {
            // CAST: The low half.
            old: both as u64,
            new: (both >> 64) as u64,
        }
    }

    /// The record as it stands on disk.
    pub const fn to_bytes(self) -> [u8; Self::BYTES] {
        (((self.new as u128) << 64) | self.old as u128).to_le_bytes()
    }

    /// Whether this record ends the list.
    pub const fn is_empty(self) -> bool {
        self.new == 0
    }

    /// The records in `bytes`; a last incomplete one is left out.
    pub fn records(bytes: &[u8]) -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator + '_ {
        bytes.chunks_exact(Self::BYTES).map(|record| {
            // Always as long as a record: nothing is left of the check.
            Self::read(record.try_into().unwrap_or(&[0; Self::BYTES]))
        })
    }
}

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
    pub fn read(bytes: &[u8; Self::BYTES]) -> Self {
        let half = |at: usize| u64::from_le_bytes(core::array::from_fn(|i| bytes[at + i]));
        Self {
            old: half(0),
            new: half(8),
        }
    }

    /// The record as it stands on disk.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let (old, new) = (self.old.to_le_bytes(), self.new.to_le_bytes());
        core::array::from_fn(|i| if i < 8 { old[i] } else { new[i - 8] })
    }

    /// Whether this record ends the list.
    pub const fn is_empty(self) -> bool {
        self.new == 0
    }

    /// The records in `bytes`; a last incomplete one is left out.
    pub fn records(bytes: &[u8]) -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator + '_ {
        bytes
            .chunks_exact(Self::BYTES)
            .map(|record| Self::read(&core::array::from_fn(|i| record[i])))
    }
}

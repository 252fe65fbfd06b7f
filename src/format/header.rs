// SPDX-License-Identifier: GPL-2.0-only

//! The header in chunk 0.

use super::Fault;

/// The header of a COW device that holds a snapshot.
///
/// The chunk size is as found on disk, in sectors, and not yet checked: see
/// [`ChunkSize`](super::ChunkSize).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whether the snapshot may be used. False once it overflowed or lost an I/O; there is no way
    /// back.
    pub valid: bool,
    /// Sectors in a chunk, unchecked.
    pub chunk_sectors: u32,
}

impl Header {
    /// Bytes of a header on disk.
    pub const BYTES: usize = 16;

    /// "SnAp", read as a little-endian integer.
    pub const MAGIC: u32 = 0x7041_6e53;

    /// The only version of the format there is.
    pub const VERSION: u32 = 1;

    /// Reads the header from the first bytes of the device.
    ///
    /// `None` stands for a new snapshot: its magic is zero, and what follows means nothing. A
    /// wrong magic or an unknown version is a fault.
    pub fn read(bytes: &[u8; Self::BYTES]) -> Result<Option<Self>, Fault> {
        let [magic, valid, version, chunk_sectors] = Self::fields(bytes);
        match magic {
            0 => return Ok(None),
            Self::MAGIC => {}
            _ => return Err(Fault::Magic(magic)),
        }
        if version != Self::VERSION {
            return Err(Fault::Version(version));
        }
        Ok(Some(Self {
            valid: valid != 0,
            chunk_sectors,
        }))
    }

    /// The four integers of a header, unchecked: magic, valid, version, chunk size in sectors.
    pub fn fields(bytes: &[u8; Self::BYTES]) -> [u32; 4] {
        core::array::from_fn(|i| {
            u32::from_le_bytes(core::array::from_fn(|byte| bytes[i * 4 + byte]))
        })
    }

    /// The header as it stands on disk.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let fields = [
            Self::MAGIC,
            u32::from(self.valid),
            Self::VERSION,
            self.chunk_sectors,
        ];
        core::array::from_fn(|i| fields[i / 4].to_le_bytes()[i % 4])
    }
}

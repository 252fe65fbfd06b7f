// SPDX-License-Identifier: GPL-2.0-only

//! The size of a chunk.

use super::SECTOR_BYTES;
use core::fmt;

/// A chunk size that device-mapper can work with: a power of two number of sectors, at most
/// [`ChunkSize::MAX_SECTORS`].
///
/// # Invariants
///
/// The number of sectors is a power of two and at most [`ChunkSize::MAX_SECTORS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkSize(u32);

impl ChunkSize {
    /// The largest chunk, in sectors (1 GiB): the bytes of a chunk must fit an `int`, as
    /// `dm_exception_store_set_chunk_size()` demands.
    pub const MAX_SECTORS: u32 = 1 << 21;

    /// The size that dm-snapshot takes when the table names none, in sectors (16 KiB).
    pub const DEFAULT_SECTORS: u32 = 32;

    /// Checks a chunk size, in sectors.
    pub const fn new(sectors: u32) -> Result<Self, ChunkSizeFault> {
        if sectors == 0 {
            return Err(ChunkSizeFault::Zero);
        }
        if !sectors.is_power_of_two() {
            return Err(ChunkSizeFault::NotPowerOfTwo);
        }
        if sectors > Self::MAX_SECTORS {
            return Err(ChunkSizeFault::TooLarge);
        }
        // INVARIANT: Both conditions were checked just now.
        Ok(Self(sectors))
    }

    /// Checks a chunk size, in sectors, also against the logical block sizes of the two devices,
    /// in bytes.
    pub const fn for_devices(
        sectors: u32,
        cow_block: u32,
        origin_block: u32,
    ) -> Result<Self, ChunkSizeFault> {
        let size = match Self::new(sectors) {
            Ok(size) => size,
            Err(fault) => return Err(fault),
        };
        if !size.is_multiple_of(cow_block) {
            return Err(ChunkSizeFault::NotCowBlocks(cow_block));
        }
        if !size.is_multiple_of(origin_block) {
            return Err(ChunkSizeFault::NotOriginBlocks(origin_block));
        }
        Ok(size)
    }

    const fn is_multiple_of(self, block: u32) -> bool {
        block != 0 && self.bytes() % block == 0
    }

    /// The size in sectors.
    pub const fn sectors(self) -> u32 {
        self.0
    }

    /// The size in bytes, at most 1 GiB.
    pub const fn bytes(self) -> u32 {
        // Cannot overflow, by the type's invariant.
        self.0.wrapping_mul(SECTOR_BYTES)
    }

    /// The binary logarithm of the number of sectors.
    pub const fn shift(self) -> u32 {
        self.0.trailing_zeros()
    }
}

/// Why a chunk size cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkSizeFault {
    /// It is zero.
    Zero,
    /// It is not a power of two.
    NotPowerOfTwo,
    /// It is larger than [`ChunkSize::MAX_SECTORS`].
    TooLarge,
    /// It is not a multiple of the COW device's logical block, whose bytes are given.
    NotCowBlocks(u32),
    /// It is not a multiple of the origin's logical block, whose bytes are given.
    NotOriginBlocks(u32),
}

impl fmt::Display for ChunkSizeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero => f.write_str("it is zero"),
            Self::NotPowerOfTwo => f.write_str("it is not a power of two"),
            Self::TooLarge => write!(f, "the largest is {} sectors", ChunkSize::MAX_SECTORS),
            Self::NotCowBlocks(block) => write!(
                f,
                "it is not a multiple of the COW device's logical block of {block} bytes"
            ),
            Self::NotOriginBlocks(block) => write!(
                f,
                "it is not a multiple of the origin's logical block of {block} bytes"
            ),
        }
    }
}

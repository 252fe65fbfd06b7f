// SPDX-License-Identifier: GPL-2.0-only

//! What lies where on a COW device.

use super::{
    ChunkSize,
    Exception,
    Fault,
    SECTOR_BYTES, //
};
use core::fmt;
use core::num::NonZeroU64;

/// A run of sectors on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first sector.
    pub sector: u64,
    /// How many sectors.
    pub sectors: u64,
}

/// Where a record stands: which area, and which record of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The area, from 0.
    pub area: u64,
    /// The record in the area, from 0.
    pub index: u32,
    /// Its first byte on the device.
    pub byte: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "area {} record {} (byte {})",
            self.area, self.index, self.byte
        )
    }
}

/// The chunk size and the sizes of the two devices: all that decides what may lie where.
///
/// # Invariants
///
/// The COW device holds at least [`Geometry::MIN_COW_CHUNKS`] chunks, and `cow_chunks` times the
/// chunk size in bytes fits a `u64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    chunk: ChunkSize,
    cow_chunks: u64,
    origin_chunks: u64,
}

impl Geometry {
    /// The first chunk that may hold data: after the header and area 0.
    pub const FIRST_DATA_CHUNK: u64 = 2;

    /// The header and area 0 are always there.
    pub const MIN_COW_CHUNKS: u64 = 2;

    /// The largest window, in bytes.
    pub const MAX_WINDOW_BYTES: u32 = 64 * 1024;

    /// dm-snapshot keeps the number of a new chunk in 56 bits (`DM_CHUNK_NUMBER_BITS`).
    pub const MAX_CHUNKS: u64 = 1 << 56;

    /// Lays out a COW device of `cow_sectors` for an origin of `origin_sectors`.
    ///
    /// A COW device ends with its last whole chunk; an origin's last chunk may be a part of one. An
    /// origin of 0 sectors is one whose size is not known yet: LVM loads a snapshot's table before
    /// it resumes the origin's. Any old chunk will do for that one.
    pub fn new(chunk: ChunkSize, cow_sectors: u64, origin_sectors: u64) -> Result<Self, Fault> {
        let cow_chunks = Self::whole_chunks(chunk, cow_sectors);
        if cow_chunks < Self::MIN_COW_CHUNKS {
            return Err(Fault::CowTooSmall {
                chunk_sectors: chunk.sectors(),
                cow_sectors,
            });
        }
        // INVARIANT: Both conditions were established above.
        Ok(Self {
            chunk,
            cow_chunks,
            origin_chunks: Self::chunks_of_origin(chunk, origin_sectors),
        })
    }

    /// The same layout on a COW device that is `cow_sectors` large now, for an origin of now
    /// `origin_sectors`.
    ///
    /// A COW device that shrank below two chunks has no room for data, and is taken to have two.
    pub fn resized(&self, cow_sectors: u64, origin_sectors: u64) -> Self {
        Self {
            chunk: self.chunk,
            cow_chunks: Self::whole_chunks(self.chunk, cow_sectors).max(Self::MIN_COW_CHUNKS),
            origin_chunks: Self::chunks_of_origin(self.chunk, origin_sectors),
        }
    }

    fn chunks_of_origin(chunk: ChunkSize, sectors: u64) -> u64 {
        match sectors {
            0 => u64::MAX,
            _ => sectors.div_ceil(u64::from(chunk.sectors())),
        }
    }

    /// Whole chunks in `cow_sectors`, as far as they can be numbered and addressed.
    fn whole_chunks(chunk: ChunkSize, cow_sectors: u64) -> u64 {
        // A device's bytes fit an i64 in the kernel; a hostile image's caller may claim more.
        let max_sectors = u64::MAX / u64::from(SECTOR_BYTES);
        (cow_sectors.min(max_sectors) >> chunk.shift()).min(Self::MAX_CHUNKS)
    }

    /// The chunk size.
    pub const fn chunk_size(&self) -> ChunkSize {
        self.chunk
    }

    /// Whole chunks on the COW device.
    pub const fn cow_chunks(&self) -> u64 {
        self.cow_chunks
    }

    /// Chunks of the origin, the last of which may be a part of one; `u64::MAX` if not known.
    pub const fn origin_chunks(&self) -> u64 {
        self.origin_chunks
    }

    /// Records in an area, and data chunks between an area and the next: a power of two.
    pub const fn exceptions_per_area(&self) -> u32 {
        self.chunk.bytes() / Exception::BYTES as u32
    }

    /// Chunks from one area to the next.
    const fn stride(&self) -> NonZeroU64 {
        NonZeroU64::MIN.saturating_add(self.exceptions_per_area() as u64)
    }

    /// The chunk of metadata area `area`; `None` where the COW device has no such chunk.
    pub fn area_chunk(&self, area: u64) -> Option<u64> {
        area.checked_mul(self.stride().get())?
            .checked_add(1)
            .filter(|chunk| *chunk < self.cow_chunks)
    }

    /// The first chunk above `chunk`, which is on a device, where an area is or would be.
    pub fn area_chunk_above(&self, chunk: u64) -> u64 {
        // An area's chunk leaves 1 when divided by the stride.
        let above_an_area = chunk.saturating_sub(1) % self.stride();
        chunk + (self.stride().get() - above_an_area)
    }

    /// How many metadata areas fit the COW device: at least one.
    pub fn areas(&self) -> u64 {
        (self.cow_chunks - 2) / self.stride() + 1
    }

    /// The area whose chunk `chunk` is, if it is one's.
    pub fn area_at(&self, chunk: u64) -> Option<u64> {
        (chunk % self.stride() == 1).then(|| chunk / self.stride())
    }

    /// Whether `chunk` holds metadata: the header or an area.
    pub fn is_metadata(&self, chunk: u64) -> bool {
        chunk == 0 || self.area_at(chunk).is_some()
    }

    /// `chunk` itself, or the next one where `chunk` is an area's.
    pub fn skip_metadata(&self, chunk: u64) -> u64 {
        if self.is_metadata(chunk) {
            chunk + 1
        } else {
            chunk
        }
    }

    /// Whether data may be copied to `chunk` of the COW device, which is `cow_sectors` large now.
    ///
    /// The last chunk before an area that the device has no room for stays unused: the record
    /// that fills an area needs the next area to end the list in. The C store hands it out and
    /// then loses the snapshot when the next area cannot be wiped.
    pub fn can_hold_data(&self, chunk: u64, cow_sectors: u64) -> bool {
        let chunks = Self::whole_chunks(self.chunk, cow_sectors);
        chunk < chunks
            && !self.is_metadata(chunk)
            && (chunk + 1 < chunks || !self.is_metadata(chunk + 1))
    }

    /// The area of record number `record`, counted from the start of the list.
    pub const fn area_of(&self, record: u64) -> u64 {
        record >> self.exceptions_per_area().trailing_zeros()
    }

    /// Which record of its area record number `record` is, from 0.
    pub const fn index_in_area(&self, record: u64) -> u32 {
        // CAST: Less than the records of an area.
        (record & (self.exceptions_per_area() as u64 - 1)) as u32
    }

    /// The place of record number `record`; its byte saturates for a record beyond any device.
    pub const fn place(&self, record: u64) -> Place {
        let area = self.area_of(record);
        let index = self.index_in_area(record);
        let chunk = area.saturating_mul(self.stride().get()).saturating_add(1);
        Place {
            area,
            index,
            byte: chunk
                .saturating_mul(self.chunk.bytes() as u64)
                .saturating_add(index as u64 * Exception::BYTES as u64),
        }
    }

    /// `count` chunks from `chunk` on, in sectors. All of them must lie on the COW device.
    pub const fn chunks(&self, chunk: u64, count: u64) -> Extent {
        Extent {
            sector: chunk << self.chunk.shift(),
            sectors: count << self.chunk.shift(),
        }
    }

    /// Bytes of a window: a chunk's, or [`Self::MAX_WINDOW_BYTES`] if that is less. A power of
    /// two.
    pub const fn window_bytes(&self) -> u32 {
        if self.chunk.bytes() < Self::MAX_WINDOW_BYTES {
            self.chunk.bytes()
        } else {
            Self::MAX_WINDOW_BYTES
        }
    }

    /// Records in a window, a power of two.
    pub const fn records_per_window(&self) -> u32 {
        self.window_bytes() / Exception::BYTES as u32
    }

    /// Windows in an area, a power of two.
    pub const fn windows_per_area(&self) -> u32 {
        self.chunk.bytes() >> self.window_bytes().trailing_zeros()
    }

    /// The window of record number `record`, counted over all areas.
    pub const fn window_of(&self, record: u64) -> u64 {
        record >> self.records_per_window().trailing_zeros()
    }

    /// The first record of window `window`, which holds one that could be on a device.
    pub const fn first_record(&self, window: u64) -> u64 {
        window << self.records_per_window().trailing_zeros()
    }

    /// The area of window `window`.
    pub const fn area_of_window(&self, window: u64) -> u64 {
        window >> self.windows_per_area().trailing_zeros()
    }

    /// Which window of its area window `window` is, from 0.
    pub const fn index_of_window(&self, window: u64) -> u64 {
        window & (self.windows_per_area() as u64 - 1)
    }

    /// Where window `window` lies; `None` where its area is beyond the end of the COW device.
    pub fn window(&self, window: u64) -> Option<Extent> {
        let area = self.chunks(self.area_chunk(self.area_of_window(window))?, 1);
        let sectors = u64::from(self.window_bytes() / SECTOR_BYTES);
        Some(Extent {
            sector: area.sector + self.index_of_window(window) * sectors,
            sectors,
        })
    }
}

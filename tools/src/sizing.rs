// SPDX-License-Identifier: GPL-2.0-only

//! How large a COW device must be.

use crate::error::{Error, Result};
use crate::format::{ChunkSize, Geometry};

/// What a COW device needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Sectors in a chunk.
    pub chunk_sectors: u32,
    /// Chunks of the origin that are kept.
    pub chunks: u64,
    /// Chunks for the header and the areas.
    pub metadata_chunks: u64,
}

impl Need {
    /// That of `chunks` chunks. After the record that fills an area the next area must be there: the
    /// list ends in it.
    pub fn new(chunk: ChunkSize, chunks: u64) -> Result<Self> {
        let too_large = |_| Error::Refused("no COW device can be that large".into());
        let geometry = Geometry::new(chunk, u64::MAX, u64::MAX).map_err(too_large)?;
        let need = Self {
            chunk_sectors: chunk.sectors(),
            chunks,
            metadata_chunks: geometry.area_of(chunks) + 2,
        };
        let all = need.chunks.checked_add(need.metadata_chunks);
        match all.filter(|all| *all <= geometry.cow_chunks()) {
            Some(_) => Ok(need),
            None => Err(Error::Refused("no COW device can be that large".into())),
        }
    }

    /// That of `sectors` sectors which begin and end with chunks.
    pub fn of_sectors(chunk: ChunkSize, sectors: u64) -> Result<Self> {
        Self::new(chunk, sectors.div_ceil(chunk.sectors().into()))
    }

    /// Sectors of data.
    pub fn data(&self) -> u64 {
        self.chunks * u64::from(self.chunk_sectors)
    }

    /// Sectors of metadata.
    pub fn metadata(&self) -> u64 {
        self.metadata_chunks * u64::from(self.chunk_sectors)
    }

    /// Sectors of the whole device.
    pub fn total(&self) -> u64 {
        self.data() + self.metadata()
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! What the header of a COW device makes of it.

use super::{
    ChunkSize,
    Fault,
    Geometry,
    Header,
    SECTOR_BYTES, //
};

/// What of a device decides what may lie on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceSize {
    /// Its size in sectors; of an origin, 0 where it is not known yet.
    pub sectors: u64,
    /// Its logical block in bytes.
    pub logical_block: u32,
}

/// What there is on a COW device, and so what activating it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CowState {
    /// No snapshot: a new one is begun, laid out like this.
    New(Geometry),
    /// A snapshot that was dropped. Its records are not looked at, so that it does not matter
    /// whether the device is large enough for any.
    Invalid(ChunkSize),
    /// A snapshot that may be used.
    Valid(Geometry),
}

impl CowState {
    /// Decides by the header that [`Header::read`] found.
    ///
    /// `table_sectors` is the chunk size that the table asks for, in sectors, 0 for none. That of a
    /// header overrides it; without either it is [`ChunkSize::DEFAULT_SECTORS`], or the COW
    /// device's logical block where that is larger.
    pub fn new(
        header: Option<Header>,
        cow: DeviceSize,
        origin: DeviceSize,
        table_sectors: u32,
    ) -> Result<Self, Fault> {
        let chunk =
            |sectors| ChunkSize::for_devices(sectors, cow.logical_block, origin.logical_block);
        let lay_out = |chunk| Geometry::new(chunk, cow.sectors, origin.sectors);
        let Some(Header {
            valid,
            chunk_sectors,
        }) = header
        else {
            let sectors = match table_sectors {
                0 => ChunkSize::DEFAULT_SECTORS.max(cow.logical_block / SECTOR_BYTES),
                sectors => sectors,
            };
            let chunk = chunk(sectors).map_err(|fault| Fault::TableChunkSize(sectors, fault))?;
            return Ok(Self::New(lay_out(chunk)?));
        };
        let chunk = chunk(chunk_sectors).map_err(|fault| Fault::ChunkSize(chunk_sectors, fault))?;
        if valid {
            Ok(Self::Valid(lay_out(chunk)?))
        } else {
            Ok(Self::Invalid(chunk))
        }
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! What can be wrong with a COW device.

use super::{
    ChunkSizeFault,
    NoMemory,
    Place, //
};
use core::fmt;

/// Why a COW device's metadata is refused.
///
/// Printed, a fault is one line that names the field, its value and where it stands on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The header's magic is neither "SnAp" nor zero.
    Magic(u32),
    /// The header's version is not [`Header::VERSION`](super::Header::VERSION).
    Version(u32),
    /// The header's chunk size, in sectors, cannot be used.
    ChunkSize(u32, ChunkSizeFault),
    /// The chunk size of the table, or the default where it names none, in sectors, cannot be used.
    TableChunkSize(u32, ChunkSizeFault),
    /// The COW device is too small for a header and an area.
    CowTooSmall {
        /// Sectors in a chunk.
        chunk_sectors: u32,
        /// Sectors of the COW device.
        cow_sectors: u64,
    },
    /// The list goes on in an area beyond the end of the COW device.
    AreaBeyondDevice {
        /// The area.
        area: u64,
        /// Chunks on the COW device.
        cow_chunks: u64,
    },
    /// A record's new chunk is the header's or an area's.
    NewIsMetadata(Place, u64),
    /// A record's new chunk lies beyond the end of the COW device.
    NewBeyondDevice(Place, u64),
    /// A record's new chunk was used by an earlier record.
    NewUsedTwice(Place, u64),
    /// Two records have the same old chunk.
    OldUsedTwice {
        /// The old chunk.
        old: u64,
        /// The new chunks of the two, in the order of the list.
        new: [u64; 2],
    },
    /// A record's old chunk lies beyond the end of the origin.
    OldBeyondOrigin(Place, u64),
    /// A record that must be there is empty.
    Missing(Place),
    /// The check itself ran out of memory.
    NoMemory,
    /// Whoever waited for the check was told to die.
    Interrupted,
}

/// What a fault says about, and so what is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultClass {
    /// Nothing about the metadata: there was no memory for the check.
    Memory,
    /// Nothing about the metadata: the check was interrupted.
    Interrupted,
    /// The device holds something, but no snapshot.
    Foreign,
    /// The metadata does not suit what it was asked to work with: the program, the table, or the
    /// devices.
    Argument,
    /// The metadata is damaged, or somebody made it so.
    Damage,
}

impl Fault {
    /// One word that says what kind of fault it is, for programs.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Magic(_) => "magic",
            Self::Version(_) => "version",
            Self::ChunkSize(..) => "chunk-size",
            Self::TableChunkSize(..) => "table-chunk-size",
            Self::CowTooSmall { .. } => "cow-too-small",
            Self::AreaBeyondDevice { .. } => "area-beyond-device",
            Self::NewIsMetadata(..) => "new-is-metadata",
            Self::NewBeyondDevice(..) => "new-beyond-device",
            Self::NewUsedTwice(..) => "new-used-twice",
            Self::OldUsedTwice { .. } => "old-used-twice",
            Self::OldBeyondOrigin(..) => "old-beyond-origin",
            Self::Missing(_) => "missing",
            Self::NoMemory => "no-memory",
            Self::Interrupted => "interrupted",
        }
    }

    /// The record that it stands in, where it is in one.
    pub const fn place(&self) -> Option<Place> {
        match *self {
            Self::NewIsMetadata(place, _)
            | Self::NewBeyondDevice(place, _)
            | Self::NewUsedTwice(place, _)
            | Self::OldBeyondOrigin(place, _)
            | Self::Missing(place) => Some(place),
            Self::Magic(_)
            | Self::Version(_)
            | Self::ChunkSize(..)
            | Self::TableChunkSize(..)
            | Self::CowTooSmall { .. }
            | Self::AreaBeyondDevice { .. }
            | Self::OldUsedTwice { .. }
            | Self::NoMemory
            | Self::Interrupted => None,
        }
    }

    /// What it says about.
    pub const fn class(&self) -> FaultClass {
        match self {
            Self::NoMemory => FaultClass::Memory,
            Self::Interrupted => FaultClass::Interrupted,
            Self::Magic(_) => FaultClass::Foreign,
            Self::Version(_)
            | Self::ChunkSize(..)
            | Self::TableChunkSize(..)
            | Self::CowTooSmall { .. } => FaultClass::Argument,
            Self::AreaBeyondDevice { .. }
            | Self::NewIsMetadata(..)
            | Self::NewBeyondDevice(..)
            | Self::NewUsedTwice(..)
            | Self::OldUsedTwice { .. }
            | Self::OldBeyondOrigin(..)
            | Self::Missing(_) => FaultClass::Damage,
        }
    }
}

impl From<NoMemory> for Fault {
    fn from(_: NoMemory) -> Self {
        Self::NoMemory
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic(magic) => write!(
                f,
                "header: magic {magic:#010x} at byte 0 is not that of a snapshot"
            ),
            Self::Version(version) => write!(
                f,
                "header: version {version} at byte 8 is unknown, only version 1 is"
            ),
            Self::ChunkSize(sectors, fault) => write!(
                f,
                "header: chunk size {sectors} sectors at byte 12 cannot be used: {fault}"
            ),
            Self::TableChunkSize(sectors, fault) => write!(
                f,
                "table: chunk size {sectors} sectors cannot be used: {fault}"
            ),
            Self::CowTooSmall {
                chunk_sectors,
                cow_sectors,
            } => write!(
                f,
                "chunk size {chunk_sectors} sectors is too large for a COW device of \
                 {cow_sectors} sectors, which must hold two chunks"
            ),
            Self::AreaBeyondDevice { area, cow_chunks } => write!(
                f,
                "area {area} lies beyond the end of the COW device of {cow_chunks} chunks"
            ),
            Self::NewIsMetadata(place, new) => {
                write!(f, "{place}: new chunk {new} is a metadata chunk")
            }
            Self::NewBeyondDevice(place, new) => write!(
                f,
                "{place}: new chunk {new} lies beyond the end of the COW device"
            ),
            Self::NewUsedTwice(place, new) => {
                write!(f, "{place}: new chunk {new} is used by an earlier record")
            }
            Self::OldUsedTwice {
                old,
                new: [first, second],
            } => write!(
                f,
                "old chunk {old} is used by two records, with new chunks {first} and {second}"
            ),
            Self::OldBeyondOrigin(place, old) => write!(
                f,
                "{place}: old chunk {old} lies beyond the end of the origin"
            ),
            Self::Missing(place) => {
                write!(f, "{place}: the record is empty, though records follow it")
            }
            Self::NoMemory => f.write_str("out of memory while checking the metadata"),
            Self::Interrupted => f.write_str("interrupted while checking the metadata"),
        }
    }
}

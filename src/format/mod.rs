// SPDX-License-Identifier: GPL-2.0-only

//! The on-disk format of a persistent snapshot's COW device.
//!
//! Everything here is pure: `core` only, no I/O, no allocation of its own. The same files are
//! compiled into the kernel module, the userspace tools, the host tests and the fuzzers, so that
//! there is one opinion of what a COW device says.
//!
//! # Layout
//!
//! All integers are little-endian. The device is cut into chunks of [`ChunkSize`]; `epa`, the
//! exceptions per area, is the chunk's bytes divided by [`Exception::BYTES`].
//!
//! ```text
//! chunk  0         header ([`Header`]), the rest of the chunk unused
//! chunk  1         metadata area 0: epa records of (old chunk, new chunk)
//! chunks 2 ..      epa data chunks
//! chunk  epa + 2   metadata area 1
//! ...              area i lies in chunk 1 + i * (epa + 1)
//! ```
//!
//! Records fill area 0 from its first byte, then area 1, and so on; the first record whose new
//! chunk is 0 ends the list. The source of this format is the kernel's
//! `drivers/md/dm-snap-persistent.c`.
//!
//! # Windows
//!
//! An area can be as large as a chunk, and a chunk a gigabyte. Readers and writers therefore look
//! at an area through *windows* of at most [`Geometry::MAX_WINDOW_BYTES`]: window `n` holds the
//! records `n * k .. (n + 1) * k`, where `k` is [`Geometry::records_per_window`]. A window never
//! reaches over the end of its area.

mod check;
mod chunk_size;
mod cow_state;
mod exception;
mod fault;
mod geometry;
mod header;
mod pairs;
mod platform;
mod walk;

pub use check::{
    check_alone,
    RecordCheck, //
};
pub use chunk_size::{
    ChunkSize,
    ChunkSizeFault, //
};
pub use cow_state::{
    CowState,
    DeviceSize, //
};
pub use exception::Exception;
pub use fault::{
    Fault,
    FaultClass, //
};
pub use geometry::{
    Extent,
    Geometry,
    Place, //
};
pub use header::Header;
pub use pairs::Pairs;
pub use platform::{
    List,
    NoMemory,
    Platform, //
};
pub use walk::{
    Walk,
    WalkError,
    Walked, //
};

/// Bytes in a sector, the unit of every device size and offset in this format.
pub const SECTOR_BYTES: u32 = 512;

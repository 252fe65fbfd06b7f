// SPDX-License-Identifier: GPL-2.0-only

//! The metadata of a snapshot in use: what to read and write next, and when to call back.
//!
//! Everything here is pure, on top of [`format`](crate::format) and the [`Disk`] trait, so that
//! host tests can drive it against a simulated disk that reorders, loses, tears and fails writes.
//!
//! # What must hold on the disk
//!
//! 1. A record is written only when the data it points to is on stable storage, and its commit is
//!    reported only when the record is.
//! 2. When the record that fills an area can be on stable storage, the next area is zero there.
//! 3. After the end of the list, the rest of its area is zero, since the C store, which may load
//!    this device next, writes a whole area back as it read it.

mod allocator;
mod committer;
mod disk;
mod load;
mod ordered;
mod receiver;
mod record_list;
mod rounds;

pub use allocator::Allocator;
pub use committer::Committer;
pub use disk::{
    Disk,
    Error, //
};
pub use load::{
    load,
    DeviceInfo,
    Loaded, //
};
pub use ordered::Ordered;
pub use receiver::Receiver;
pub use record_list::RecordList;
pub use rounds::Rounds;

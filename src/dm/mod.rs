// SPDX-License-Identifier: GPL-2.0-only

//! Safe wrappers over the parts of device-mapper that an exception store needs.
//!
//! Everything `unsafe` of this module lives here. The layer knows nothing of the store above it.
//!
//! | here | stands for |
//! | --- | --- |
//! | [`BlockDevice`] | `struct block_device`: an open device |
//! | [`Device`] | `struct dm_dev`: a device that a table opened |
//! | [`io`] | dm-io: reads and writes of a device's metadata |
//! | [`Workqueue`] | a single-threaded `struct workqueue_struct` |
//! | [`exception_store`] | `struct dm_exception_store_type` and its registry |
//! | [`message`] | device-mapper's log messages |
//! | [`fatal_signal_pending`] | the C function of this name |

mod block_device;
mod device;
pub(crate) mod exception_store;
mod ffi;
pub(crate) mod io;
pub(crate) mod message;
mod signal;
mod workqueue;

pub(crate) use block_device::BlockDevice;
pub(crate) use device::{Device, HeldDevice};
pub(crate) use signal::fatal_signal_pending;
pub(crate) use workqueue::Workqueue;

/// `EUCLEAN`, "structure needs cleaning": what is on the disk, or in a list, makes no sense.
///
/// The `kernel` crate of Linux 7.2 does not have it.
pub(crate) fn unclean() -> kernel::error::Error {
    kernel::error::Error::from_errno(-(kernel::bindings::EUCLEAN as i32))
}

// SPDX-License-Identifier: GPL-2.0-only

//! dm-io: reads and writes of a device's metadata, and of data that is copied through memory of ours.
//!
//! An [`IoClient`] owns the pools that I/O is made from, so that writing metadata cannot wait for
//! memory that only written metadata would free. Data goes through an [`IoBuffer`], memory that
//! dm-io can address. [`ReadAhead`] keeps many reads in flight and hands their data out in order.
//! A [`Wiper`] zeroes, in the background if it is told early. A `Transfer` copies what kcopyd cannot.
//!
//! C header: [`include/linux/dm-io.h`](srctree/include/linux/dm-io.h).

mod buffer;
mod client;
mod read_ahead;
mod request;
#[cfg(not(under_c_core))]
mod transfer;
mod wiper;

pub(crate) use buffer::IoBuffer;
pub(crate) use client::IoClient;
pub(crate) use read_ahead::ReadAhead;
#[cfg(not(under_c_core))]
pub(crate) use transfer::{
    bytes_of,
    sectors_of,
    Place,
    Transfer,
    TransferJob,
    MAX_DEVICES,
    MAX_WRITES, //
};
pub(crate) use wiper::Wiper;

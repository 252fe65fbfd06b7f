// SPDX-License-Identifier: GPL-2.0-only

//! The tools of dm-snapshot's persistent exception store.
//!
//! A COW device holds what a snapshot keeps aside of its origin, and the metadata that says which
//! chunk went where. This library reads, checks and writes that metadata, and the data with it,
//! without the kernel; the files under `commands` make the `snap_*` commands of it.
//!
//! What the bytes mean is decided in one place, [`format`](mod@format), which the kernel module is
//! built from too.

#![forbid(unsafe_code)]

#[path = "../../src/format/mod.rs"]
#[allow(missing_docs)]
pub mod format;

pub mod active;
pub mod buffer;
pub mod check;
pub mod commands;
pub mod cow;
pub mod delta;
pub mod device;
pub mod digest;
pub mod dump;
pub mod duplicates;
pub mod error;
pub mod export;
pub mod extents;
pub mod figures;
pub mod growable;
pub mod guess;
pub mod identity;
pub mod input;
pub mod interrupt;
pub mod lvm;
pub mod mapper;
pub mod merge;
pub mod new_file;
pub mod output;
pub mod receive;
pub mod repair;
pub mod replaced;
pub mod report;
pub mod restore;
pub mod rmap;
pub mod run;
pub mod send;
pub mod sizing;
pub mod snapshot;
pub mod stat;
pub mod state_file;
pub mod stream;
pub mod threads;
pub mod top;
pub mod transfer;
pub mod units;
pub mod waits;
pub mod writes;

pub use error::{Error, Result};

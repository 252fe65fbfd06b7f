// SPDX-License-Identifier: GPL-2.0-only

//! Targets: what a mapped device is made of.
//!
//! A module implements [`Target`] for each of its targets, and has a [`Registration`] of each in
//! its state. The pieces:
//!
//! | here | stands for |
//! | --- | --- |
//! | [`Target`] | `struct target_type`: what a target can do |
//! | [`Registration`] | `dm_register_target()` |
//! | [`TargetTable`] | `struct dm_target` while its table is made or resumed |
//! | [`TargetHandle`] | `struct dm_target` for whoever outlives it |
//!
//! # The life of a target
//!
//! 1. A table is loaded: [`Target::new`] opens the devices.
//! 2. The table becomes that of the device: [`Target::preresume`], [`Target::resume`].
//! 3. Bios come: [`Target::map`], and when each was carried out [`Target::end_io`], both from many
//!    threads at once.
//! 4. The device is suspended: [`Target::presuspend`]; device-mapper waits for the bios that are
//!    under way; [`Target::postsuspend`]. It is resumed, with this or another table.
//! 5. The table goes away: the target is dropped, and device-mapper closes its devices when nobody
//!    has a handle of them any more.
//!
//! `example.rs` is a whole target.
//!
//! C header: [`include/linux/device-mapper.h`](srctree/include/linux/device-mapper.h).

mod adapter;
mod example;
mod handle;
mod operations;
mod registration;
mod result_buffer;
mod table;

pub(crate) use handle::TargetHandle;
pub(crate) use operations::{
    StatusKind,
    Target, //
};
pub(crate) use registration::Registration;
pub(crate) use table::TargetTable;

// SPDX-License-Identifier: GPL-2.0-only

//! A store under dm-snapshot's C core, which calls it through a
//! `struct dm_exception_store_type`.
//!
//! - [`Registration`] makes a store known to dm-snapshot under a name, and may take the name over
//!   from the type that has it.
//! - `registry` finds that type.
//! - `adapter` presents an [`ExceptionStore`](super::ExceptionStore) as a
//!   `struct dm_exception_store_type`.
//! - [`CommitCallback`] is the [`Completion`](super::Completion) that dm-snapshot's C core passes.
//!
//! All this imports symbols of the C core's module, so that it is compiled only for a module that
//! works under it: `Kbuild` says `--cfg under_c_core` for those.
//!
//! C header: [`drivers/md/dm-exception-store.h`](srctree/drivers/md/dm-exception-store.h).

mod adapter;
mod commit_callback;
mod ffi;
mod registration;
mod registry;

pub(crate) use commit_callback::CommitCallback;
pub(crate) use registration::Registration;

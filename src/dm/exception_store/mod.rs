// SPDX-License-Identifier: GPL-2.0-only

//! Exception stores: where a snapshot keeps what was copied where.
//!
//! dm-snapshot copies a chunk of the origin to the COW device before it is overwritten, and calls
//! the fact an exception. An exception store decides where on the COW device copies go and, if it
//! is persistent, records them there.
//!
//! Two things are kept apart here:
//!
//! - [`ExceptionStore`], the trait that a store implements, and [`Completion`], which it is given
//!   for each commit. They speak of devices, chunks and exceptions, not of C structures, so that
//!   targets written in Rust can call a store just as well.
//! - `c_core`, which registers a store with dm-snapshot's C core and presents it there.
//!
//! # The life of a store
//!
//! 1. A table is loaded: [`ExceptionStore::new`], then [`ExceptionStore::read_metadata`], unless
//!    the table replaces one with the same COW device: then the new store is never loaded, and the
//!    old one is handed over to the new table.
//! 2. Chunks are about to be overwritten: [`ExceptionStore::prepare_exceptions`] hands out a place
//!    for each, they are copied there, and [`ExceptionStore::commit_exception`] records them. The
//!    origin is overwritten when the store calls back.
//! 3. The snapshot overflows or loses an I/O: [`ExceptionStore::drop_snapshot`].
//! 4. The snapshot is merged into its origin: [`ExceptionStore::prepare_merge`] and
//!    [`ExceptionStore::commit_merge`] in turn, from the latest exception to the first.
//! 5. The table goes away: the store is dropped, when no exception is pending any more.
//!
//! The devices are passed to each call and must not be kept: a handover moves the store to another
//! table.

#[cfg(under_c_core)]
mod c_core;
mod completion;
mod operations;

#[cfg(under_c_core)]
pub(crate) use c_core::{
    CommitCallback,
    Registration, //
};
pub(crate) use completion::Completion;
#[cfg(under_c_core)]
pub(crate) use operations::Run;
pub(crate) use operations::{
    Copied,
    Devices,
    ExceptionStore,
    ExceptionTable,
    Metadata,
    NewStore,
    TableLine,
    Usage, //
};

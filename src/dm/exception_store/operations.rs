// SPDX-License-Identifier: GPL-2.0-only

//! The trait that an exception store implements.

use super::Completion;
use crate::dm::Device;
use crate::format::Exception;
use kernel::{
    error::VTABLE_DEFAULT_ERROR,
    fmt,
    prelude::*, //
};

/// The two devices of a snapshot, for the duration of a call.
#[derive(Clone, Copy)]
pub(crate) struct Devices<'a> {
    /// The device whose old content the snapshot keeps.
    pub(crate) origin: &'a Device,
    /// The device that old content is copied to.
    pub(crate) cow: &'a Device,
}

/// A run of exceptions whose old chunks and whose new chunks are consecutive.
#[cfg(under_c_core)]
#[derive(Clone, Copy)]
pub(crate) struct Run {
    /// The last exception of the run.
    pub(crate) last: Exception,
    /// How many exceptions there are in the run, at least 1.
    pub(crate) count: u32,
}

/// A store just made, and what its options mean for dm-snapshot.
pub(crate) struct NewStore<T> {
    /// The store.
    pub(crate) store: Pin<KBox<T>>,
    /// Userspace asked to be told of an overflow that a larger COW device could still mend.
    pub(crate) userspace_supports_overflow: bool,
}

/// The table in memory that a store's exceptions are loaded into.
pub(crate) trait ExceptionTable {
    /// Whether exceptions may come in any order, and one whose old chunk is there already is
    /// refused. If not, the store brings them into an order that suits dm-snapshot's C core, and
    /// refuses such exceptions itself.
    const TAKES_ANY_ORDER: bool;

    /// Takes the chunk size in sectors: before the first exception, and also where there is none,
    /// but not for a snapshot that may not be used. May sleep.
    fn begin(&mut self, chunk_sectors: u32) -> Result;

    /// Takes an exception. Its error ends loading. May sleep.
    fn insert(&mut self, exception: Exception) -> Result;
}

/// What [`ExceptionStore::read_metadata`] found.
pub(crate) struct Metadata {
    /// The chunk size in sectors, a power of two. It may differ from that of the table.
    pub(crate) chunk_sectors: u32,
    /// Whether the snapshot may be used. If not, no exception was reported.
    pub(crate) valid: bool,
}

/// Whether a chunk was copied to the COW device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copied {
    /// It could not be, or is not worth it any more.
    No,
    /// It was; it may be in a volatile cache.
    Cached,
    /// It was, and is on stable storage. C's core never says so.
    #[cfg(not(under_c_core))]
    Stable,
}

impl Copied {
    /// Whether it is on stable storage.
    pub(crate) fn is_stable(self) -> bool {
        match self {
            Self::No | Self::Cached => false,
            #[cfg(not(under_c_core))]
            Self::Stable => true,
        }
    }
}

/// How full a store is, in sectors of the COW device.
pub(crate) struct Usage {
    /// All there are.
    pub(crate) total: u64,
    /// In use, metadata included.
    pub(crate) allocated: u64,
    /// In use for metadata.
    pub(crate) metadata: u64,
}

/// What a store's part of a table line is made of.
pub(crate) struct TableLine {
    /// The chunk size in sectors; 0 for a store that was never loaded.
    pub(crate) chunk_sectors: u32,
    /// See [`NewStore::userspace_supports_overflow`].
    pub(crate) userspace_supports_overflow: bool,
}

/// An exception store.
///
/// See the [module documentation](super) for the order of calls. Calls may come from several
/// threads at once. [`Self::commit_exception`] is called by one thread at a time, except that after
/// a handover the next call can come while the last one returns from its callbacks.
///
/// `D` is who waits for a commit: a store works under any caller.
///
/// # Examples
///
/// The store without metadata, as the targets have it:
///
/// ```ignore
#[doc = include_str!("../../store/transient.rs")]
/// ```
#[vtable]
pub(crate) trait ExceptionStore<D: Completion>: Sized + Send + Sync + 'static {
    /// Makes a store, not yet loaded.
    ///
    /// `options` is what follows the type's letter in the table line, `None` if nothing does. An
    /// unknown option is an error, and the store logs which. May sleep.
    fn new(devices: Devices<'_>, options: Option<&CStr>) -> Result<NewStore<Self>>;

    /// Reads the metadata from the COW device, or writes that of an empty snapshot to a new one,
    /// and inserts each exception into `table`, whose errors are passed on.
    ///
    /// `chunk_sectors` is the chunk size of the table, in sectors, 0 if it names none. May sleep.
    fn read_metadata<T: ExceptionTable>(
        &self,
        devices: Devices<'_>,
        chunk_sectors: u32,
        table: &mut T,
    ) -> Result<Metadata>;

    /// Hands out consecutive chunks of the COW device to copy chunks to, from 1 to `max`; returns the
    /// first and how many. `ENOSPC` if there is none left.
    ///
    /// Called under a spinlock: must not sleep. For each chunk one [`Self::commit_exception`]
    /// follows, in the same order.
    fn prepare_exceptions(&self, devices: Devices<'_>, max: u32) -> Result<(u64, u32)>;

    /// Records an exception that was handed out and, if `copied` says so, copied.
    ///
    /// The store completes `done` exactly once, in process context and with none of its locks held,
    /// when the record is on stable storage or never will be. That may be in a later call, as long
    /// as one will come: while other exceptions were handed out and not yet committed. `more` is whether
    /// the caller has another one to commit right away; C's core never says so. May sleep, but all
    /// else that was copied for this snapshot waits meanwhile.
    fn commit_exception(
        &self,
        devices: Devices<'_>,
        exception: Exception,
        copied: Copied,
        more: bool,
        done: D,
    );

    /// Notes on the COW device that the snapshot is invalid, for good.
    ///
    /// Called with a mutex or semaphore of the snapshot held, perhaps by a thread that is
    /// submitting I/O itself: I/O issued from this thread may not begin before the call returns,
    /// so it must not be waited for. May sleep.
    fn drop_snapshot(&self, devices: Devices<'_>);

    /// How full the store is. Must not sleep.
    fn usage(&self, devices: Devices<'_>) -> Usage;

    /// Writes the store's part of a table line, beginning with a space. Must not sleep.
    fn table_line(&self, line: &TableLine, out: &mut dyn fmt::Write) -> fmt::Result;

    /// The last run of exceptions that are still to be merged, `None` if all are. May sleep.
    #[cfg(under_c_core)]
    fn prepare_merge(&self, _devices: Devices<'_>) -> Result<Option<Run>> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Shows `each` exceptions that are still to be merged, the last one of the list first: not the
    /// last `skip`, and at most `max`, but at least one if there is one. May sleep.
    #[cfg(not(under_c_core))]
    fn last_exceptions(
        &self,
        _devices: Devices<'_>,
        _skip: u64,
        _max: u32,
        _each: &mut dyn FnMut(Exception),
    ) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Forgets the last `count` exceptions, from the end of the list on: what is on the COW device is
    /// a list at any moment. Durable when it returns; after an error nobody knows which are forgotten.
    /// May sleep.
    fn commit_merge(&self, _devices: Devices<'_>, _count: u32) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

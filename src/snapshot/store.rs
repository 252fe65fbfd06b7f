// SPDX-License-Identifier: GPL-2.0-only

//! The exception stores that a table can ask for.

use super::snapshot::Recorded;
use crate::dm::exception_store::{
    Copied,
    Devices,
    ExceptionStore,
    ExceptionTable,
    Metadata,
    NewStore,
    TableLine,
    Usage, //
};
use crate::format::Exception;
use crate::store::{
    Figure,
    Persistent,
    Transient,
    NO_RECORDS, //
};
use kernel::{
    fmt,
    prelude::*, //
};

/// The store of a snapshot.
pub(crate) enum Store {
    /// `P`: survives a reboot.
    Persistent(Pin<KBox<Persistent<Recorded>>>),
    /// `N`: does not.
    Transient(Pin<KBox<Transient>>),
}

/// Calls a method of the store, whichever it is.
macro_rules! each {
    ($store:expr, $inner:ident => $call:expr) => {
        match $store {
            Store::Persistent($inner) => $call,
            Store::Transient($inner) => $call,
        }
    };
}

impl Store {
    /// Whether it records exceptions on the COW device.
    pub(super) fn has_records(&self) -> bool {
        matches!(self, Self::Persistent(_))
    }

    /// Makes the store that a table's word names, and says whether userspace supports overflow.
    ///
    /// The word begins with the type; what follows are the type's options. May sleep.
    pub(super) fn new(
        devices: Devices<'_>,
        kind: Kind,
        options: Option<&CStr>,
    ) -> Result<(Self, bool)> {
        Ok(match kind {
            Kind::Persistent => {
                let NewStore {
                    store,
                    userspace_supports_overflow,
                } = Persistent::new(devices, options)?;
                (Self::Persistent(store), userspace_supports_overflow)
            }
            Kind::Transient => {
                let NewStore { store, .. } =
                    <Transient as ExceptionStore<Recorded>>::new(devices, options)?;
                (Self::Transient(store), false)
            }
        })
    }

    /// See [`ExceptionStore::read_metadata`].
    pub(super) fn read_metadata<T: ExceptionTable>(
        &self,
        devices: Devices<'_>,
        chunk_sectors: u32,
        table: &mut T,
    ) -> Result<Metadata> {
        each!(self, store => ExceptionStore::<Recorded>::read_metadata(
            &**store, devices, chunk_sectors, table
        ))
    }

    /// See [`ExceptionStore::prepare_exceptions`].
    pub(super) fn prepare_exceptions(&self, devices: Devices<'_>, max: u32) -> Result<(u64, u32)> {
        each!(self, store => ExceptionStore::<Recorded>::prepare_exceptions(&**store, devices, max))
    }

    /// See [`ExceptionStore::commit_exception`].
    pub(super) fn commit_exception(
        &self,
        devices: Devices<'_>,
        exception: Exception,
        copied: Copied,
        more: bool,
        done: Recorded,
    ) {
        each!(self, store => store.commit_exception(devices, exception, copied, more, done));
    }

    /// See [`ExceptionStore::drop_snapshot`].
    pub(super) fn drop_snapshot(&self, devices: Devices<'_>) {
        each!(self, store => ExceptionStore::<Recorded>::drop_snapshot(&**store, devices));
    }

    /// See [`ExceptionStore::usage`].
    pub(super) fn usage(&self, devices: Devices<'_>) -> Usage {
        each!(self, store => ExceptionStore::<Recorded>::usage(&**store, devices))
    }

    /// See [`ExceptionStore::table_line`].
    pub(super) fn table_line(&self, line: &TableLine, out: &mut dyn fmt::Write) -> fmt::Result {
        each!(self, store => ExceptionStore::<Recorded>::table_line(&**store, line, out))
    }

    /// What there is to be said of the records: nothing of a store that has none.
    pub(super) fn records(&self) -> [Figure; 3] {
        match self {
            Self::Persistent(store) => store.records(),
            Self::Transient(_) => NO_RECORDS,
        }
    }

    /// Forgets how many commits there were.
    pub(super) fn forget_counts(&self) {
        if let Self::Persistent(store) = self {
            store.forget_counts();
        }
    }

    /// Whether the snapshot can be merged into its origin.
    pub(super) fn can_merge(&self) -> bool {
        matches!(self, Self::Persistent(_))
    }

    /// See [`ExceptionStore::last_exceptions`].
    pub(super) fn last_exceptions(
        &self,
        devices: Devices<'_>,
        skip: u64,
        max: u32,
        each: &mut dyn FnMut(Exception),
    ) -> Result {
        match self {
            Self::Persistent(store) => store.last_exceptions(devices, skip, max, each),
            Self::Transient(_) => Err(EINVAL),
        }
    }

    /// See [`ExceptionStore::commit_merge`].
    pub(super) fn commit_merge(&self, devices: Devices<'_>, count: u32) -> Result {
        match self {
            Self::Persistent(store) => store.commit_merge(devices, count),
            Self::Transient(_) => Err(EINVAL),
        }
    }
}

/// The types of stores.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `P`.
    Persistent,
    /// `N`.
    Transient,
}

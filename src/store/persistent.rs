// SPDX-License-Identifier: GPL-2.0-only

//! The store itself.

#[cfg(not(under_c_core))]
use super::counts::Figure;
use super::{
    commits::Commits,
    cow::{
        Committer,
        Cow, //
    },
    header::HeaderWriter,
    info,
    known::Known,
    metadata::{
        self,
        Allocator,
        Disk,
        Loaded,
        Ordered, //
    },
    platform::Kernel,
    report,
    table_receiver::TableReceiver,
    DM_MSG_PREFIX, //
};
#[cfg(under_c_core)]
use crate::dm::{
    debugfs::Shown,
    exception_store::Run, //
};
use crate::dm::{
    exception_store::{
        Completion,
        Copied,
        Devices,
        ExceptionStore,
        ExceptionTable,
        Metadata,
        NewStore,
        TableLine,
        Usage, //
    },
    io::{
        IoClient,
        Wiper, //
    },
    message::{
        dm_err,
        dm_warn, //
    },
    Device, //
};
use crate::format::{
    self,
    Exception, //
};
#[cfg(under_c_core)]
use kernel::sync::SetOnce;
use kernel::{
    fmt,
    new_mutex,
    prelude::*,

    sync::{
        Arc,
        Mutex, //
    }, //
};

/// The exception store `persistent`: exceptions are recorded on the COW device, and the snapshot
/// survives a reboot.
///
/// # Locks
///
/// [`Known::allocator`] is taken in the map path, under spinlocks of the caller's, and with none of the
/// others. `commits` is held while records are read or written, and never while a completion runs.
/// `wiper` and `header` have a lock each, which they hold during their I/O; that of `wiper` is taken
/// under `commits`.
#[pin_data]
pub(crate) struct Persistent<D: Completion> {
    io: Arc<IoClient>,
    header: HeaderWriter,
    #[pin]
    wiper: Wiper,
    known: Arc<Known>,
    /// `None` until the store is loaded. Shared with the thread that runs completions: see
    /// [`ExceptionStore::commit_exception`].
    commits: Arc<Mutex<Option<Commits<D>>>>,
    /// What is to be seen of a store that was loaded.
    #[cfg(under_c_core)]
    shown: SetOnce<Shown>,
}

impl<D: Completion> Persistent<D> {
    fn cow<'a>(&'a self, device: &'a Device) -> Cow<'a> {
        Cow {
            device,
            io: &self.io,
            wiper: &self.wiper,
            header: &self.header,
        }
    }

    /// Takes what was loaded into use.
    fn begin(&self, loaded: Loaded<<Cow<'_> as Disk>::Buffer>) -> Result<Metadata> {
        let (chunk, valid) = match loaded {
            Loaded::Invalid(chunk) => (chunk, false),
            Loaded::Valid {
                geometry,
                list,
                next,
            } => {
                let per_area = geometry.exceptions_per_area();
                let allocator = Allocator::new(geometry, next, list.records());
                let commits = Commits::new(Committer::new(list), per_area)?;
                // Nothing fails from here on: a store is loaded as a whole or not at all.
                *self.known.allocator.lock() = Some(allocator);
                *self.commits.lock() = Some(commits);
                (geometry.chunk_size(), true)
            }
        };
        Ok(Metadata {
            chunk_sectors: chunk.sectors(),
            valid,
        })
    }

    /// Calls `f` with the records, laid out for the devices as they are now; `None` if the store is
    /// not loaded. Sleeps, with `commits` held.
    fn with_commits<T>(
        &self,
        devices: Devices<'_>,
        f: impl FnOnce(&mut Commits<D>) -> T,
    ) -> Option<T> {
        let mut commits = self.commits.lock();
        let commits = (*commits).as_mut()?;
        let list = commits.committer.list();
        let cow = info(devices.cow);
        list.resize(cow.sectors, devices.origin.sectors(), cow.unit());
        Some(f(commits))
    }

    /// The same for what can fail, whose errors it logs.
    fn try_with_commits<T>(
        &self,
        devices: Devices<'_>,
        f: impl FnOnce(&mut Commits<D>) -> Result<T, metadata::Error<Error>>,
    ) -> Result<T> {
        self.with_commits(devices, f)
            .ok_or(EINVAL)?
            .map_err(|e| report(devices.cow, e))
    }

    /// Notes that an exception is being committed; returns how many are left that will be, and
    /// whether it is worth recording: not after the snapshot was dropped.
    fn count_commit(&self) -> (u64, bool) {
        match &mut *self.known.allocator.lock() {
            Some(allocator) => (allocator.commit(), !allocator.is_dropped()),
            None => (0, false),
        }
    }

    /// What there is to be said of the records. Any context but an interrupt.
    #[cfg(not(under_c_core))]
    pub(crate) fn records(&self) -> [Figure; 3] {
        self.known.records()
    }

    /// Forgets how many commits there were.
    #[cfg(not(under_c_core))]
    pub(crate) fn forget_counts(&self) {
        self.known.counts.reset();
    }

    /// Notes how many records there are, for [`ExceptionStore::usage`].
    fn count_records(&self, count: impl FnOnce(&mut Allocator)) {
        if let Some(allocator) = &mut *self.known.allocator.lock() {
            count(allocator);
        }
    }
}

#[vtable]
impl<D: Completion> ExceptionStore<D> for Persistent<D> {
    fn new(devices: Devices<'_>, options: Option<&CStr>) -> Result<NewStore<Self>> {
        let userspace_supports_overflow = match options.map(CStr::to_bytes) {
            None => false,
            Some(b"O" | b"o") => true,
            Some(_) => {
                dm_err!(
                    "{}: unsupported persistent store option {:?}, only \"O\" is known",
                    devices.cow,
                    options.unwrap_or_default()
                );
                return Err(EINVAL);
            }
        };
        let io = Arc::new(IoClient::new()?, GFP_KERNEL)?;
        let store = KBox::try_pin_init(
            try_pin_init!(Self {
                header: HeaderWriter::new(io.clone())?,
                wiper <- Wiper::new(io.clone()),
                io,
                known: Arc::pin_init(Known::new(), GFP_KERNEL)?,
                commits: Arc::pin_init(new_mutex!(None, "Persistent::commits"), GFP_KERNEL)?,
                #[cfg(under_c_core)]
                shown: SetOnce::new(),
            }? Error),
            GFP_KERNEL,
        )?;
        Ok(NewStore {
            store,
            userspace_supports_overflow,
        })
    }

    fn read_metadata<T: ExceptionTable>(
        &self,
        devices: Devices<'_>,
        chunk_sectors: u32,
        table: &mut T,
    ) -> Result<Metadata> {
        let (cow, origin) = (info(devices.cow), info(devices.origin));
        self.header.prepare(cow)?;
        let disk = self.cow(devices.cow);
        let mut receiver = TableReceiver(table);
        let loaded = if T::TAKES_ANY_ORDER {
            metadata::load::<_, Kernel>(&disk, cow, origin, chunk_sectors, &mut receiver)
        } else {
            let mut ordered = Ordered::<Kernel, _>::new(receiver);
            metadata::load::<_, Kernel>(&disk, cow, origin, chunk_sectors, &mut ordered)
        }
        .map_err(|e| report(devices.cow, e))?;
        let found = self.begin(loaded)?;
        if chunk_sectors != 0 && chunk_sectors != found.chunk_sectors {
            dm_warn!(
                "{}: chunk size {} in device metadata overrides table chunk size of {}",
                devices.cow,
                found.chunk_sectors,
                chunk_sectors
            );
        }
        // Under the targets the snapshot shows it. One that cannot be seen is no worse for it.
        #[cfg(under_c_core)]
        if let Ok(shown) = Shown::new(format_args!("cow-{}", devices.cow), self.known.clone()) {
            self.shown.populate(shown);
        }
        Ok(found)
    }

    fn prepare_exceptions(&self, devices: Devices<'_>, max: u32) -> Result<(u64, u32)> {
        let mut allocator = self.known.allocator.lock();
        let allocator = (*allocator).as_mut().ok_or(EINVAL)?;
        allocator.allocate(devices.cow.sectors(), max).ok_or(ENOSPC)
    }

    fn commit_exception(
        &self,
        devices: Devices<'_>,
        exception: Exception,
        copied: Copied,
        more: bool,
        done: D,
    ) {
        let (pending, wanted) = self.count_commit();
        // C's core commits in kcopyd's thread, in which nothing is copied meanwhile: all that is under way is
        // waited for. Ours has a thread for it: the next ones are copied while these are recorded.
        let awaited = if cfg!(under_c_core) || more {
            pending
        } else {
            0
        };
        let copied = if wanted { copied } else { Copied::No };
        let outcome = self.with_commits(devices, |commits| {
            let cow = self.cow(devices.cow);
            commits.commit(&cow, exception, copied, awaited, done)
        });
        // `None` while they go on waiting.
        let Some(outcome) = outcome.flatten() else {
            return;
        };
        if outcome.success {
            self.known.counts.note(outcome.commits());
        }
        self.count_records(|allocator| allocator.committed(outcome.commits(), outcome.records));
        // The completions may be all that keeps the store: after a handover nobody who drops it waits
        // for the thread of the table before.
        let commits = self.commits.clone();
        let emptied = outcome.complete();
        let mut commits = commits.lock();
        if let Some(commits) = &mut *commits {
            commits.put_back(emptied);
        }
    }

    fn drop_snapshot(&self, devices: Devices<'_>) {
        let header = match &mut *self.known.allocator.lock() {
            Some(allocator) => {
                allocator.drop_snapshot();
                format::Header {
                    valid: false,
                    chunk_sectors: allocator.geometry().chunk_size().sectors(),
                }
            }
            // Never loaded: there is nothing of ours on the device.
            None => return,
        };
        if let Err(e) = self.header.write(devices.cow, header) {
            dm_warn!(
                "{}: cannot mark the snapshot invalid, the header cannot be written: {:?}",
                devices.cow,
                e
            );
        }
    }

    fn usage(&self, devices: Devices<'_>) -> Usage {
        let allocator = self.known.allocator.lock();
        let sectors = |chunks: fn(&Allocator) -> u64| {
            allocator
                .as_ref()
                .map_or(0, |a| a.geometry().chunks(chunks(a), 0).sector)
        };
        Usage {
            total: devices.cow.sectors(),
            allocated: sectors(Allocator::allocated_chunks),
            metadata: sectors(Allocator::metadata_chunks),
        }
    }

    fn table_line(&self, line: &TableLine, out: &mut dyn fmt::Write) -> fmt::Result {
        let overflow = if line.userspace_supports_overflow {
            "O"
        } else {
            ""
        };
        write!(out, " P{overflow} {}", line.chunk_sectors)
    }

    #[cfg(under_c_core)]
    fn prepare_merge(&self, devices: Devices<'_>) -> Result<Option<Run>> {
        let cow = self.cow(devices.cow);
        let run =
            self.try_with_commits(devices, |commits| commits.committer.list().last_run(&cow))?;
        Ok(run.map(|run| Run {
            last: run.last,
            count: run.count,
        }))
    }

    #[cfg(not(under_c_core))]
    fn last_exceptions(
        &self,
        devices: Devices<'_>,
        skip: u64,
        max: u32,
        each: &mut dyn FnMut(Exception),
    ) -> Result {
        let cow = self.cow(devices.cow);
        self.try_with_commits(devices, |commits| {
            commits.committer.list().last(&cow, skip, max, each)
        })
    }

    fn commit_merge(&self, devices: Devices<'_>, count: u32) -> Result {
        let cow = self.cow(devices.cow);
        let records = self.try_with_commits(devices, |commits| {
            let list = commits.committer.list();
            list.remove_last(&cow, count)?;
            Ok(list.records())
        })?;
        self.count_records(|allocator| allocator.set_merged(records));
        Ok(())
    }
}

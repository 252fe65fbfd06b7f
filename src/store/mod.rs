// SPDX-License-Identifier: GPL-2.0-only

//! The persistent exception store.

mod cow;
mod header;
// Public for the host's tests, which compile these files too.
#[allow(unreachable_pub)]
mod metadata;
mod wiper;

use crate::dm::{
    exception_store::{
        Completion, Devices, ExceptionStore, Metadata, NewStore, Run, TableLine, Usage,
    },
    io::IoClient,
    message::{dm_err, dm_warn},
    unclean, Device, Workqueue,
};
use crate::format::{self, Exception, Fault};
use cow::{Chunks, Committer, Cow};
use header::Header;
use kernel::{
    c_str, fmt, new_mutex, new_spinlock,
    prelude::*,
    str::CStr,
    sync::{Arc, Mutex, SpinLock},
};
use metadata::{Allocator, DeviceInfo, Disk, Loaded};
use wiper::Wiper;

/// How many exceptions may wait to be written together, at most.
///
/// Each keeps writes to the origin waiting, so that more would only make those wait longer.
const MAX_WAITING: usize = 1024;

/// The exception store `persistent`: exceptions are recorded on the COW device, and the snapshot
/// survives a reboot.
///
/// # Locks
///
/// Each is taken alone, but for `header`, which is held while `queue` runs the header's write.
/// `allocator` is taken in the map path, under spinlocks of dm-snapshot's. `commits` is held while
/// records are read or written, and never while somebody is called back.
#[pin_data]
pub(crate) struct Persistent<D: Completion> {
    // Dropped first, which waits for what is queued.
    #[pin]
    queue: Workqueue,
    wiper: Arc<Wiper>,
    io: Arc<IoClient>,
    /// Apart from the records' memory, since a snapshot is invalidated while records are written.
    /// `None` until the store is loaded, as all below.
    #[pin]
    header: Mutex<Option<Header>>,
    #[pin]
    allocator: SpinLock<Option<Allocator>>,
    #[pin]
    commits: Mutex<Option<Commits<D>>>,
}

/// The records, and who waits for them.
struct Commits<D> {
    committer: Committer,
    /// Who waits for the next outcome: never more than its capacity.
    waiting: KVec<D>,
    /// Empty and of the same capacity, to take the place of `waiting` while that is called back.
    spare: KVec<D>,
}

impl<D: Completion> Persistent<D> {
    fn cow<'a>(&'a self, device: &'a Device) -> Cow<'a> {
        Cow {
            device,
            io: &self.io,
            queue: &self.queue,
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
                let capacity = MAX_WAITING.min(geometry.exceptions_per_area() as usize);
                *self.allocator.lock() = Some(Allocator::new(geometry, next, list.records()));
                *self.commits.lock() = Some(Commits {
                    committer: Committer::new(list),
                    waiting: KVec::with_capacity(capacity, GFP_KERNEL)?,
                    spare: KVec::with_capacity(capacity, GFP_KERNEL)?,
                });
                (geometry.chunk_size(), true)
            }
        };
        Ok(Metadata {
            chunk_sectors: chunk.sectors(),
            valid,
        })
    }

    /// Calls `f` with the records, laid out for the devices as they are now.
    fn with_commits<T>(
        &self,
        devices: Devices<'_>,
        f: impl FnOnce(&mut Commits<D>) -> Result<T, metadata::Error<Error>>,
    ) -> Result<T> {
        let mut commits = self.commits.lock();
        let commits = (*commits).as_mut().ok_or(EINVAL)?;
        let list = commits.committer.list();
        let cow = info(devices.cow);
        list.resize(cow.sectors, devices.origin.sectors(), cow.unit());
        f(commits).map_err(|e| report(devices.cow, e))
    }
}

/// Logs what is wrong with the metadata on `cow`, and says it as an error number.
fn report(cow: &Device, error: metadata::Error<Error>) -> Error {
    let fault = match error {
        metadata::Error::Io(e) => return e,
        metadata::Error::Fault(fault) => fault,
    };
    dm_err!("{}: {}", cow, fault);
    match fault {
        Fault::NoMemory => ENOMEM,
        Fault::Magic(_) => ENXIO,
        Fault::Version(_)
        | Fault::ChunkSize(..)
        | Fault::TableChunkSize(..)
        | Fault::CowTooSmall { .. } => EINVAL,
        Fault::AreaBeyondDevice { .. }
        | Fault::NewIsMetadata(..)
        | Fault::NewBeyondDevice(..)
        | Fault::NewUsedTwice(..)
        | Fault::OldBeyondOrigin(..)
        | Fault::Missing(_) => unclean(),
    }
}

fn info(device: &Device) -> DeviceInfo {
    DeviceInfo {
        sectors: device.sectors(),
        logical_block: device.logical_block_size(),
        physical_block: device.physical_block_size(),
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
        let wiper = Wiper::new(io.clone())?;
        let store = KBox::try_pin_init(
            try_pin_init!(Self {
                queue <- Workqueue::new(c_str!("ksnaphd")),
                wiper,
                io,
                header <- new_mutex!(None, "Persistent::header"),
                allocator <- new_spinlock!(None, "Persistent::allocator"),
                commits <- new_mutex!(None, "Persistent::commits"),
            }? Error),
            GFP_KERNEL,
        )?;
        Ok(NewStore {
            store,
            userspace_supports_overflow,
        })
    }

    fn read_metadata(
        &self,
        devices: Devices<'_>,
        chunk_sectors: u32,
        add: &mut dyn FnMut(Exception) -> Result,
    ) -> Result<Metadata> {
        let (cow, origin) = (info(devices.cow), info(devices.origin));
        *self.header.lock() = Some(Header::new(cow)?);
        let loaded =
            metadata::load::<_, Chunks>(&self.cow(devices.cow), cow, origin, chunk_sectors, add)
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
        Ok(found)
    }

    fn prepare_exception(&self, devices: Devices<'_>) -> Result<u64> {
        let mut allocator = self.allocator.lock();
        let allocator = (*allocator).as_mut().ok_or(EINVAL)?;
        allocator.allocate(devices.cow.sectors()).ok_or(ENOSPC)
    }

    fn commit_exception(&self, devices: Devices<'_>, exception: Exception, copied: bool, done: D) {
        let (pending, dropped) = match &mut *self.allocator.lock() {
            Some(allocator) => (allocator.commit(), allocator.is_dropped()),
            None => (0, true),
        };
        let outcome = self.with_commits(devices, |commits| {
            let refused = commits.waiting.push_within_capacity(done).err();
            let full = commits.waiting.len() == commits.waiting.capacity();
            let outcome = commits.committer.commit(
                &self.cow(devices.cow),
                exception,
                copied && !dropped,
                pending,
                !full,
                |e| {
                    let e = report(devices.cow, e);
                    dm_err!("{}: cannot write records: {:?}", devices.cow, e);
                },
            );
            let records = commits.committer.list().records();
            let due = outcome.map(|success| {
                let spare = core::mem::take(&mut commits.spare);
                (success, core::mem::replace(&mut commits.waiting, spare))
            });
            // There is no room for a moment when a handover lets a second thread in before the first
            // has put `spare` back; `full` then, so that the outcome is there to be told.
            Ok((due, records, refused))
        });
        let Ok((Some((success, mut due)), records, refused)) = outcome else {
            return;
        };
        if let Some(allocator) = &mut *self.allocator.lock() {
            allocator.set_records(records);
        }
        for done in due.drain_all() {
            done.complete(success);
        }
        if let Some(refused) = refused {
            refused.0.complete(success);
        }
        if let Some(commits) = &mut *self.commits.lock() {
            commits.spare = due;
        }
    }

    fn drop_snapshot(&self, devices: Devices<'_>) {
        let header = match &mut *self.allocator.lock() {
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
        if let Err(e) = self.cow(devices.cow).write_header(header) {
            dm_warn!(
                "{}: cannot mark the snapshot invalid, the header cannot be written: {:?}",
                devices.cow,
                e
            );
        }
    }

    fn usage(&self, devices: Devices<'_>) -> Usage {
        let allocator = self.allocator.lock();
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

    fn prepare_merge(&self, devices: Devices<'_>) -> Result<Option<Run>> {
        self.with_commits(devices, |commits| {
            let run = commits.committer.list().last_run(&self.cow(devices.cow))?;
            Ok(run.map(|run| Run {
                last: run.last,
                count: run.count,
            }))
        })
    }

    fn commit_merge(&self, devices: Devices<'_>, count: u32) -> Result {
        let records = self.with_commits(devices, |commits| {
            let list = commits.committer.list();
            list.remove_last(&self.cow(devices.cow), count)?;
            Ok(list.records())
        })?;
        if let Some(allocator) = &mut *self.allocator.lock() {
            allocator.set_merged(records);
        }
        Ok(())
    }
}

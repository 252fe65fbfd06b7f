// SPDX-License-Identifier: GPL-2.0-only

//! The store without metadata.

use crate::dm::exception_store::{
    Completion,
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
use kernel::{
    fmt,
    new_spinlock,
    prelude::*,
    sync::SpinLock, //
};

/// The exception store `transient`: what was copied where is known in memory only, and the snapshot
/// is gone with its table.
#[pin_data]
pub(crate) struct Transient {
    #[pin]
    next: SpinLock<Next>,
}

/// The next sectors to hand out.
struct Next {
    /// Sectors of a chunk; 0 until the store is loaded.
    chunk_sectors: u32,
    /// Sectors handed out, from the first of the COW device on.
    sectors: u64,
}

#[vtable]
impl<D: Completion> ExceptionStore<D> for Transient {
    fn new(_devices: Devices<'_>, _options: Option<&CStr>) -> Result<NewStore<Self>> {
        let store = KBox::pin_init(
            pin_init!(Self {
                next <- new_spinlock!(Next { chunk_sectors: 0, sectors: 0 }, "Transient::next"),
            }),
            GFP_KERNEL,
        )?;
        Ok(NewStore {
            store,
            userspace_supports_overflow: false,
        })
    }

    fn read_metadata<T: ExceptionTable>(
        &self,
        _devices: Devices<'_>,
        chunk_sectors: u32,
        table: &mut T,
    ) -> Result<Metadata> {
        if chunk_sectors != 0 {
            table.begin(chunk_sectors)?;
        }
        self.next.lock().chunk_sectors = chunk_sectors;
        Ok(Metadata {
            chunk_sectors,
            valid: true,
        })
    }

    fn prepare_exceptions(&self, devices: Devices<'_>, max: u32) -> Result<(u64, u32)> {
        let mut next = self.next.lock();
        let chunk = u64::from(next.chunk_sectors);
        let free = devices.cow.sectors().saturating_sub(next.sectors);
        // Not loaded: there is nothing to hand out.
        let count = free.checked_div(chunk).unwrap_or(0).min(max.into());
        if count == 0 {
            return Err(ENOSPC);
        }
        let first = next.sectors / chunk;
        next.sectors += count * chunk;
        // CAST: At most `max`.
        Ok((first, count as u32))
    }

    fn commit_exception(&self, _: Devices<'_>, _: Exception, copied: Copied, _: bool, done: D) {
        done.complete(copied != Copied::No);
    }

    fn drop_snapshot(&self, _devices: Devices<'_>) {}

    fn usage(&self, devices: Devices<'_>) -> Usage {
        Usage {
            total: devices.cow.sectors(),
            allocated: self.next.lock().sectors,
            metadata: 0,
        }
    }

    fn table_line(&self, line: &TableLine, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(out, " N {}", line.chunk_sectors)
    }
}

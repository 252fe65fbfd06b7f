// SPDX-License-Identifier: GPL-2.0-only

// The example of `ExceptionStore`'s documentation. Every build compiles it, so that it stays true;
// nothing uses it, so that nothing of it is left in a module.

use crate::dm::exception_store::{
    Completion, Devices, ExceptionStore, Metadata, NewStore, TableLine, Usage,
};
use crate::format::Exception;
use kernel::{fmt, new_spinlock, prelude::*, str::CStr, sync::SpinLock};

/// A store that records nothing: its snapshots are gone with their tables.
#[pin_data]
struct Transient {
    #[pin]
    chunks: SpinLock<Chunks>,
}

struct Chunks {
    sectors: u32,
    handed_out: u64,
}

impl Chunks {
    fn allocated(&self) -> u64 {
        self.handed_out * u64::from(self.sectors)
    }
}

#[vtable]
impl<D: Completion> ExceptionStore<D> for Transient {
    fn new(_: Devices<'_>, options: Option<&CStr>) -> Result<NewStore<Self>> {
        if options.is_some() {
            return Err(EINVAL);
        }
        let chunks = Chunks {
            sectors: 32,
            handed_out: 0,
        };
        let store = KBox::pin_init(
            pin_init!(Self {
                chunks <- new_spinlock!(chunks, "Transient::chunks"),
            }),
            GFP_KERNEL,
        )?;
        Ok(NewStore {
            store,
            userspace_supports_overflow: false,
        })
    }

    fn read_metadata(
        &self,
        _: Devices<'_>,
        chunk_sectors: u32,
        begin: &mut dyn FnMut(u32) -> Result,
        _: &mut dyn FnMut(Exception) -> Result,
    ) -> Result<Metadata> {
        let mut chunks = self.chunks.lock();
        if chunk_sectors != 0 {
            chunks.sectors = chunk_sectors;
        }
        begin(chunks.sectors)?;
        Ok(Metadata {
            chunk_sectors: chunks.sectors,
            valid: true,
        })
    }

    fn prepare_exceptions(&self, devices: Devices<'_>, _max: u32) -> Result<(u64, u32)> {
        let mut chunks = self.chunks.lock();
        if chunks.allocated() + u64::from(chunks.sectors) > devices.cow.sectors() {
            return Err(ENOSPC);
        }
        let chunk = chunks.handed_out;
        chunks.handed_out += 1;
        Ok((chunk, 1))
    }

    fn commit_exception(&self, _: Devices<'_>, _: Exception, copied: bool, done: D) {
        done.complete(copied);
    }

    fn drop_snapshot(&self, _: Devices<'_>) {}

    fn usage(&self, devices: Devices<'_>) -> Usage {
        Usage {
            total: devices.cow.sectors(),
            allocated: self.chunks.lock().allocated(),
            metadata: 0,
        }
    }

    fn table_line(&self, line: &TableLine, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(out, " N {}", line.chunk_sectors)
    }
}

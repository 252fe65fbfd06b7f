// SPDX-License-Identifier: GPL-2.0-only

//! Open block devices.

use core::fmt;
use kernel::{
    bindings,
    types::Opaque, //
};
#[cfg(not(under_c_core))]
use {
    super::shim,
    kernel::{
        error::to_result,
        prelude::*, //
    }, //
};

/// How a device is made to keep what was written.
#[cfg(not(under_c_core))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeping {
    /// It has no volatile cache.
    Itself,
    /// It can write past its volatile cache.
    ByFua,
    /// Its volatile cache has to be flushed.
    ByFlush,
}

/// A block device that is open while it is borrowed.
///
/// Wraps `struct block_device`. Printed, it is the device's `major:minor`.
///
/// # Invariants
///
/// The block device is open, so that it has a queue.
#[repr(transparent)]
pub(crate) struct BlockDevice(Opaque<bindings::block_device>);

// SAFETY: What is read below may be read by any thread.
unsafe impl Sync for BlockDevice {}

impl BlockDevice {
    /// # Safety
    ///
    /// `ptr` must be a block device that stays open for `'a`.
    pub(super) unsafe fn from_raw<'a>(ptr: *mut bindings::block_device) -> &'a Self {
        // SAFETY: `BlockDevice` is `repr(transparent)`, and the caller vouches for the pointee.
        // INVARIANT: The caller vouches for it.
        unsafe { &*ptr.cast() }
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::block_device {
        self.0.get()
    }

    fn limits(&self) -> *const bindings::queue_limits {
        // SAFETY: By the type's invariant there is a queue; only the address of its limits is
        // taken.
        unsafe { &raw const (*(*self.as_ptr()).bd_queue).limits }
    }

    /// A number that tells the device from all others that are open.
    #[cfg(not(under_c_core))]
    pub(crate) fn id(&self) -> usize {
        self.as_ptr() as usize
    }

    /// The device's number, a `dev_t`.
    pub(super) fn number(&self) -> u32 {
        // SAFETY: By the type's invariant the device is open; `bd_dev` never changes.
        unsafe { (*self.as_ptr()).bd_dev }
    }

    /// Makes durable what the device completed before. Sleeps.
    #[cfg(not(under_c_core))]
    pub(crate) fn flush(&self) -> Result {
        // SAFETY: By the type's invariant the device is open.
        to_result(unsafe { shim::dm_shim_bdev_flush(self.as_ptr()) })
    }

    /// How the device is made to keep what was written. An administrator may change it.
    #[cfg(not(under_c_core))]
    pub(crate) fn keeping(&self) -> Keeping {
        // SAFETY: By the type's invariant the device is open.
        let (cache, fua) = unsafe {
            (
                shim::dm_shim_bdev_has_cache(self.as_ptr()),
                shim::dm_shim_bdev_has_fua(self.as_ptr()),
            )
        };
        match (cache, fua) {
            (false, _) => Keeping::Itself,
            (true, true) => Keeping::ByFua,
            (true, false) => Keeping::ByFlush,
        }
    }

    /// The device's size in sectors. It may change while the device is open.
    pub(crate) fn sectors(&self) -> u64 {
        // SAFETY: By the type's invariant the device is open. The field may change meanwhile,
        // hence the volatile read; no lock makes it hold still.
        unsafe { (&raw const (*self.as_ptr()).bd_nr_sectors).read_volatile() }
    }

    /// The device's logical block in bytes: the unit below which it takes no I/O.
    pub(crate) fn logical_block_size(&self) -> u32 {
        // SAFETY: `limits` points into the queue of an open device; see `sectors` for the read.
        unsafe { (&raw const (*self.limits()).logical_block_size).read_volatile() }
    }

    /// The device's physical block in bytes: the unit it writes without reading first.
    pub(crate) fn physical_block_size(&self) -> u32 {
        // SAFETY: `limits` points into the queue of an open device; see `sectors` for the read.
        unsafe { (&raw const (*self.limits()).physical_block_size).read_volatile() }
    }
}

impl fmt::Display for BlockDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dev = self.number();
        // `MINORBITS` is 20.
        write!(f, "{}:{}", dev >> 20, dev & ((1 << 20) - 1))
    }
}

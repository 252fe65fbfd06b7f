// SPDX-License-Identifier: GPL-2.0-only

//! The devices of a table.

use super::ffi;
use core::fmt;
use core::ptr::addr_of;
use kernel::{bindings, fs::File, sync::aref::ARef, types::Opaque};

/// A device that a table opened.
///
/// Wraps `struct dm_dev`. Printed, it is the device's `major:minor`.
///
/// # Invariants
///
/// The `struct dm_dev` came from `dm_get_device()` and was not put yet, so its `bdev` and
/// `bdev_file` are valid and open.
#[repr(transparent)]
pub(crate) struct Device(Opaque<ffi::dm_dev>);

// SAFETY: device-mapper does not change a `struct dm_dev` while a table holds it, and what is read
// below may be read from any thread.
unsafe impl Sync for Device {}

impl Device {
    /// # Safety
    ///
    /// `ptr` must come from `dm_get_device()` and stay unput for `'a`.
    pub(super) unsafe fn from_raw<'a>(ptr: *mut ffi::dm_dev) -> &'a Self {
        // SAFETY: `Device` is `repr(transparent)`, and the caller vouches for the pointee.
        // INVARIANT: The caller vouches for it.
        unsafe { &*ptr.cast() }
    }

    pub(super) fn bdev(&self) -> *mut bindings::block_device {
        // SAFETY: By the type's invariant, the `struct dm_dev` is valid.
        unsafe { (*self.0.get()).bdev }
    }

    fn limits(&self) -> *const bindings::queue_limits {
        // SAFETY: By the type's invariant the device is open, so it has a queue; only the address
        // of the limits is taken.
        unsafe { addr_of!((*(*self.bdev()).bd_queue).limits) }
    }

    /// The device's size in sectors. It may change while the device is open.
    pub(crate) fn sectors(&self) -> u64 {
        // SAFETY: By the type's invariant the device is open. The field may change meanwhile,
        // hence the volatile read; no lock makes it hold still.
        unsafe { addr_of!((*self.bdev()).bd_nr_sectors).read_volatile() }
    }

    /// The device's logical block in bytes: the unit below which it takes no I/O.
    pub(crate) fn logical_block_size(&self) -> u32 {
        // SAFETY: `limits` points into the queue of an open device; see `sectors` for the read.
        unsafe { addr_of!((*self.limits()).logical_block_size).read_volatile() }
    }

    /// The device's physical block in bytes: the unit it writes without reading first.
    pub(crate) fn physical_block_size(&self) -> u32 {
        // SAFETY: `limits` points into the queue of an open device; see `sectors` for the read.
        unsafe { addr_of!((*self.limits()).physical_block_size).read_volatile() }
    }

    /// Whether the device can write zeroes without being sent any.
    pub(crate) fn writes_zeroes(&self) -> bool {
        // SAFETY: `limits` points into the queue of an open device; see `sectors` for the read.
        unsafe { addr_of!((*self.limits()).max_write_zeroes_sectors).read_volatile() != 0 }
    }

    /// Takes a reference that keeps the device open after the table let go of it.
    pub(crate) fn hold(&self) -> HeldDevice {
        // SAFETY: By the type's invariant `bdev_file` is valid and open. Nobody reaches it through
        // a file descriptor, so there is no `fdget_pos()` on it.
        let file = unsafe { File::from_raw_file((*self.0.get()).bdev_file) };
        HeldDevice {
            // INVARIANT: `bdev` is what `bdev_file` opened: `dm_get_table_device()` sets both
            // from the same `bdev_file_open_by_dev()`.
            bdev: self.bdev(),
            _file: file.into(),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: By the type's invariant the device is open; `bd_dev` never changes.
        let dev = unsafe { (*self.bdev()).bd_dev };
        // `MINORBITS` is 20.
        write!(f, "{}:{}", dev >> 20, dev & ((1 << 20) - 1))
    }
}

/// A device kept open by a reference to its file.
///
/// # Invariants
///
/// `bdev` is the block device that `_file` holds open.
pub(crate) struct HeldDevice {
    bdev: *mut bindings::block_device,
    _file: ARef<File>,
}

// SAFETY: A reference to a file may be given up by any thread, and the block device may be used by
// any.
unsafe impl Send for HeldDevice {}

impl HeldDevice {
    pub(super) fn bdev(&self) -> *mut bindings::block_device {
        self.bdev
    }
}

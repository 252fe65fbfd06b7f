// SPDX-License-Identifier: GPL-2.0-only

//! The devices of a table.

use super::{
    ffi,
    BlockDevice, //
};
use core::fmt;
use core::ops::Deref;
use kernel::{
    bindings,
    fs::File,
    sync::aref::ARef,
    types::Opaque, //
};

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

    /// Takes a reference that keeps the device open after the table let go of it.
    pub(crate) fn hold(&self) -> HeldDevice {
        // SAFETY: By the type's invariant `bdev_file` is valid and open. Nobody reaches it through
        // a file descriptor, so there is no `fdget_pos()` on it.
        let file = unsafe { File::from_raw_file((*self.0.get()).bdev_file) };
        HeldDevice {
            // INVARIANT: `bdev` is what `bdev_file` opened: `dm_get_table_device()` sets both
            // from the same `bdev_file_open_by_dev()`.
            bdev: self.as_ptr(),
            _file: file.into(),
        }
    }
}

impl Deref for Device {
    type Target = BlockDevice;

    fn deref(&self) -> &BlockDevice {
        // SAFETY: By the type's invariant, `bdev` is valid, and open while `self` is borrowed.
        unsafe { BlockDevice::from_raw((*self.0.get()).bdev) }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
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

impl Deref for HeldDevice {
    type Target = BlockDevice;

    fn deref(&self) -> &BlockDevice {
        // SAFETY: By the type's invariant, `_file` holds the block device open while `self` lives.
        unsafe { BlockDevice::from_raw(self.bdev) }
    }
}

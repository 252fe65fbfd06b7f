// SPDX-License-Identifier: GPL-2.0-only

//! A target's entry of a table.

use super::TargetHandle;
use crate::dm::{
    owned_device::{
        OpenDevices,
        OwnedDevice, //
    },
    shim::{
        self,
        dm_target, //
    }, //
};
use core::ptr::NonNull;
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// A target's entry of a table that is being made, or with which the device is being resumed.
///
/// Wraps `struct dm_target`.
///
/// # Invariants
///
/// `ti` is a target of this module whose `ctr` or `resume` is running, `devices` is there if it is
/// `ctr`.
pub(crate) struct TargetTable<'a> {
    ti: NonNull<dm_target>,
    handle: &'a Arc<TargetHandle>,
    devices: Option<&'a mut OpenDevices>,
}

impl<'a> TargetTable<'a> {
    /// # Safety
    ///
    /// `ti` must be a target whose `ctr`, or if there are no `devices` whose `resume`, runs for
    /// `'a`.
    pub(super) unsafe fn new(
        ti: NonNull<dm_target>,
        handle: &'a Arc<TargetHandle>,
        devices: Option<&'a mut OpenDevices>,
    ) -> Self {
        // INVARIANT: The caller vouches for it.
        Self {
            ti,
            handle,
            devices,
        }
    }

    fn ti(&self) -> *mut dm_target {
        self.ti.as_ptr()
    }

    /// Where on the mapped device the target begins, in sectors.
    pub(crate) fn begin(&self) -> u64 {
        // SAFETY: By the type's invariant the target is live.
        unsafe { shim::dm_shim_begin(self.ti()) }
    }

    /// How long the target is, in sectors.
    pub(crate) fn len(&self) -> u64 {
        // SAFETY: By the type's invariant the target is live.
        unsafe { shim::dm_shim_len(self.ti()) }
    }

    /// How long the table is, in sectors. While it is being made only the targets before this one
    /// count.
    pub(crate) fn table_size(&self) -> u64 {
        // SAFETY: By the type's invariant the target is live, and so is its table.
        unsafe { shim::dm_shim_table_size(self.ti()) }
    }

    /// Whether the device will only be read.
    pub(crate) fn is_read_only(&self) -> bool {
        // SAFETY: By the type's invariant the target is live, and so is its table.
        !unsafe { shim::dm_shim_table_writable(self.ti()) }
    }

    /// Opens a device by its path or its `major:minor`, to read and perhaps to `write`. Only while
    /// the table is made. May sleep.
    ///
    /// Fails with `EEXIST` if the target has opened it already. All targets of one table must open a
    /// device alike: when a later one opens it to write as well, device-mapper opens it anew and
    /// closes it for the others.
    pub(crate) fn get_device(&mut self, path: &CStr, write: bool) -> Result<OwnedDevice> {
        let ti = self.ti();
        let devices = self.devices.as_deref_mut().ok_or(EINVAL)?;
        // SAFETY: By the type's invariant the constructor of `ti` is running, whose devices these
        // are.
        unsafe { devices.open(ti, path, write) }
    }

    /// Says why the table cannot be made; it is logged.
    pub(crate) fn set_error(&mut self, error: &'static CStr) {
        // SAFETY: By the type's invariant the target is live; the text lives for ever.
        unsafe { shim::dm_shim_set_error(self.ti(), error.as_char_ptr()) }
    }

    /// The device has a volatile cache, whether those that it uses have one or not: it is sent flushes.
    pub(crate) fn set_flush_supported(&mut self) {
        // SAFETY: By the type's invariant the target is valid, and its table is being made by this thread.
        unsafe { shim::dm_shim_set_flush_supported(self.ti()) }
    }

    /// How many bios the target wants for each flush; none, and it gets no flushes.
    pub(crate) fn set_num_flush_bios(&mut self, count: u32) {
        // SAFETY: By the type's invariant the target is live, and only we change it now.
        unsafe { shim::dm_shim_set_num_flush_bios(self.ti(), count) }
    }

    /// How many bios the target wants for each discard; none, and it gets no discards. Of several,
    /// none can be accepted in part.
    pub(crate) fn set_num_discard_bios(&mut self, count: u32) {
        // SAFETY: By the type's invariant the target is live, and only we change it now.
        unsafe { shim::dm_shim_set_num_discard_bios(self.ti(), count) }
    }

    /// Bios are cut at multiples of this many sectors from the target's beginning; 0: they are
    /// not.
    pub(crate) fn set_max_io_len(&mut self, sectors: u32) {
        // SAFETY: By the type's invariant the target is live; device-mapper reads the field once
        // for each bio.
        unsafe { shim::dm_shim_set_max_io_len(self.ti(), sectors) }
    }

    /// A handle of the target for others, which outlives it.
    pub(crate) fn handle(&self) -> Arc<TargetHandle> {
        self.handle.clone()
    }
}

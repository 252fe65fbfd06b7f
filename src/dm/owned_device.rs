// SPDX-License-Identifier: GPL-2.0-only

//! The devices that a target opened.

use super::{
    device::Device,
    ffi::dm_dev,
    shim::{
        self,
        dm_target, //
    }, //
};
use core::ops::Deref;
use core::ptr::NonNull;
use kernel::{
    error::to_result,
    prelude::*,

    sync::{
        Arc,
        Completion, //
    }, //
};

/// A device that a target opened with its table.
///
/// The table keeps it open until the target was dropped and nobody has an [`OwnedDevice`] or a
/// [`DeviceRef`] of it any more: the table's end waits for that.
pub(crate) struct OwnedDevice(DeviceRef);

impl OwnedDevice {
    /// Another handle, for instance for I/O that is under way.
    pub(crate) fn share(&self) -> DeviceRef {
        self.0.clone()
    }
}

impl Deref for OwnedDevice {
    type Target = Device;

    fn deref(&self) -> &Device {
        &self.0
    }
}

/// A handle that keeps a target's device open. May be dropped in any context.
///
/// # Invariants
///
/// `device` is one of an [`OpenDevices`], which keeps it open as long as somebody has `_use`.
#[derive(Clone)]
pub(crate) struct DeviceRef {
    device: NonNull<dm_dev>,
    _use: Arc<Use>,
}

// SAFETY: The device may be used by any thread, and `_use` may be dropped by any.
unsafe impl Send for DeviceRef {}
// SAFETY: See `Device`, which is all that a shared reference gives access to.
unsafe impl Sync for DeviceRef {}

impl Deref for DeviceRef {
    type Target = Device;

    fn deref(&self) -> &Device {
        // SAFETY: By the type's invariant the device is open while `self` lives.
        unsafe { Device::from_raw(self.device.as_ptr()) }
    }
}

/// Is there as long as somebody uses devices of a target. Its end completes `over`, which the end
/// of the table waits for.
struct Use {
    over: Arc<Completion>,
}

impl Drop for Use {
    fn drop(&mut self) {
        self.over.complete_all();
    }
}

/// All devices that a target opened.
///
/// device-mapper takes no lock when it opens and closes a table's devices. So that happens only
/// while the table is made, and when it goes away.
pub(super) struct OpenDevices {
    /// Each with its number.
    opened: KVec<(u32, NonNull<dm_dev>)>,
    in_use: Arc<Use>,
    over: Arc<Completion>,
}

// SAFETY: The pointers are used only by whoever makes or ends the table.
unsafe impl Send for OpenDevices {}
// SAFETY: A shared reference gives access to nothing.
unsafe impl Sync for OpenDevices {}

impl OpenDevices {
    pub(super) fn new() -> Result<Self> {
        let over = Arc::pin_init(Completion::new(), GFP_KERNEL)?;
        let in_use = Arc::new(Use { over: over.clone() }, GFP_KERNEL)?;
        Ok(Self {
            opened: KVec::new(),
            in_use,
            over,
        })
    }

    /// Opens a device. Fails with `EEXIST` if it was opened before: device-mapper might put another
    /// `struct dm_dev` in the place of the one that was handed out then.
    ///
    /// # Safety
    ///
    /// `ti` must be a target whose constructor is running, and always the same.
    pub(super) unsafe fn open(
        &mut self,
        ti: *mut dm_target,
        path: &CStr,
        write: bool,
    ) -> Result<OwnedDevice> {
        self.opened.reserve(1, GFP_KERNEL)?;
        let mut number = 0;
        // SAFETY: `path` is a string, and `number` is ours.
        to_result(unsafe { shim::dm_shim_device_number(path.as_char_ptr(), &mut number) })?;
        if self.opened.iter().any(|(other, _)| *other == number) {
            return Err(EEXIST);
        }
        let mut device = core::ptr::null_mut();
        // SAFETY: The caller vouches for `ti`; `path` is a string, and `device` is ours.
        to_result(unsafe { shim::dm_shim_get_device(ti, path.as_char_ptr(), write, &mut device) })?;
        let device = NonNull::new(device).ok_or(ENXIO)?;
        self.opened.push((number, device), GFP_KERNEL)?;
        // INVARIANT: Opened just now, and closed only by `close`, which waits for all uses.
        Ok(OwnedDevice(DeviceRef {
            device,
            _use: self.in_use.clone(),
        }))
    }

    /// Waits until nobody uses the devices, and closes them.
    ///
    /// # Safety
    ///
    /// `ti` must be the target that they were opened with, and its constructor or destructor must
    /// be running.
    pub(super) unsafe fn close(self, ti: *mut dm_target) {
        drop(self.in_use);
        self.over.wait_for_completion();
        for (_, device) in self.opened {
            // SAFETY: The caller vouches for `ti`. The device was opened with it, and nobody has
            // a handle of it any more.
            unsafe { shim::dm_shim_put_device(ti, device.as_ptr()) };
        }
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! Making a target known to device-mapper.

use super::{
    adapter::Adapter,
    Target, //
};
use crate::dm::{
    message::dm_err,
    shim::{
        self,
        dm_shim_type, //
    }, //
};
use crate::DM_MSG_PREFIX;
use core::marker::PhantomData;
use core::ptr::NonNull;
use kernel::{
    error::to_result,
    prelude::*, //
};

/// A name under which device-mapper finds the target `T`, until it is dropped.
///
/// Tables that use the target pin the module, so that a registration in a module's state cannot go
/// away under them.
///
/// # Invariants
///
/// `target_type` is registered.
#[pin_data(PinnedDrop)]
pub(crate) struct Registration<T: Target> {
    target_type: NonNull<dm_shim_type>,
    _target: PhantomData<T>,
}

// SAFETY: device-mapper accesses a registered type under its own lock; nothing here gives access to
// it.
unsafe impl<T: Target> Sync for Registration<T> {}
// SAFETY: A type may be unregistered by any thread.
unsafe impl<T: Target> Send for Registration<T> {}

impl<T: Target> Registration<T> {
    /// Registers the target; `EBUSY` if there is one of that name, which is then logged. May sleep.
    pub(crate) fn new(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // INVARIANT: Registered here.
            target_type: Self::register(module)?,
            _target: PhantomData,
        }? Error)
    }

    fn register(module: &'static ThisModule) -> Result<NonNull<dm_shim_type>> {
        let mut error = 0;
        // SAFETY: Name, version and functions live as long as the module, which stays loaded while
        // it has something registered. The functions are those that `Adapter` describes.
        let target_type = unsafe {
            shim::dm_shim_register(
                T::NAME.as_char_ptr(),
                T::VERSION.as_ptr(),
                module.as_ptr(),
                Adapter::<T>::OPS,
                &mut error,
            )
        };
        if error == EBUSY.to_errno() {
            dm_err!(
                "target {:?} belongs to the kernel's own dm-snapshot: deactivate all snapshots and \
                 their origins (lvchange -an), then modprobe -r dm_snapshot, then modprobe dm-snapshot",
                T::NAME
            );
        }
        to_result(error)?;
        NonNull::new(target_type).ok_or(ENOMEM)
    }
}

#[pinned_drop]
impl<T: Target> PinnedDrop for Registration<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type's invariant the type is registered. No table uses it: each would pin
        // the module, which then is not unloaded.
        unsafe { shim::dm_shim_unregister(self.target_type.as_ptr()) }
    }
}

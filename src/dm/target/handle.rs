// SPDX-License-Identifier: GPL-2.0-only

//! What others may know of a target.

use crate::dm::shim::{
    self,
    dm_target, //
};
use core::ptr::NonNull;
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};

/// A target as seen by what outlives it: of no effect when the target is gone.
///
/// Wraps `struct dm_target`.
#[pin_data]
pub(crate) struct TargetHandle {
    #[pin]
    target: Mutex<Option<Live>>,
}

/// # Invariants
///
/// The target's destructor has not got past [`TargetHandle::kill`], which takes this away.
struct Live(NonNull<dm_target>);

// SAFETY: What is done with the target may be done by any thread.
unsafe impl Send for Live {}

impl TargetHandle {
    /// # Safety
    ///
    /// The target must live until [`Self::kill`] is called.
    pub(super) unsafe fn new(ti: NonNull<dm_target>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                // INVARIANT: The caller vouches for it.
                target <- new_mutex!(Some(Live(ti)), "TargetHandle::target"),
            }),
            GFP_KERNEL,
        )
    }

    /// The target is going away; waits for those who use it right now.
    pub(super) fn kill(&self) {
        *self.target.lock() = None;
    }

    /// Tells who waits for the device's events that there is one (`dm_table_event()`). Sleeps.
    pub(crate) fn event(&self) {
        if let Some(Live(ti)) = &*self.target.lock() {
            // SAFETY: By the type's invariant the target is live, and so is its table.
            unsafe { shim::dm_shim_table_event(ti.as_ptr()) }
        }
    }

    /// Whether the device is suspended; so is one whose target is gone. May sleep.
    pub(crate) fn is_suspended(&self) -> bool {
        match &*self.target.lock() {
            // SAFETY: By the type's invariant the target is live.
            Some(Live(ti)) => unsafe { shim::dm_shim_suspended(ti.as_ptr()) },
            None => true,
        }
    }
}

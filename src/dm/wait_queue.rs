// SPDX-License-Identifier: GPL-2.0-only

//! Waiting until something is so.

use super::shim;
use core::marker::PhantomPinned;
use core::ptr;
use kernel::{
    bindings,
    ffi::c_void,
    prelude::*,
    sync::LockClassKey,
    types::Opaque, //
};

/// Threads that wait for a condition, and are told when to look at it again.
///
/// Wraps `wait_queue_head_t`.
#[pin_data]
pub(crate) struct WaitQueue {
    #[pin]
    head: Opaque<bindings::wait_queue_head_t>,
    #[pin]
    _pin: PhantomPinned,
}

// SAFETY: A queue that nobody waits in may be sent anywhere; whoever waits borrows it.
unsafe impl Send for WaitQueue {}
// SAFETY: The queue has a lock of its own.
unsafe impl Sync for WaitQueue {}

impl WaitQueue {
    /// Makes a queue whose lock has a name and a class for lockdep.
    pub(crate) fn new(
        name: &'static CStr,
        class: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self> {
        pin_init!(Self {
            head <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is valid for writes; name and class live for ever.
                unsafe { bindings::__init_waitqueue_head(slot, name.as_char_ptr(), class.as_ptr()) }
            }),
            _pin: PhantomPinned,
        })
    }

    /// Sleeps until `met` says yes; not interrupted by signals.
    ///
    /// `met` is called at once, and whenever [`Self::wake_all`] was called after that. It runs in
    /// a thread that is about to sleep: it may take spinlocks, but must not sleep itself.
    pub(crate) fn wait_until<F: FnMut() -> bool>(&self, mut met: F) {
        // SAFETY: The queue was initialised. `Self::met::<F>` gets the closure that is passed with
        // it, which lives until the wait is over, and which nobody else uses meanwhile.
        unsafe {
            shim::dm_shim_wait_event(
                self.head.get(),
                Some(Self::met::<F>),
                ptr::from_mut(&mut met).cast(),
            )
        }
    }

    /// # Safety
    ///
    /// `context` must point to an `F` that nobody else uses.
    unsafe extern "C" fn met<F: FnMut() -> bool>(context: *mut c_void) -> bool {
        // SAFETY: By the safety requirements.
        let met = unsafe { &mut *context.cast::<F>() };
        met()
    }

    /// Has all who wait look at their conditions again. To be called after what they look at
    /// changed, in any context.
    pub(crate) fn wake_all(&self) {
        // SAFETY: The queue was initialised.
        unsafe { shim::dm_shim_wake_up_all(self.head.get()) }
    }
}

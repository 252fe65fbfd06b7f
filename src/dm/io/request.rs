// SPDX-License-Identifier: GPL-2.0-only

//! Requests that nobody waits for yet.

use crate::dm::ffi;
use core::ptr;
use kernel::{
    bindings,

    prelude::*,
    types::Opaque, //
};

/// Says when one request that dm-io works on in the background is over, and what came of it.
///
/// It may be used for one request after another. It is only made pinned, so that dm-io can be given
/// its address.
///
/// # Invariants
///
/// From when a request is started with [`Self::notify`] until [`Self::wait`] returns, dm-io writes
/// `error`, and nobody else looks at it.
#[pin_data]
pub(super) struct Request {
    /// The bits of the regions that failed.
    #[pin]
    error: Opaque<c_ulong>,
    /// Counts the requests that are over and were not waited for yet: none or one.
    #[pin]
    over: Opaque<bindings::completion>,
}

// SAFETY: A completion may be used by any thread, and `error` is what dm-io and the waiter pass on
// to each other.
unsafe impl Send for Request {}
// SAFETY: See `Send`; by the type's invariant only one of them looks at `error` at a time.
unsafe impl Sync for Request {}

impl Request {
    /// Prepares for the first request.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            error: Opaque::new(0),
            // SAFETY: `slot` is valid for writes.
            over <- Opaque::ffi_init(|slot| unsafe { bindings::init_completion(slot) }),
        })
    }

    /// What dm-io is to do when the request is over.
    ///
    /// Whoever starts a request with it must, before `self` is used for another and before `self`
    /// is dropped, call [`Self::wait`], once.
    pub(super) fn notify(&self) -> ffi::dm_io_notify {
        ffi::dm_io_notify {
            fn_: Some(Self::over),
            context: ptr::from_ref(self).cast_mut().cast(),
        }
    }

    /// Called by dm-io when the request is over, in any context.
    ///
    /// # Safety
    ///
    /// `context` must be the request whose [`Self::notify`] dm-io was given; it must live until
    /// [`Self::wait`] returned.
    unsafe extern "C" fn over(error: c_ulong, unsup: c_ulong, context: *mut c_void) {
        let this = context.cast::<Self>();
        // SAFETY: The request is live until `complete` below, and by its invariant nobody else
        // looks at `error` now. `complete` does not touch it after it let the waiter go.
        unsafe {
            *Opaque::cast_into(&raw const (*this).error) = error | unsup;
            bindings::complete(Opaque::cast_into(&raw const (*this).over));
        }
    }

    /// Waits for the request that was started. Sleeps.
    ///
    /// # Safety
    ///
    /// A request must have been started with [`Self::notify`] that nobody waited for, and nobody
    /// else may wait for it.
    pub(super) unsafe fn wait(&self) -> Result {
        // SAFETY: The completion was initialised by `new`. When the wait is over so is the request,
        // and `error` is ours.
        let error = unsafe {
            bindings::wait_for_completion_io(self.over.get());
            *self.error.get()
        };
        if error == 0 {
            Ok(())
        } else {
            Err(EIO)
        }
    }
}

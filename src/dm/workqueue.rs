// SPDX-License-Identifier: GPL-2.0-only

//! A single-threaded workqueue of our own.

use core::ops::Deref;
use core::ptr::NonNull;
use kernel::{
    bindings,

    prelude::*,

    workqueue::Queue, //
};

/// A workqueue that runs one item at a time, in the order they were queued, and that makes
/// progress while memory is being reclaimed (`WQ_MEM_RECLAIM`).
///
/// It takes the items that [`Queue`] takes. Dropping it waits for all.
///
/// # Invariants
///
/// The pointer came from `alloc_workqueue()` and was not destroyed.
pub(crate) struct Workqueue(NonNull<bindings::workqueue_struct>);

// SAFETY: A workqueue may be used and destroyed by any thread.
unsafe impl Send for Workqueue {}
// SAFETY: A workqueue may be used by many threads at once.
unsafe impl Sync for Workqueue {}

impl Workqueue {
    /// Creates a workqueue. May sleep.
    pub(crate) fn new(name: &'static CStr) -> Result<Self> {
        // What `alloc_ordered_workqueue()` passes, with `WQ_MEM_RECLAIM`.
        let flags: c_uint = bindings::wq_flags_WQ_UNBOUND
            | bindings::wq_flags___WQ_ORDERED
            | bindings::wq_flags_WQ_MEM_RECLAIM;
        let max_active: c_int = 1;
        // SAFETY: The format takes one string, which is what is passed.
        let queue = unsafe {
            bindings::alloc_workqueue_noprof(
                c"%s".as_char_ptr(),
                flags,
                max_active,
                name.as_char_ptr(),
            )
        };
        // INVARIANT: Created just now.
        Ok(Self(NonNull::new(queue).ok_or(ENOMEM)?))
    }

    /// Waits until all items have run that were queued before. Sleeps.
    ///
    /// Must not be called from an item of this workqueue, which would wait for itself.
    pub(crate) fn flush(&self) {
        // SAFETY: By the type's invariant the queue is live.
        unsafe { bindings::__flush_workqueue(self.0.as_ptr()) }
    }
}

impl Deref for Workqueue {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        // SAFETY: By the type's invariant the queue is valid, and stays so while `self` is
        // borrowed.
        unsafe { Queue::from_raw(self.0.as_ptr()) }
    }
}

impl Drop for Workqueue {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant the queue is live. `destroy_workqueue()` waits for the
        // items that are queued, and nobody can queue more.
        unsafe { bindings::destroy_workqueue(self.0.as_ptr()) }
    }
}

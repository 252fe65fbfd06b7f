// SPDX-License-Identifier: GPL-2.0-only

//! Telling dm-snapshot what became of a commit.

use crate::dm::ffi::CommitCallbackFn;
use core::mem::ManuallyDrop;
use kernel::ffi::{c_int, c_void};

/// Tells dm-snapshot, exactly once, whether an exception was recorded.
///
/// Dropped without [`CommitCallback::call`], it reports a failure: an exception that nobody
/// answers for would block the origin for ever.
///
/// # Invariants
///
/// `function` may be called with `context`, once, in process context.
pub(crate) struct CommitCallback {
    function: CommitCallbackFn,
    context: *mut c_void,
}

// SAFETY: By the type's invariant any process context will do.
unsafe impl Send for CommitCallback {}

impl CommitCallback {
    /// # Safety
    ///
    /// The caller must be entitled to call `function` with `context` once, from any thread, and
    /// give up that right.
    pub(super) unsafe fn new(function: CommitCallbackFn, context: *mut c_void) -> Self {
        // INVARIANT: The caller vouches for it.
        Self { function, context }
    }

    /// Reports whether the exception is on stable storage.
    ///
    /// To be called in process context with no lock held: a failure drops the snapshot.
    pub(crate) fn call(self, success: bool) {
        ManuallyDrop::new(self).report(success);
    }

    fn report(&self, success: bool) {
        // SAFETY: By the type's invariant the function may be called once, and this is reached
        // either from `call`, which forgets `self`, or from `drop`.
        unsafe { (self.function)(self.context, c_int::from(success)) }
    }
}

impl Drop for CommitCallback {
    fn drop(&mut self) {
        self.report(false);
    }
}

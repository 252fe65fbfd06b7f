// SPDX-License-Identifier: GPL-2.0-only

//! Telling dm-snapshot what became of a commit.

use super::ffi::CommitCallbackFn;
use crate::dm::exception_store::Completion;
use core::mem::ManuallyDrop;
use kernel::ffi::{
    c_int,
    c_void, //
};

/// Tells dm-snapshot, exactly once, whether an exception was recorded.
///
/// Dropped without [`Completion::complete`], it reports a failure: an exception that nobody
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

    fn report(&self, success: bool) {
        // SAFETY: By the type's invariant the function may be called once, and this is reached
        // either from `complete`, which forgets `self`, or from `drop`.
        unsafe { (self.function)(self.context, c_int::from(success)) }
    }
}

impl Completion for CommitCallback {
    fn complete(self, success: bool) {
        ManuallyDrop::new(self).report(success);
    }
}

impl Drop for CommitCallback {
    fn drop(&mut self) {
        self.report(false);
    }
}

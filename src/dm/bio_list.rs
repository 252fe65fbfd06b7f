// SPDX-License-Identifier: GPL-2.0-only

//! Bios that wait.

use super::Bio;
use core::mem;
use core::ptr::{
    self,
    NonNull, //
};
use kernel::bindings;

/// Bios in the order they came; dropped, they end with an error.
///
/// It needs no memory of its own, and nothing it does sleeps, except that ending bios takes time.
///
/// # Invariants
///
/// From `head` each bio leads to the next by its `bi_next`, and the last is `tail` and leads to
/// none. All are as [`Bio`] describes them, and belong to the list. `tail` means nothing while
/// `head` is null.
pub(crate) struct BioList {
    head: *mut bindings::bio,
    tail: *mut bindings::bio,
}

// SAFETY: A list owns its bios, which may be sent to other threads.
unsafe impl Send for BioList {}
// SAFETY: A shared list tells only whether it is empty.
unsafe impl Sync for BioList {}

impl BioList {
    /// A list without bios.
    pub(crate) const fn new() -> Self {
        // INVARIANT: There are none.
        Self {
            head: ptr::null_mut(),
            tail: ptr::null_mut(),
        }
    }

    /// Whether there are no bios.
    pub(crate) fn is_empty(&self) -> bool {
        self.head.is_null()
    }

    /// Adds a bio at the end.
    pub(crate) fn push(&mut self, bio: Bio) {
        let bio = bio.into_raw();
        // SAFETY: The bio was given up to us; `bi_next` is for its owner to use.
        unsafe { (*bio).bi_next = ptr::null_mut() };
        self.append(&mut Self {
            // INVARIANT: One bio, which leads to none.
            head: bio,
            tail: bio,
        });
    }

    /// Takes the first bio.
    pub(crate) fn pop(&mut self) -> Option<Bio> {
        let bio = NonNull::new(self.head)?;
        // SAFETY: By the type's invariant the bio is valid, belongs to the list, and leads to the
        // next one. It leaves the list here.
        unsafe {
            self.head = (*bio.as_ptr()).bi_next;
            (*bio.as_ptr()).bi_next = ptr::null_mut();
            Some(Bio::from_raw(bio))
        }
    }

    /// Moves all bios of `other` to the end of this list.
    pub(crate) fn append(&mut self, other: &mut Self) {
        let other = mem::ManuallyDrop::new(other.take());
        if other.is_empty() {
            return;
        }
        if self.is_empty() {
            self.head = other.head;
        } else {
            // SAFETY: By the type's invariant `tail` is the last bio of this list, which is not
            // empty.
            unsafe { (*self.tail).bi_next = other.head };
        }
        // INVARIANT: The last bio of the other list is the last of both.
        self.tail = other.tail;
    }

    /// Takes all bios.
    pub(crate) fn take(&mut self) -> Self {
        mem::take(self)
    }
}

impl Default for BioList {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for BioList {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

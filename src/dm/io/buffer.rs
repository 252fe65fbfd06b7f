// SPDX-License-Identifier: GPL-2.0-only

//! Memory for dm-io.

use core::ops::{
    Deref,
    DerefMut,
    Range, //
};
use kernel::{
    alloc::AllocError,
    ffi::c_void,
    prelude::*, //
};

/// Zeroed memory that dm-io can read from and write to.
///
/// # Invariants
///
/// The memory is `vmalloc()` memory, as `DM_IO_VMA` demands.
pub(crate) struct IoBuffer(VVec<u8>);

impl IoBuffer {
    /// Allocates `bytes` of zeroes. May sleep.
    pub(crate) fn new(bytes: usize) -> Result<Self, AllocError> {
        // INVARIANT: A `VVec` is `vmalloc()` memory.
        Ok(Self(VVec::from_elem(0, bytes, GFP_KERNEL)?))
    }

    /// The same without waiting for memory, and without a word in the log if there is none. May sleep.
    #[cfg(not(under_c_core))]
    pub(crate) fn if_there_is_room(bytes: usize) -> Result<Self, AllocError> {
        // INVARIANT: A `VVec` is `vmalloc()` memory.
        Ok(Self(VVec::from_elem(0, bytes, GFP_NOWAIT | __GFP_NOWARN)?))
    }

    /// The address of the first of `bytes`, all of which lie in this buffer. It may be written to
    /// where nobody looks at the buffer meanwhile.
    pub(super) fn at(&self, bytes: &Range<usize>) -> *mut c_void {
        // Checks the bounds. The address is from the vector's own pointer: one from a shared slice
        // would not do to write through.
        let _ = &self.0[bytes.clone()];
        self.0.as_ptr().cast_mut().wrapping_add(bytes.start).cast()
    }
}

impl Deref for IoBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for IoBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

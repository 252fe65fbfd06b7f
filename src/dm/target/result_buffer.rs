// SPDX-License-Identifier: GPL-2.0-only

//! Text for userspace.

use core::fmt;
use kernel::ffi::c_char;

/// A buffer of device-mapper's for text. What does not fit is left out, and device-mapper sees that
/// it is full and asks userspace for a larger one.
///
/// # Invariants
///
/// There are `room` bytes at `start`, at least 1, of which `used` hold text, and after them a NUL:
/// `used < room`.
pub(super) struct ResultBuffer {
    start: *mut u8,
    room: usize,
    used: usize,
}

impl ResultBuffer {
    /// `None` if there is no room at all.
    ///
    /// # Safety
    ///
    /// There must be `room` bytes at `start`, which are ours while this lives.
    pub(super) unsafe fn new(start: *mut c_char, room: usize) -> Option<Self> {
        if room == 0 {
            return None;
        }
        let start: *mut u8 = start.cast();
        // SAFETY: The caller vouches for the buffer, which has at least this byte.
        unsafe { start.write(0) };
        // INVARIANT: No text, and a NUL.
        Some(Self {
            start,
            room,
            used: 0,
        })
    }

    /// Whether nothing was written.
    pub(super) fn is_empty(&self) -> bool {
        self.used == 0
    }
}

impl fmt::Write for ResultBuffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let length = text.len().min(self.room - 1 - self.used);
        // SAFETY: By the type's invariant there is room for `length` bytes after `used` and a NUL,
        // and the buffer is ours, so that the text is elsewhere.
        unsafe {
            let end = self.start.add(self.used);
            end.copy_from_nonoverlapping(text.as_ptr(), length);
            end.add(length).write(0);
        }
        self.used += length;
        Ok(())
    }
}

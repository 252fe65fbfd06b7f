// SPDX-License-Identifier: GPL-2.0-only

//! Being considerate: allocations that start no I/O, and giving way.

#[cfg(not(under_c_core))]
use super::shim;
use kernel::types::NotThreadSafe;

extern "C" {
    fn dm_noio_save() -> u32;
    fn dm_noio_restore(flags: u32);
}

/// While it lives, allocations of this thread start no I/O to free memory (`GFP_NOIO`), as is
/// necessary wherever I/O is waiting for this thread.
///
/// Several may be nested; they are to be dropped in the reverse order.
pub(crate) struct NoIo {
    flags: u32,
    _this_thread: NotThreadSafe,
}

impl NoIo {
    /// Enters such a scope.
    pub(crate) fn new() -> Self {
        Self {
            // SAFETY: It sets a flag of the thread.
            flags: unsafe { dm_noio_save() },
            _this_thread: NotThreadSafe,
        }
    }
}

impl Drop for NoIo {
    fn drop(&mut self) {
        // SAFETY: The flags are those of this thread, since `self` cannot be sent to another.
        unsafe { dm_noio_restore(self.flags) }
    }
}

/// Lets others have the processor if they need it. May sleep.
#[cfg(not(under_c_core))]
pub(crate) fn cond_resched() {
    // SAFETY: There are no conditions to fulfil.
    unsafe { shim::dm_shim_cond_resched() }
}

/// Lets all others go first that are ready to run on this processor. May sleep.
#[cfg(not(under_c_core))]
pub(crate) fn give_way() {
    // SAFETY: There are no conditions to fulfil.
    unsafe { shim::dm_shim_yield() }
}

/// Sleeps for at least `ms` milliseconds.
#[cfg(not(under_c_core))]
pub(crate) fn sleep_ms(ms: u32) {
    // SAFETY: There are no conditions to fulfil.
    unsafe { shim::dm_shim_sleep_ms(ms) }
}

/// Calls `get` until there is the memory that it wants, in a scope where getting it starts no I/O.
/// Sleeps.
#[cfg(not(under_c_core))]
pub(crate) fn until_memory<T, E>(mut get: impl FnMut() -> Result<T, E>) -> T {
    let _noio = NoIo::new();
    loop {
        if let Ok(value) = get() {
            return value;
        }
        sleep_ms(1);
    }
}

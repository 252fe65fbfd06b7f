// SPDX-License-Identifier: GPL-2.0-only

//! A spinlock that may be taken in any context.

use super::shim;
use kernel::{
    bindings,
    ffi::{
        c_char,
        c_ulong, //
    },
    sync::lock::{
        Backend,
        Lock, //
    }, //
};

/// A spinlock that is held with the processor's interrupts off: bios end in any context.
///
/// It is made by `Lock::new(value, name, class)`, where `class` is `static_lock_class!()`.
pub(crate) type IrqSpinLock<T> = Lock<T, IrqSave>;

/// `spin_lock_irqsave()` and `spin_unlock_irqrestore()`.
pub(crate) struct IrqSave;

// SAFETY: The functions are those of a `spinlock_t`, which excludes all others. The guard's state
// is what `spin_lock_irqsave()` handed out, and a guard cannot be sent to another thread, so that
// the interrupts are restored on the processor where they were switched off.
unsafe impl Backend for IrqSave {
    type State = bindings::spinlock_t;
    type GuardState = c_ulong;

    unsafe fn init(ptr: *mut Self::State, name: *const c_char, key: *mut bindings::lock_class_key) {
        // SAFETY: The caller vouches that `ptr` is valid for writes and that `name` and `key`
        // live for ever.
        unsafe { bindings::__spin_lock_init(ptr, name, key) }
    }

    unsafe fn lock(ptr: *mut Self::State) -> Self::GuardState {
        // SAFETY: The caller vouches that `ptr` is an initialised lock.
        unsafe { shim::dm_shim_spin_lock_irqsave(ptr) }
    }

    unsafe fn unlock(ptr: *mut Self::State, flags: &Self::GuardState) {
        // SAFETY: The caller vouches that it owns the lock, and `flags` is what taking it returned.
        unsafe { shim::dm_shim_spin_unlock_irqrestore(ptr, *flags) }
    }

    unsafe fn try_lock(ptr: *mut Self::State) -> Option<Self::GuardState> {
        let mut flags = 0;
        // SAFETY: The caller vouches that `ptr` is an initialised lock; `flags` is ours.
        unsafe { shim::dm_shim_spin_trylock_irqsave(ptr, &mut flags) }.then_some(flags)
    }

    unsafe fn assert_is_held(ptr: *mut Self::State) {
        // SAFETY: The caller vouches that `ptr` is an initialised lock.
        unsafe { bindings::spin_assert_is_held(ptr) }
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! A mutex that a static variable can have.

use core::sync::atomic::{
    AtomicU8,
    Ordering, //
};

/// Whether something was done that is to be done once.
pub(crate) struct Once(AtomicU8);

const NOT_YET: u8 = 0;
const BEGUN: u8 = 1;
const DONE: u8 = 2;

impl Once {
    /// It was not.
    pub(crate) const fn new() -> Self {
        Self(AtomicU8::new(NOT_YET))
    }

    /// Does it, unless it was begun before.
    pub(crate) fn call(&self, f: impl FnOnce()) {
        let begun = self
            .0
            .compare_exchange(NOT_YET, BEGUN, Ordering::Acquire, Ordering::Relaxed);
        if begun.is_ok() {
            f();
            self.0.store(DONE, Ordering::Release);
        }
    }

    /// Whether it was, and everything that it did can be seen.
    pub(crate) fn is_done(&self) -> bool {
        self.0.load(Ordering::Acquire) == DONE
    }
}

/// Defines a module with a mutex in it: `make()` makes it, which is to be done when the kernel
/// module is loaded, and `lock()` locks it, `None` before it was made. It is never dropped: what
/// is in it should hold no memory when the kernel module is unloaded.
macro_rules! global_mutex {
    ($(#[$meta:meta])* mod $name:ident: $item:ty = $value:expr;) => {
        $(#[$meta])*
        mod $name {
            use super::*;
            use $crate::dm::global::Once;

            kernel::sync::global_lock! {
                // SAFETY: `lock` sees to it that `make` came before.
                pub(super) unsafe(uninit) static MUTEX: Mutex<$item> = $value;
            }

            static MADE: Once = Once::new();

            /// Makes the mutex.
            pub(super) fn make() {
                // SAFETY: This is done once.
                MADE.call(|| unsafe { MUTEX.init() });
            }

            /// The mutex, locked.
            pub(super) type Guard = kernel::sync::lock::GlobalGuard<MUTEX>;

            /// Locks the mutex. Sleeps.
            pub(super) fn lock() -> Option<Guard> {
                MADE.is_done().then(|| MUTEX.lock())
            }
        }
    };
}

pub(crate) use global_mutex;

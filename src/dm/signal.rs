// SPDX-License-Identifier: GPL-2.0-only

//! Whether the current process was told to die.

use kernel::{
    bindings,
    current, //
};

/// Whether the current process was told to die, so that what it waits for is of no use any more.
///
/// C header: `include/linux/sched/signal.h`, whose function of this name is an inline one.
pub(crate) fn fatal_signal_pending() -> bool {
    let task = current!();
    if !task.signal_pending() {
        return false;
    }
    // SAFETY: `current` is live. The set of its pending signals is a part of it, which others set
    // and clear bits of at any time: one word is read, at once, so that it is old or new.
    let pending = unsafe { (&raw const (*task.as_ptr()).pending.signal.sig[0]).read_volatile() };
    pending & (1 << (bindings::SIGKILL - 1)) != 0
}

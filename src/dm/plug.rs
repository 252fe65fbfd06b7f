// SPDX-License-Identifier: GPL-2.0-only

//! Submitting many bios at once.

use core::mem::MaybeUninit;
use kernel::bindings;

/// Runs `submit`, and holds back what it submits until it returns or this thread sleeps, so that
/// neighbouring bios are joined.
///
/// Wraps `struct blk_plug`.
pub(crate) fn plugged<R>(submit: impl FnOnce() -> R) -> R {
    let mut plug = MaybeUninit::<bindings::blk_plug>::uninit();
    // SAFETY: The plug stays on this thread's stack, where it is, until it is finished below:
    // `submit` cannot unwind.
    unsafe { bindings::blk_start_plug(plug.as_mut_ptr()) };
    let result = submit();
    // SAFETY: The plug was started by this thread.
    unsafe { bindings::blk_finish_plug(plug.as_mut_ptr()) };
    result
}

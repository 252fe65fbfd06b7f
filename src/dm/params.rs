// SPDX-License-Identifier: GPL-2.0-only

//! The module's parameters, which `shim.c` declares: those of C's dm-snapshot have its names.

use super::shim;

/// `snapshot_cow_threshold`: how many chunks of an origin may be in the process of being copied, for
/// all its snapshots together, at a time. The administrator may change it at any time.
pub(crate) fn cow_threshold() -> u32 {
    // SAFETY: It reads a variable.
    unsafe { shim::dm_shim_cow_threshold() }
}

/// Whether `snapshot_copy_throttle` keeps copying from taking all of the time. The administrator may change it
/// at any time.
pub(crate) fn copy_is_throttled() -> bool {
    // SAFETY: It reads a variable.
    unsafe { shim::dm_shim_copy_is_throttled() }
}

/// `snapshot_full_seconds`: for how long the last 5 % of a COW device should last at least; 0 if
/// nothing is to be done for that. The administrator may change it at any time.
pub(crate) fn full_seconds() -> u32 {
    // SAFETY: It reads a variable.
    unsafe { shim::dm_shim_full_seconds() }
}

/// `snapshot_overflow_keep`: whether a snapshot that is activated is to be kept when its COW device is
/// full, rather than the origin's writes. The administrator may change it at any time.
pub(crate) fn overflow_keep() -> bool {
    // SAFETY: It reads a variable.
    unsafe { shim::dm_shim_overflow_keep() }
}

/// `snapshot_copy_ahead`: whether chunks are copied ahead of those who write to an origin in sequence. The
/// administrator may change it at any time.
pub(crate) fn copy_ahead() -> bool {
    // SAFETY: It reads a variable.
    unsafe { shim::dm_shim_copy_ahead() }
}

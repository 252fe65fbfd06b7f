// SPDX-License-Identifier: GPL-2.0-only

//! The module's parameters, which `shim.c` declares by the names that C's dm-snapshot has.

use super::shim;

/// `snapshot_cow_threshold`: how many chunks of an origin may be in the process of being copied, for
/// all its snapshots together, at a time. The administrator may change it at any time.
pub(crate) fn cow_threshold() -> u32 {
    // SAFETY: It reads a variable.
    unsafe { shim::dm_shim_cow_threshold() }
}

// SPDX-License-Identifier: GPL-2.0-only

//! What memory really costs.

use crate::memory::Vec;

/// The bytes that `kmalloc` takes for `bytes` bytes: those of the smallest of its caches that has
/// room, which are the powers of two, 96 and 192; beyond two pages, whole pages by powers of two.
pub(super) const fn kmalloc(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        1..=8 => 8,
        65..=96 => 96,
        129..=192 => 192,
        _ => bytes.next_power_of_two(),
    }
}

/// The bytes that an array takes, without what its values have elsewhere.
pub(super) fn of_array<T>(array: &Vec<T>) -> usize {
    kmalloc(array.capacity().saturating_mul(size_of::<T>()))
}

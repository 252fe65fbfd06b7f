// SPDX-License-Identifier: GPL-2.0-only

//! A growable array whose growth may fail.

/// There is no memory left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

/// A growable array, as the kernel's `KVVec` and the standard library's `Vec` are.
pub trait List<T> {
    /// An array with nothing in it.
    const EMPTY: Self;

    /// Puts `value` at the end.
    fn try_push(&mut self, value: T) -> Result<(), NoMemory>;

    /// Removes all values, and keeps their memory.
    fn clear(&mut self);

    /// All values.
    fn as_mut_slice(&mut self) -> &mut [T];
}

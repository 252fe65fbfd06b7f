// SPDX-License-Identifier: GPL-2.0-only

//! What the checks need of where they run: memory, and to know when to stop.

/// There is no memory left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

/// Where the checks run: in the kernel, in a tool, in a test.
pub trait Platform {
    /// Growable arrays.
    type List<T>: List<T>;

    /// Whether to go on: false once whoever waits for the result was told to die.
    ///
    /// Asked every few thousand records at the latest, in process context.
    fn may_go_on() -> bool;
}

/// A growable array whose growth may fail, as that of the kernel's `KVVec`; may sleep.
pub trait List<T>: Sized {
    /// An array with nothing in it, and without memory.
    const EMPTY: Self;

    /// An array with nothing in it, and memory for exactly `capacity` values.
    fn with_capacity(capacity: usize) -> Result<Self, NoMemory>;

    /// Puts `value` at the end.
    fn try_push(&mut self, value: T) -> Result<(), NoMemory>;

    /// Removes the last value.
    fn pop(&mut self) -> Option<T>;

    /// Removes all values, and keeps their memory.
    fn clear(&mut self);

    /// All values.
    fn as_slice(&self) -> &[T];

    /// All values.
    fn as_mut_slice(&mut self) -> &mut [T];
}

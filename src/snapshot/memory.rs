// SPDX-License-Identifier: GPL-2.0-only

//! Arrays and boxes whose growth may fail, for code that runs in the kernel and on the host.
//!
//! The host has its own file with the same interface (`tests/host/src/memory.rs`), where
//! allocations can be made to fail. Here all memory comes from `kmalloc` and so is at most
//! `KMALLOC_MAX_SIZE` bytes at a time: arrays are grown and freed under spinlocks with interrupts
//! off, where memory of `vmalloc` cannot be.

use crate::format::NoMemory;
use core::ops::{
    Deref,
    DerefMut, //
};
use kernel::{
    alloc::{
        flags,
        kvec::PushError,
        Flags, //
    },
    prelude::{
        KBox,
        KVec, //
    }, //
};

/// What an allocation may do to get its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// It may sleep and write other memory back; the caller may be in a `noio` scope.
    Sleep,
    /// It must not sleep, as under a spinlock. It fails sooner, and without a warning.
    Atomic,
}

impl When {
    fn flags(self) -> Flags {
        match self {
            // Whoever asks for memory does without, or waits for it.
            Self::Sleep => flags::GFP_KERNEL | flags::__GFP_NOWARN,
            Self::Atomic => flags::GFP_ATOMIC | flags::__GFP_NOWARN,
        }
    }
}

/// A growable array. Only the methods that take a [`When`] allocate.
pub struct Vec<T>(KVec<T>);

impl<T> Vec<T> {
    /// An empty array, which has no memory yet.
    pub const fn new() -> Self {
        Self(KVec::new())
    }

    /// How many values the array can have without growing.
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// Makes room for `additional` more values: for exactly those, or twice the room so far if
    /// that is more, so that growing one by one stays cheap. A failure changes nothing.
    pub fn reserve(&mut self, additional: usize, when: When) -> Result<(), NoMemory> {
        self.0
            .reserve(additional, when.flags())
            .map_err(|_| NoMemory)
    }

    /// Puts `value` at the end, or gives it back if there is no room for it.
    pub fn push(&mut self, value: T) -> Result<(), T> {
        self.0
            .push_within_capacity(value)
            .map_err(|PushError(value)| value)
    }

    /// Puts `value` at `index`, before what is there, or gives it back if there is no room for it
    /// or `index` is beyond the end.
    pub fn insert(&mut self, index: usize, value: T) -> Result<(), T> {
        if index > self.len() {
            return Err(value);
        }
        self.push(value)?;
        if let Some(tail) = self.get_mut(index..) {
            tail.rotate_right(1);
        }
        Ok(())
    }

    /// Takes the value at `index` out; those after it move up.
    pub fn remove(&mut self, index: usize) -> Option<T> {
        let tail = self.get_mut(index..)?;
        if tail.is_empty() {
            return None;
        }
        tail.rotate_left(1);
        self.pop()
    }

    /// Takes the last value out.
    pub fn pop(&mut self) -> Option<T> {
        self.0.pop()
    }

    /// Drops all values from the `len`th on. The memory stays.
    pub fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    /// Drops all values. The memory stays.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Moves the values to memory of their size, if there is any to be had.
    pub fn shrink(&mut self, when: When) {
        if self.0.len() == self.0.capacity() {
            return;
        }
        let mut exact = KVec::new();
        if !self.0.is_empty() && exact.reserve(self.0.len(), when.flags()).is_err() {
            return;
        }
        for value in core::mem::replace(&mut self.0, KVec::new()) {
            // There is room for all of them.
            let _ = exact.push_within_capacity(value);
        }
        self.0 = exact;
    }
}

impl<T> Default for Vec<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Deref for Vec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> DerefMut for Vec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

/// A value in memory of its own.
pub struct Box<T>(KBox<T>);

impl<T> Box<T> {
    /// Moves `value` to memory of its own.
    pub fn new(value: T, when: When) -> Result<Self, NoMemory> {
        KBox::new(value, when.flags())
            .map(Self)
            .map_err(|_| NoMemory)
    }

    /// Takes the value out, and frees its memory.
    pub fn into_inner(self) -> T {
        KBox::into_inner(self.0)
    }
}

impl<T> Deref for Box<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Box<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

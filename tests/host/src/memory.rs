// SPDX-License-Identifier: GPL-2.0-only

//! The host's `crate::memory`: the kernel's (`src/snapshot/memory.rs`) over the standard library,
//! with allocations that fail when a test says so, and a count of the memory that is taken.
//!
//! What fails and what is counted is each thread's own.

use crate::format::NoMemory;
use std::cell::Cell;
use std::ops::{Deref, DerefMut};

/// What an allocation may do to get its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// It may sleep.
    Sleep,
    /// It must not sleep.
    Atomic,
}

/// Which allocations fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    /// None.
    Never,
    /// All from now on.
    Always,
    /// The one after as many as this, and no other.
    After(u64),
    /// About one of `one_in`, as `seed` has it.
    Randomly {
        /// Where the random numbers start.
        seed: u64,
        /// How rare failures are; 0 is as 1.
        one_in: u64,
    },
}

thread_local! {
    static FAILING: Cell<Failing> = const { Cell::new(Failing::Never) };
    static TRIED: Cell<u64> = const { Cell::new(0) };
    static TAKEN: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// Makes allocations of this thread fail.
pub fn fail(failing: Failing) {
    FAILING.set(failing);
}

/// How many allocations this thread tried so far, those that failed too.
pub fn tried() -> u64 {
    TRIED.get()
}

/// How much memory this thread has taken and not freed yet, in bytes, as `kmalloc` would count it.
pub fn taken() -> usize {
    TAKEN.get()
}

/// The most that [`taken`] was since [`reset_peak`].
pub fn peak() -> usize {
    PEAK.get()
}

/// Starts the measurement of [`peak`] again.
pub fn reset_peak() {
    PEAK.set(TAKEN.get());
}

/// What `kmalloc` takes for `bytes` bytes: its slab caches up to two pages, then whole pages by
/// powers of two.
fn kmalloc(bytes: usize) -> usize {
    const CACHES: [usize; 13] = [
        8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192,
    ];
    match bytes {
        0 => 0,
        _ => CACHES
            .into_iter()
            .find(|cache| bytes <= *cache)
            .unwrap_or(bytes.next_power_of_two()),
    }
}

/// `KMALLOC_MAX_SIZE` of x86-64.
const LARGEST: usize = 4 << 20;

/// Whether an allocation of `bytes` may be made, which the caller then has to [`count`].
fn allowed(bytes: usize) -> Result<(), NoMemory> {
    TRIED.set(TRIED.get() + 1);
    let fails = match FAILING.get() {
        Failing::Never => false,
        Failing::Always => true,
        Failing::After(0) => {
            FAILING.set(Failing::Never);
            true
        }
        Failing::After(n) => {
            FAILING.set(Failing::After(n - 1));
            false
        }
        Failing::Randomly { seed, one_in } => {
            // Sebastiano Vigna's splitmix64.
            let seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            FAILING.set(Failing::Randomly { seed, one_in });
            let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed ^ (mixed >> 31)) % one_in.max(1) == 0
        }
    };
    if fails || bytes > LARGEST {
        return Err(NoMemory);
    }
    Ok(())
}

/// Notes that an allocation of `old` bytes is now one of `new` bytes; 0 is none.
fn count(old: usize, new: usize) {
    TAKEN.set(TAKEN.get() + kmalloc(new) - kmalloc(old));
    PEAK.set(PEAK.get().max(TAKEN.get()));
}

/// A growable array. Only the methods that take a [`When`] allocate.
///
/// It is as large as the kernel's, so that what has it in it is as large too.
pub struct Vec<T>(std::vec::Vec<T>);

impl<T> Vec<T> {
    /// An empty array, which has no memory yet.
    pub const fn new() -> Self {
        Self(std::vec::Vec::new())
    }

    /// How many values the array can have without growing.
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// Makes room for `additional` more values: for exactly those, or twice the room so far if
    /// that is more, so that growing one by one stays cheap. A failure changes nothing.
    pub fn reserve(&mut self, additional: usize, _: When) -> Result<(), NoMemory> {
        let needed = self.len().checked_add(additional).ok_or(NoMemory)?;
        if needed <= self.capacity() {
            return Ok(());
        }
        self.resize(needed.max(self.capacity() * 2))
    }

    /// Puts `value` at the end, or gives it back if there is no room for it.
    pub fn push(&mut self, value: T) -> Result<(), T> {
        self.insert(self.len(), value)
    }

    /// Puts `value` at `index`, before what is there, or gives it back if there is no room for it
    /// or `index` is beyond the end.
    pub fn insert(&mut self, index: usize, value: T) -> Result<(), T> {
        if self.len() == self.capacity() || index > self.len() {
            return Err(value);
        }
        self.0.insert(index, value);
        Ok(())
    }

    /// Takes the value at `index` out; those after it move up.
    pub fn remove(&mut self, index: usize) -> Option<T> {
        (index < self.len()).then(|| self.0.remove(index))
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
    pub fn shrink(&mut self, _: When) {
        if self.len() < self.capacity() {
            // It is all the same if this fails.
            let _ = self.resize(self.len());
        }
    }

    /// Gets memory for `capacity` values, at least as many as there are.
    fn resize(&mut self, capacity: usize) -> Result<(), NoMemory> {
        let size = |capacity: usize| capacity.checked_mul(size_of::<T>()).ok_or(NoMemory);
        if capacity > 0 {
            allowed(size(capacity)?)?;
        }
        // New memory, as the kernel's: what points to the old is wrong at once, not at times.
        let mut values = std::vec::Vec::with_capacity(capacity);
        values.append(&mut self.0);
        count(size(self.capacity())?, size(capacity)?);
        self.0 = values;
        Ok(())
    }
}

impl<T> Drop for Vec<T> {
    fn drop(&mut self) {
        count(self.capacity() * size_of::<T>(), 0);
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
pub struct Box<T>(Option<std::boxed::Box<T>>);

impl<T> Box<T> {
    /// Moves `value` to memory of its own.
    pub fn new(value: T, _: When) -> Result<Self, NoMemory> {
        allowed(size_of::<T>())?;
        count(0, size_of::<T>());
        Ok(Self(Some(std::boxed::Box::new(value))))
    }

    /// Takes the value out, and frees its memory.
    pub fn into_inner(mut self) -> T {
        count(size_of::<T>(), 0);
        *self.0.take().expect("only a box that is gone is empty")
    }
}

impl<T> Drop for Box<T> {
    fn drop(&mut self) {
        if self.0.is_some() {
            count(size_of::<T>(), 0);
        }
    }
}

impl<T> Deref for Box<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("only a box that is gone is empty")
    }
}

impl<T> DerefMut for Box<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("only a box that is gone is empty")
    }
}

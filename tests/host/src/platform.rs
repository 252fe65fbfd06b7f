// SPDX-License-Identifier: GPL-2.0-only

//! Where the checks of [`crate::format`] run in tests.

use crate::format::{List, NoMemory, Platform};
use std::cell::Cell;

/// A list that grows as far as it is allowed to.
pub struct Limited<T, const MAX: usize>(Vec<T>);

impl<T, const MAX: usize> List<T> for Limited<T, MAX> {
    const EMPTY: Self = Self(Vec::new());

    fn with_capacity(capacity: usize) -> Result<Self, NoMemory> {
        if capacity > MAX {
            return Err(NoMemory);
        }
        Ok(Self(Vec::with_capacity(capacity)))
    }

    fn try_push(&mut self, value: T) -> Result<(), NoMemory> {
        if self.0.len() == MAX {
            return Err(NoMemory);
        }
        self.0.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Option<T> {
        self.0.pop()
    }

    fn clear(&mut self) {
        self.0.clear();
    }

    fn as_slice(&self) -> &[T] {
        &self.0
    }

    fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.0
    }
}

/// No list has more than `MAX` values; nobody interrupts.
pub struct Small<const MAX: usize>;

impl<const MAX: usize> Platform for Small<MAX> {
    type List<T> = Limited<T, MAX>;

    fn may_go_on() -> bool {
        true
    }
}

/// There is memory enough, and nobody interrupts.
pub type Host = Small<{ usize::MAX }>;

thread_local! {
    static STEPS: Cell<u64> = const { Cell::new(u64::MAX) };
}

/// There is memory enough, and this thread goes on as often as it was [allowed](allow_steps).
pub struct Stopped;

/// Lets this thread go on `steps` times.
pub fn allow_steps(steps: u64) {
    STEPS.set(steps);
}

/// How many more times this thread may go on.
pub fn steps_left() -> u64 {
    STEPS.get()
}

impl Platform for Stopped {
    type List<T> = Limited<T, { usize::MAX }>;

    fn may_go_on() -> bool {
        let left = STEPS.get();
        STEPS.set(left.saturating_sub(1));
        left > 0
    }
}

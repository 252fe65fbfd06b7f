// SPDX-License-Identifier: GPL-2.0-only

//! Arrays that grow with what a device holds, and say so when memory does not suffice.

use crate::error::{Error, Result};
use crate::format::{List, NoMemory, Platform};

/// Userspace, where the checks of [`crate::format`] run to their end: a signal ends the process.
pub struct Userspace;

impl Platform for Userspace {
    type List<T> = Growable<T>;

    fn may_go_on() -> bool {
        true
    }
}

/// A growable array for the checks of [`crate::format`].
pub struct Growable<T>(Vec<T>);

impl<T> List<T> for Growable<T> {
    const EMPTY: Self = Self(Vec::new());

    fn with_capacity(capacity: usize) -> std::result::Result<Self, NoMemory> {
        let mut list = Vec::new();
        list.try_reserve_exact(capacity).map_err(|_| NoMemory)?;
        Ok(Self(list))
    }

    fn try_push(&mut self, value: T) -> std::result::Result<(), NoMemory> {
        push(&mut self.0, value).map_err(|_| NoMemory)
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

/// Puts `value` at the end of `list`.
pub fn push<T>(list: &mut Vec<T>, value: T) -> Result<()> {
    if list.len() == list.capacity() {
        list.try_reserve(1).map_err(|_| Error::NoMemory)?;
    }
    list.push(value);
    Ok(())
}

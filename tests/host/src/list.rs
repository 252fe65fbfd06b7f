// SPDX-License-Identifier: GPL-2.0-only

//! Lists for the checks of [`crate::format`].

use crate::format::{List, NoMemory};

/// A list that grows as far as it is allowed to.
pub struct Limited<T, const MAX: usize>(Vec<T>);

impl<T, const MAX: usize> List<T> for Limited<T, MAX> {
    const EMPTY: Self = Self(Vec::new());

    fn try_push(&mut self, value: T) -> Result<(), NoMemory> {
        if self.0.len() == MAX {
            return Err(NoMemory);
        }
        self.0.push(value);
        Ok(())
    }

    fn clear(&mut self) {
        self.0.clear();
    }

    fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.0
    }
}

/// One that is allowed any size.
pub type Growable<T> = Limited<T, { usize::MAX }>;

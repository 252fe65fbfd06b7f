// SPDX-License-Identifier: GPL-2.0-only

//! The kernel, as far as the checks of metadata need it.

use crate::dm::fatal_signal_pending;
use crate::format::{
    List,
    NoMemory,
    Platform, //
};
use kernel::prelude::*;

/// The kernel, in a thread that may sleep.
pub(super) struct Kernel;

impl Platform for Kernel {
    type List<T> = Growable<T>;

    fn may_go_on() -> bool {
        !fatal_signal_pending()
    }
}

/// A growable array of any size.
pub(super) struct Growable<T>(KVVec<T>);

impl<T> List<T> for Growable<T> {
    const EMPTY: Self = Self(KVVec::new());

    fn with_capacity(capacity: usize) -> Result<Self, NoMemory> {
        match KVVec::with_capacity(capacity, GFP_KERNEL) {
            Ok(list) => Ok(Self(list)),
            Err(_) => Err(NoMemory),
        }
    }

    fn try_push(&mut self, value: T) -> Result<(), NoMemory> {
        self.0.push(value, GFP_KERNEL).map_err(|_| NoMemory)
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

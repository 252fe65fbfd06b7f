// SPDX-License-Identifier: GPL-2.0-only

//! No files: a kernel without debugfs.

use super::Show;
use core::fmt;
use kernel::prelude::*;

/// Would be a file. There is none.
pub(crate) enum Shown {}

/// Nothing is to be done when the module is loaded.
pub(crate) fn init(_name: &'static CStr) {}

impl Shown {
    /// Fails.
    pub(crate) fn new<T: Show>(_name: fmt::Arguments<'_>, _shown: T) -> Result<Self> {
        // Without this it, and all that it alone calls, would be unused.
        let _ = T::show;
        Err(ENODEV)
    }
}

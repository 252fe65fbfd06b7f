// SPDX-License-Identifier: GPL-2.0-only

//! Files below debugfs: `/sys/kernel/debug/MODULE/NAME/stats`, which root may read.
//!
//! The `kernel` crate's files do not say which module they are of, so that it could be unloaded while one
//! that was removed is still open, and closing that looks at what was the module's. These say it: the
//! module is in use until they are closed.

use core::fmt;

#[cfg_attr(not(CONFIG_DEBUG_FS), path = "absent.rs")]
mod files;

pub(crate) use files::{
    init,
    Shown, //
};

/// What a file shows.
pub(crate) trait Show: Send + Sync + 'static {
    /// Writes all of it. May sleep, but not wait for I/O: who removes the file waits for this. An error
    /// is one of `out`.
    fn show(&self, out: &mut dyn fmt::Write) -> fmt::Result;
}

// SPDX-License-Identifier: GPL-2.0-only

//! The targets, as far as they know nothing of the kernel.

/// Which chunk is where, who copies it, and who waits for that.
#[path = "../../../src/snapshot/core/mod.rs"]
pub mod core;

// SPDX-License-Identifier: GPL-2.0-only

//! The store, as far as it knows nothing of the kernel.

/// What to write next, and whom to call back.
#[path = "../../../src/store/metadata/mod.rs"]
pub mod metadata;

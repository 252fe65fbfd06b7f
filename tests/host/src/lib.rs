// SPDX-License-Identifier: GPL-2.0-only

//! The module's pure parts, compiled for the host so that tests can drive them.

#[path = "../../../src/snapshot/atomic.rs"]
pub mod atomic;
/// What lies on a COW device.
#[path = "../../../src/format/mod.rs"]
pub mod format;
pub mod memory;
pub mod platform;
pub mod snapshot;
pub mod store;

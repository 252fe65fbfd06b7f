// SPDX-License-Identifier: GPL-2.0-only

//! Device-mapper's snapshot targets.
//!
//! It is called as the kernel's own module is, so that whoever asks for that finds this one, and
//! only one of the two can be loaded.

use kernel::prelude::*;

#[allow(dead_code, unused_imports, unused_macros)]
mod dm;
pub mod format;

/// What every message of the module begins with; ends with a NUL.
const DM_MSG_PREFIX: &[u8] = b"device-mapper: snapshots\0";

module! {
    type: DmSnapshot,
    name: "dm_snapshot",
    authors: ["The dm-snap-persistent developers"],
    description: "device-mapper snapshot target",
    license: "GPL",
    alias: ["dm-snapshot-origin", "dm-snapshot-merge"],
}

struct DmSnapshot;

impl kernel::Module for DmSnapshot {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self)
    }
}

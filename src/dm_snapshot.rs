// SPDX-License-Identifier: GPL-2.0-only

//! Device-mapper's snapshot targets: `snapshot`, `snapshot-origin` and `snapshot-merge`.
//!
//! The module is called as the kernel's own is, so that whoever asks for that finds this one, and only
//! one of the two can be loaded.

use dm::target::Registration;
use kernel::prelude::*;
use snapshot::{
    MergeTarget,
    OriginTarget,
    SnapshotTarget,
    DM_MSG_PREFIX, //
};

// Public for the host, whose tests have their own.
#[expect(unreachable_pub)]
#[path = "snapshot/atomic.rs"]
mod atomic;
mod dm;
// Public for the tools and the host's tests, which compile these files too.
pub mod format;
// Public for the host, whose tests use more of it.
#[expect(unreachable_pub, dead_code)]
#[path = "snapshot/memory.rs"]
mod memory;
mod snapshot;
mod store;

module! {
    type: DmSnapshot,
    name: "dm_snapshot",
    authors: ["The dm-snap-persistent developers"],
    description: "device-mapper snapshot target",
    license: "GPL",
    alias: ["dm-snapshot-origin", "dm-snapshot-merge"],
}

#[pin_data]
struct DmSnapshot {
    #[pin]
    snapshot: Registration<SnapshotTarget>,
    #[pin]
    origin: Registration<OriginTarget>,
    #[pin]
    merge: Registration<MergeTarget>,
}

impl kernel::InPlaceModule for DmSnapshot {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // Before there is a target that needs them.
            _: { dm::debugfs::init(c"dm-snapshot") },
            _: { snapshot::registry::init() },
            snapshot <- Registration::new(module),
            origin <- Registration::new(module),
            merge <- Registration::new(module),
        })
    }
}

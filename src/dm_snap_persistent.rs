// SPDX-License-Identifier: GPL-2.0-only

//! Device-mapper's persistent exception store.
//!
//! The metadata of snapshots that survive a reboot: which chunk of the origin was copied where on
//! the copy-on-write device. Tables ask for it as `P` or `persistent`.

use core::borrow::Borrow;
use dm::exception_store::{
    CommitCallback,
    Registration, //
};
use kernel::prelude::*;
use store::{
    Persistent,
    DM_MSG_PREFIX, //
};

mod dm;
// Public for the tools and the host's tests, which compile these files too.
pub mod format;
mod store;

module! {
    type: DmSnapPersistent,
    name: "dm_snap_persistent",
    authors: ["The dm-snap-persistent developers"],
    description: "device-mapper persistent exception store",
    license: "GPL",
    alias: ["dm-exstore-persistent", "dm-exstore-P"],
    params: {
        takeover: u8 {
            default: 1,
            description: "Take the names over from dm-snapshot's own store (0: only if they are free)",
        },
    },
}

#[pin_data]
struct DmSnapPersistent {
    #[pin]
    persistent: Registration<Persistent<CommitCallback>>,
    // Tables are made with this name only, and a table can take hold of a module that is still
    // being initialised: so it comes last, when nothing can fail any more.
    #[pin]
    compat: Registration<Persistent<CommitCallback>>,
}

impl kernel::InPlaceModule for DmSnapPersistent {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        // A value in newer kernels, a reference to it in older ones.
        let takeover: u8 = *Borrow::<u8>::borrow(&module_parameters::takeover.value());
        let takeover = takeover != 0;
        try_pin_init!(Self {
            // Before there is a store that needs it.
            _: { dm::debugfs::init(c"dm-snap-persistent") },
            persistent <- Registration::new(c"persistent", module, takeover),
            compat <- Registration::new(c"P", module, takeover),
        })
    }
}

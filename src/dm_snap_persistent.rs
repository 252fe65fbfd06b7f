// SPDX-License-Identifier: GPL-2.0-only

//! Placeholder: the module says hello.

use kernel::prelude::*;

module! {
    type: Hello,
    name: "dm_snap_persistent",
    authors: ["The dm-snap-persistent authors"],
    description: "device-mapper persistent exception store",
    license: "GPL v2",
}

struct Hello;

impl kernel::Module for Hello {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        pr_info!("hello\n");
        Ok(Hello)
    }
}

impl Drop for Hello {
    fn drop(&mut self) {
        pr_info!("bye\n");
    }
}

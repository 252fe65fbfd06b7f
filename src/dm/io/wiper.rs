// SPDX-License-Identifier: GPL-2.0-only

//! Zeroing, perhaps before it is asked for.

use super::{
    request::Request,
    IoClient, //
};
use crate::dm::{
    Device,
    HeldDevice, //
};
use crate::format::Extent;
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};

/// Zeroes extents of a device, one of them in the background.
///
/// It needs no memory and no thread: [`Self::start`] submits the I/O before it returns. Dropping it
/// waits for that to be over.
#[pin_data(PinnedDrop)]
pub(crate) struct Wiper {
    client: Arc<IoClient>,
    /// What was started and not waited for. Then, and only then, `request` is in use.
    #[pin]
    under_way: Mutex<Option<Wipe>>,
    #[pin]
    request: Request,
}

/// I/O in the background.
struct Wipe {
    extent: Extent,
    /// Keeps the device open meanwhile.
    _device: HeldDevice,
}

impl Wiper {
    /// Makes a wiper that uses `client`.
    pub(crate) fn new(client: Arc<IoClient>) -> impl PinInit<Self> {
        pin_init!(Self {
            client,
            under_way <- new_mutex!(None, "Wiper::under_way"),
            request <- Request::new(),
        })
    }

    /// Starts to zero `extent` of `device`. [`Self::zero`] must be called before it is relied on.
    ///
    /// Sleeps as long as submitting I/O does, or until what was started before is over.
    pub(crate) fn start(&self, device: &Device, extent: Extent) {
        let mut under_way = self.under_way.lock();
        self.settle(&mut under_way);
        let held = device.hold();
        // SAFETY: `under_way`, which is `None` now, will keep the device open until `settle` or
        // `drop` has waited for the request. They also come before `client`, which has the zeroes,
        // and `request` go away.
        let started = unsafe { self.client.start_zero(&held, extent, self.request.notify()) };
        // What goes wrong here is tried again by `zero`, which reports it.
        if started.is_ok() {
            *under_way = Some(Wipe {
                extent,
                _device: held,
            });
        }
    }

    /// Makes `extent` of `device` read as zeroes. They may remain in a volatile cache. Sleeps.
    ///
    /// If it was started, this waits for it; if it was not, or failed, this does it.
    pub(crate) fn zero(&self, device: &Device, extent: Extent) -> Result {
        let mut under_way = self.under_way.lock();
        if self.settle(&mut under_way) == Some(extent) {
            return Ok(());
        }
        self.client.zero(device, extent)
    }

    /// Waits for what is under way; returns what it zeroed.
    fn settle(&self, under_way: &mut Option<Wipe>) -> Option<Extent> {
        let wipe = under_way.take()?;
        // SAFETY: `start` started it, and whoever waits for it takes it out of there before.
        let result = unsafe { self.request.wait() };
        result.ok().map(|()| wipe.extent)
    }
}

#[pinned_drop]
impl PinnedDrop for Wiper {
    fn drop(self: Pin<&mut Self>) {
        self.settle(&mut self.under_way.lock());
    }
}

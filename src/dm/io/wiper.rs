// SPDX-License-Identifier: GPL-2.0-only

//! Zeroing, perhaps before it is asked for.

use super::{request::Request, IoClient};
use crate::dm::{Device, HeldDevice};
use crate::format::Extent;
use kernel::{
    new_mutex,
    prelude::*,
    sync::{Arc, Mutex},
};

/// Zeroes extents of a device, one of them in the background.
///
/// It needs no memory and no thread: [`Self::start`] submits the I/O before it returns. Dropping it
/// waits for that to be over.
#[pin_data(PinnedDrop)]
pub(crate) struct Wiper {
    client: Arc<IoClient>,
    #[pin]
    state: Mutex<State>,
    #[pin]
    request: Request,
}

struct State {
    /// What was started and not waited for. Then, and only then, `request` is in use.
    under_way: Option<Wipe>,
    /// Whether a device that says that it can write zeroes is believed.
    trusting: bool,
}

/// I/O in the background.
struct Wipe {
    extent: Extent,
    /// Whether the device was asked to write zeroes by itself.
    offload: bool,
    /// Keeps the device open meanwhile.
    _device: HeldDevice,
}

impl Wiper {
    /// Makes a wiper that uses `client`.
    pub(crate) fn new(client: Arc<IoClient>) -> impl PinInit<Self> {
        let state = State {
            under_way: None,
            trusting: true,
        };
        pin_init!(Self {
            client,
            state <- new_mutex!(state, "Wiper::state"),
            request <- Request::new(),
        })
    }

    /// Starts to zero `extent` of `device`. [`Self::zero`] must be called before it is relied on.
    ///
    /// Sleeps as long as submitting I/O does, or until what was started before is over.
    pub(crate) fn start(&self, device: &Device, extent: Extent) {
        let mut state = self.state.lock();
        self.settle(&mut state);
        let offload = state.trusting && device.writes_zeroes();
        let held = device.hold();
        // SAFETY: `under_way`, which is `None` now, will keep the device open until `settle` or
        // `drop` has waited for the request. They also come before `client`, which has the zeroes,
        // and `request` go away.
        let started = unsafe {
            self.client
                .start_zero(&held, extent, offload, self.request.notify())
        };
        // What goes wrong here is tried again by `zero`, which reports it.
        if started.is_ok() {
            state.under_way = Some(Wipe {
                extent,
                offload,
                _device: held,
            });
        }
    }

    /// Makes `extent` of `device` read as zeroes. They may remain in a volatile cache. Sleeps.
    ///
    /// If it was started, this waits for it; if it was not, or failed, this does it.
    pub(crate) fn zero(&self, device: &Device, extent: Extent) -> Result {
        let mut state = self.state.lock();
        if self.settle(&mut state) == Some(extent) {
            return Ok(());
        }
        if state.trusting && device.writes_zeroes() {
            if self.client.zero(device, extent, true).is_ok() {
                return Ok(());
            }
            // A device may claim to write zeroes and still fail to: ordinary writes decide.
            state.trusting = false;
        }
        self.client.zero(device, extent, false)
    }

    /// Waits for what is under way; returns what it zeroed.
    fn settle(&self, state: &mut State) -> Option<Extent> {
        let wipe = state.under_way.take()?;
        // SAFETY: `start` started it, and whoever waits for it takes it out of `state` before.
        let result = unsafe { self.request.wait() };
        if result.is_err() && wipe.offload {
            state.trusting = false;
        }
        result.ok().map(|()| wipe.extent)
    }
}

#[pinned_drop]
impl PinnedDrop for Wiper {
    fn drop(self: Pin<&mut Self>) {
        self.settle(&mut self.state.lock());
    }
}

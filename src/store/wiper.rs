// SPDX-License-Identifier: GPL-2.0-only

//! Zeroing the next area before it is needed.

use crate::dm::{io::IoClient, Device, HeldDevice};
use crate::format::Extent;
use kernel::{
    impl_has_work, new_condvar, new_mutex, new_work,
    prelude::*,
    sync::{Arc, CondVar, Mutex},
    workqueue::{Queue, Work, WorkItem},
};

/// Zeroes one extent at a time in the background.
#[pin_data]
pub(super) struct Wiper {
    io: Arc<IoClient>,
    #[pin]
    work: Work<Self>,
    #[pin]
    state: Mutex<State>,
    /// Signalled when the work is over.
    #[pin]
    over: CondVar,
}

/// What the background is at.
enum State {
    /// Nothing, and nothing was done that anybody still asks for.
    Idle,
    /// The extent waits for the workqueue.
    Queued(HeldDevice, Extent, Offload),
    /// The workqueue is at it.
    Running,
    /// The extent was zeroed, and nobody asked for it yet.
    Done(Extent),
}

/// Whether the device is to be asked to write zeroes by itself.
type Offload = bool;

impl_has_work! {
    impl HasWork<Self> for Wiper { self.work }
}

impl Wiper {
    /// Makes a wiper that uses `io`. May sleep.
    pub(super) fn new(io: Arc<IoClient>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                io,
                work <- new_work!("Wiper::work"),
                state <- new_mutex!(State::Idle, "Wiper::state"),
                over <- new_condvar!("Wiper::over"),
            }),
            GFP_KERNEL,
        )
    }

    /// Begins to zero `extent` of `device` in the background, unless it is busy with another.
    pub(super) fn start(self: &Arc<Self>, queue: &Queue, device: &Device, extent: Extent) {
        let mut state = self.state.lock();
        if matches!(*state, State::Idle | State::Done(_)) {
            *state = State::Queued(device.hold(), extent, device.writes_zeroes());
            // Cannot be queued already, being idle; if it were, `finish` would be woken all the
            // same.
            let _ = queue.enqueue(self.clone());
        }
    }

    /// Makes `extent` of `device` zero: waits for the background, and does what that did not.
    pub(super) fn finish(&self, device: &Device, extent: Extent) -> Result {
        let mut state = self.state.lock();
        while matches!(*state, State::Queued(..) | State::Running) {
            self.over.wait(&mut state);
        }
        let done = matches!(*state, State::Done(zeroed) if zeroed == extent);
        *state = State::Idle;
        drop(state);
        if done {
            return Ok(());
        }
        let (sector, sectors) = (extent.sector, extent.sectors);
        self.io
            .zero(&device.hold(), sector, sectors, device.writes_zeroes())
    }
}

impl WorkItem for Wiper {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let job = core::mem::replace(&mut *this.state.lock(), State::Running);
        let state = match job {
            State::Queued(device, Extent { sector, sectors }, offload) => {
                // Whoever asks for the extent tries again, and reports what goes wrong then.
                match this.io.zero(&device, sector, sectors, offload) {
                    Ok(()) => State::Done(Extent { sector, sectors }),
                    Err(_) => State::Idle,
                }
            }
            other => other,
        };
        *this.state.lock() = state;
        this.over.notify_all();
    }
}

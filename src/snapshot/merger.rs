// SPDX-License-Identifier: GPL-2.0-only

//! Merging a snapshot into its origin.

use super::{
    core::{
        shard_of,
        Outcome,
        Step,
        Taken, //
    },
    leased::Leased,
    merge_io::{
        self,
        Slow,
        SlowIo, //
    },
    origin::{
        Devices,
        ShardCell, //
    },
    patience::Patience,
    snapshot::Snapshot,
    DM_MSG_PREFIX, //
};
use crate::dm::{
    message::dm_err,
    noio::{
        cond_resched,
        until_memory, //
    },
    plugged,
    BioList,
    WaitQueue,
    Workqueue, //
};
use ::core::sync::atomic::{
    AtomicBool,
    Ordering::SeqCst, //
};
use kernel::{
    impl_has_work,
    new_mutex,
    new_work,
    prelude::*,
    static_lock_class,
    sync::{
        Arc,
        Mutex, //
    },
    workqueue::{
        Work,
        WorkItem, //
    }, //
};

/// The thread that merges for one target.
#[pin_data]
pub(super) struct Merger {
    /// Whether its target wants it to run: from resume to suspend. Held while it is started or stopped.
    #[pin]
    wanted: Mutex<bool>,
    /// What is merged; `None` while nothing is.
    #[pin]
    snapshot: Mutex<Option<Leased<Snapshot>>>,
    running: AtomicBool,
    stopping: AtomicBool,
    /// For those who wait until it does not run any more.
    #[pin]
    stopped: WaitQueue,
    slow: SlowIo,
    #[pin]
    work: Work<Self>,
    queue: Workqueue,
}

impl_has_work! {
    impl HasWork<Self> for Merger { self.work }
}

impl Merger {
    /// One that does not run. May sleep.
    pub(super) fn new() -> Result<Arc<Self>> {
        Arc::try_pin_init(
            try_pin_init!(Self {
                wanted <- new_mutex!(false, "Merger::wanted"),
                snapshot <- new_mutex!(None, "Merger::snapshot"),
                running: AtomicBool::new(false),
                stopping: AtomicBool::new(false),
                stopped <- WaitQueue::new(c"Merger::stopped", static_lock_class!()),
                slow: SlowIo::new()?,
                work <- new_work!("Merger::work"),
                queue: Workqueue::new(c"ksnapmerge")?,
            }? Error),
            GFP_KERNEL,
        )
    }

    /// Its target is resumed: begins to merge `snapshot`, unless it does so already. Sleeps.
    pub(super) fn start(self: &Arc<Self>, snapshot: &Leased<Snapshot>) {
        let mut wanted = self.wanted.lock();
        *wanted = true;
        self.begin(snapshot);
    }

    /// Its target is suspended, or goes away: ends merging. What is sealed is merged, nothing else.
    /// Sleeps until it is over.
    pub(super) fn stop(&self) {
        let mut wanted = self.wanted.lock();
        *wanted = false;
        self.end();
    }

    /// Does something while it does not run. Sleeps.
    pub(super) fn without(self: &Arc<Self>, act: impl FnOnce()) {
        let wanted = self.wanted.lock();
        let snapshot = (*self.snapshot.lock()).clone();
        self.end();
        act();
        // One that was over already is not begun again: it may have failed.
        if let (true, Some(snapshot)) = (*wanted, snapshot) {
            self.begin(&snapshot);
        }
    }

    fn begin(self: &Arc<Self>, snapshot: &Leased<Snapshot>) {
        if !self.running.swap(true, SeqCst) {
            *self.snapshot.lock() = Some(snapshot.clone());
            let _ = self.queue.enqueue(self.clone());
        }
    }

    fn end(&self) {
        self.stopping.store(true, SeqCst);
        let snapshot = (*self.snapshot.lock()).clone();
        if let Some(snapshot) = snapshot {
            snapshot.wake_merge();
        }
        self.stopped.wait_until(|| !self.running.load(SeqCst));
        // They are still on their way out.
        self.queue.flush();
        self.slow.wait();
        self.stopping.store(false, SeqCst);
    }

    /// Merges until all is merged, or it is to stop.
    fn merge(&self, snapshot: &Leased<Snapshot>) -> Outcome {
        let Some(devices) = snapshot.devices() else {
            return Outcome::Failed;
        };
        let state = snapshot.state();
        // The last chunk may lie on the origin, or the snapshot, in part only.
        let size = devices.origin.sectors().min(state.sectors());
        snapshot.tell_merge(|merge| merge.begin(state.shift(), size));
        loop {
            let seen = snapshot.events_of_merge();
            if self.stopping.load(SeqCst) {
                snapshot.tell_merge(|merge| merge.stop());
            }
            if let Some(outcome) = self.do_steps(snapshot, &devices) {
                return outcome;
            }
            let origin = snapshot.origin();
            origin.wait_for_progress(|| snapshot.events_of_merge() != seen);
            snapshot.tell_merge(|merge| merge.look_again());
        }
    }

    /// Does what is to be done until there is nothing, or the merge is over.
    fn do_steps(&self, snapshot: &Leased<Snapshot>, devices: &Devices) -> Option<Outcome> {
        let (origin, slot) = (snapshot.origin(), snapshot.slot());
        let cell = |old: u64| -> &ShardCell {
            let shift = snapshot.state().shift();
            origin.cell(shard_of(old << shift))
        };
        let slow = |what| self.slow.start(snapshot, devices, what);
        loop {
            match snapshot.next_of_merge() {
                Step::Take { skip, max, copy } => {
                    if !snapshot.state().is_valid() {
                        dm_err!("Snapshot is invalid: can't merge");
                        snapshot.tell_merge(|merge| {
                            merge.stop();
                            merge.taken(Some(Taken::none()));
                        });
                        continue;
                    }
                    slow(Slow::Take { skip, max, copy });
                }
                Step::Flush => slow(Slow::Flush),
                Step::Clear(count) => slow(Slow::Clear(count)),
                Step::Reserve(batch, run) => {
                    let shard = &cell(run.old).shard;
                    let reserved = until_memory(|| shard.lock().reserve_merged(slot, &run));
                    if reserved.is_none() {
                        corrupt(run.old);
                    }
                    snapshot.tell_merge(|merge| merge.reserved(batch, reserved));
                }
                Step::Cover { start, end } => {
                    let waits = origin.cover(start, end, Patience::until(&self.stopping));
                    if waits.is_err() {
                        dm_err!("No room in another snapshot: shutting down merge.");
                    }
                    snapshot.tell_merge(|merge| match waits {
                        Ok(None) => merge.covered(),
                        Ok(Some(until)) => merge.waits(until),
                        Err(_) => merge.refused(),
                    });
                }
                Step::Copy(copy) => merge_io::copy(snapshot, devices, copy),
                Step::Remove(batch, run, reserved) => {
                    let there = cell(run.old).shard.lock().merged(slot, &run, reserved);
                    if !there {
                        corrupt(run.old);
                    }
                    snapshot.tell_merge(|merge| merge.removed(batch, there));
                }
                Step::Release(batch, run) => {
                    cell(run.old).shard.lock().release_merged(slot, &run);
                    snapshot.tell_merge(|merge| merge.released(batch));
                }
                Step::Again(bios) => Self::release(snapshot, devices, bios),
                Step::Lose(mut bios) => {
                    while let Some(bio) = bios.pop() {
                        bio.end(Err(EIO));
                    }
                }
                Step::Wait => return None,
                Step::Over(outcome) => return Some(outcome),
            }
            cond_resched();
        }
    }

    /// Lets writes go on that waited for chunks that were merged, or were to be.
    fn release(snapshot: &Leased<Snapshot>, devices: &Devices, mut bios: BioList) {
        plugged(|| {
            while let Some(bio) = bios.pop() {
                if let Some(bio) = snapshot.write_merging(bio, devices, Patience::none()) {
                    bio.submit();
                }
            }
        });
    }
}

/// The table does not have what the list has.
fn corrupt(old: u64) {
    dm_err!(
        "Corruption detected: exception for block {} is on disk but not in memory",
        old
    );
}

impl WorkItem for Merger {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let snapshot = (*this.snapshot.lock()).clone();
        if let Some(snapshot) = snapshot {
            if this.merge(&snapshot) == Outcome::Failed {
                snapshot.state().set_merge_failed(true);
            }
        }
        *this.snapshot.lock() = None;
        this.running.store(false, SeqCst);
        this.stopped.wake_all();
    }
}

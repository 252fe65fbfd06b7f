// SPDX-License-Identifier: GPL-2.0-only

//! Merging a snapshot into its origin.

use super::{
    core::{shard_of, span_end},
    leased::Leased,
    origin::Devices,
    snapshot::{borrowed, Snapshot},
    DM_MSG_PREFIX,
};
use crate::dm::{
    kcopyd::{CopyJob, CopyOf, Region},
    message::dm_err,
    noio::{cond_resched, until_memory},
    plugged, BioList, WaitQueue, Workqueue,
};
use ::core::sync::atomic::{AtomicBool, Ordering::SeqCst};
use kernel::{
    c_str, impl_has_work, new_mutex, new_work,
    prelude::*,
    static_lock_class,
    sync::{Arc, Completion, Mutex},
    workqueue::{Work, WorkItem},
};

/// The thread that merges for one target.
#[pin_data]
pub(super) struct Merger {
    /// What is merged; `None` while nothing is.
    #[pin]
    snapshot: Mutex<Option<Leased<Snapshot>>>,
    running: AtomicBool,
    stopping: AtomicBool,
    /// For those who wait until it does not run any more.
    #[pin]
    stopped: WaitQueue,
    #[pin]
    work: Work<Self>,
    queue: Workqueue,
}

impl_has_work! {
    impl HasWork<Self> for Merger { self.work }
}

/// Why a merge ended before its time.
enum Failed {
    /// What was to be merged is on the COW device still.
    Safe,
    /// It may be there or not.
    Lost,
}

impl Merger {
    /// One that does not run. May sleep.
    pub(super) fn new() -> Result<Arc<Self>> {
        Arc::try_pin_init(
            try_pin_init!(Self {
                snapshot <- new_mutex!(None, "Merger::snapshot"),
                running: AtomicBool::new(false),
                stopping: AtomicBool::new(false),
                stopped <- WaitQueue::new(c_str!("Merger::stopped"), static_lock_class!()),
                work <- new_work!("Merger::work"),
                queue: Workqueue::new(c_str!("ksnapmerge"))?,
            }? Error),
            GFP_KERNEL,
        )
    }

    /// Begins to merge `snapshot`, unless it does so already.
    pub(super) fn start(self: &Arc<Self>, snapshot: &Leased<Snapshot>) {
        if !self.running.swap(true, SeqCst) {
            *self.snapshot.lock() = Some(snapshot.clone());
            let _ = self.queue.enqueue(self.clone());
        }
    }

    /// Ends merging, at the next chance. Sleeps until it is over.
    pub(super) fn stop(&self) {
        self.stopping.store(true, SeqCst);
        let snapshot = (*self.snapshot.lock()).clone();
        if let Some(snapshot) = snapshot {
            snapshot.origin().look_again();
        }
        self.stopped.wait_until(|| !self.running.load(SeqCst));
        // It is still on its way out.
        self.queue.flush();
        self.stopping.store(false, SeqCst);
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }

    /// Merges until all is merged, or it is to stop.
    fn merge(&self, snapshot: &Leased<Snapshot>) -> Result<(), Failed> {
        // From when it was a snapshot like others.
        snapshot.wait_until_idle();
        while !self.is_stopping() {
            if !snapshot.state().is_valid() {
                dm_err!("Snapshot is invalid: can't merge");
                return Ok(());
            }
            let devices = snapshot.devices().ok_or(Failed::Safe)?;
            let run = snapshot.store().prepare_merge(borrowed(&devices));
            let Some(run) = run.map_err(|_| {
                dm_err!("Read error in exception store: shutting down merge");
                Failed::Safe
            })?
            else {
                return Ok(());
            };
            let shift = snapshot.state().shift();
            // What of the run lies in one region of the table, from its end on.
            let last = run.last.old << shift;
            let first = run.last.old + 1 - u64::from(run.count);
            let span = (span_end(last) - (1 << super::core::SPAN_SHIFT)) >> shift;
            let cell = snapshot.origin().cell(shard_of(last));
            let first = {
                let shard = cell.shard.lock();
                shard
                    .region_start(snapshot.slot(), run.last.old)
                    .max(first.max(span))
            };
            let count = run.last.old + 1 - first;
            let start = first << shift;
            // The last chunk may lie on the origin, or the snapshot, in part only.
            let size = devices.origin.sectors().min(snapshot.state().sectors());
            let end = ((run.last.old + 1) << shift).min(size.max(start));
            let stop = || self.is_stopping();
            if !snapshot.origin().cover(start, end, stop) {
                return Ok(());
            }
            until_memory(|| cell.shard.lock().seal(snapshot.slot(), first, count));
            let new = run.last.new + 1 - count;
            let merged = self.merge_run(snapshot, &devices, start, end, new << shift, count);
            if matches!(merged, Err(Failed::Lost)) {
                let mut bios = cell.shard.lock().give_up(snapshot.slot());
                while let Some(bio) = bios.pop() {
                    bio.end(Err(EIO));
                }
                return merged;
            }
            let (bios, there) = cell.shard.lock().unseal(snapshot.slot(), merged.is_ok());
            Self::release(snapshot, &devices, bios);
            merged?;
            if !there {
                dm_err!(
                    "Corruption detected: exception for block {} is on disk but not in memory",
                    run.last.old
                );
                return Err(Failed::Safe);
            }
            cond_resched();
        }
        Ok(())
    }

    /// Merges chunks that are sealed: sectors `start..end` of the origin, from sector `cow` of the
    /// COW device on, which are the last `count` records.
    fn merge_run(
        &self,
        snapshot: &Leased<Snapshot>,
        devices: &Devices,
        start: u64,
        end: u64,
        cow: u64,
        count: u64,
    ) -> Result<(), Failed> {
        let origin = snapshot.origin();
        // Writes to the chunks that are on their way to the COW device.
        let writes = &origin.cell(shard_of(start)).merge_writes;
        let epoch = {
            let _shard = origin.cell(shard_of(start)).shard.lock();
            writes.close()
        };
        origin.wait_for_progress(|| {
            let _shard = origin.cell(shard_of(start)).shard.lock();
            writes.advance();
            writes.is_over(epoch)
        });
        if end > start {
            let over = Copied::new();
            let job = over.job();
            let region = |device, sector| Region {
                device,
                sector,
                count: end - start,
            };
            let to = [region(&devices.origin, start)];
            origin.kcopyd().copy(region(&devices.cow, cow), &to, job);
            over.wait()?;
        }
        devices.origin.flush().map_err(|_| {
            dm_err!("Flush after merge failed: shutting down merge");
            Failed::Safe
        })?;
        let count = u32::try_from(count).map_err(|_| Failed::Safe)?;
        snapshot
            .store()
            .commit_merge(borrowed(devices), count)
            .map_err(|_| {
                dm_err!("Write error in exception store: shutting down merge");
                Failed::Lost
            })
    }

    /// Lets writes go on that waited for chunks that were merged, or were to be.
    fn release(snapshot: &Leased<Snapshot>, devices: &Devices, mut bios: BioList) {
        plugged(|| {
            while let Some(bio) = bios.pop() {
                if let Some(bio) = snapshot.write_merging(bio, devices) {
                    bio.submit();
                }
            }
        });
    }
}

impl WorkItem for Merger {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let snapshot = (*this.snapshot.lock()).clone();
        if let Some(snapshot) = snapshot {
            if this.merge(&snapshot).is_err() {
                snapshot.state().set_merge_failed(true);
            }
        }
        *this.snapshot.lock() = None;
        this.running.store(false, SeqCst);
        this.stopped.wake_all();
    }
}

/// What became of a copy that is waited for.
struct Copied(Arc<CopiedInner>);

#[pin_data]
struct CopiedInner {
    read_failed: AtomicBool,
    write_failed: AtomicBool,
    #[pin]
    over: Completion,
}

/// The job of that copy.
struct CopiedJob(Arc<CopiedInner>);

impl Copied {
    /// Sleeps until there is memory.
    fn new() -> Self {
        Self(until_memory(|| {
            Arc::pin_init(
                pin_init!(CopiedInner {
                    read_failed: AtomicBool::new(false),
                    write_failed: AtomicBool::new(false),
                    over <- Completion::new(),
                }),
                GFP_KERNEL,
            )
        }))
    }

    /// Sleeps until there is memory.
    fn job(&self) -> KBox<CopyOf<CopiedJob>> {
        until_memory(|| CopyOf::new(CopiedJob(self.0.clone())))
    }

    /// Sleeps until the copy is over.
    fn wait(&self) -> Result<(), Failed> {
        self.0.over.wait_for_completion();
        if self.0.read_failed.load(SeqCst) {
            dm_err!("Read error: shutting down merge.");
            return Err(Failed::Safe);
        }
        if self.0.write_failed.load(SeqCst) {
            dm_err!("Write error: shutting down merge.");
            return Err(Failed::Safe);
        }
        Ok(())
    }
}

impl CopyJob for CopiedJob {
    fn done(job: KBox<CopyOf<Self>>, read_failed: bool, write_failed: usize) {
        job.0.read_failed.store(read_failed, SeqCst);
        job.0.write_failed.store(write_failed != 0, SeqCst);
        job.0.over.complete_all();
    }
}

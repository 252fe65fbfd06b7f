// SPDX-License-Identifier: GPL-2.0-only

//! The requests of a merge.

use super::{
    core::{
        BatchId,
        MergeCopy,
        Run,
        Taken, //
    },
    leased::Leased,
    origin::Devices,
    snapshot::{
        borrowed,
        Snapshot, //
    },
    DM_MSG_PREFIX, //
};
use crate::dm::{
    kcopyd::{
        CopyJob,
        CopyOf,
        Region, //
    },
    message::dm_err,
    noio::until_memory,
    Workqueue, //
};
use crate::memory::{
    Vec,
    When, //
};
use kernel::{
    impl_has_work,
    new_mutex,
    new_work,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
    workqueue::{
        Work,
        WorkItem, //
    }, //
};

/// What a merge does that takes long, one after the other, while it goes on otherwise.
pub(super) struct SlowIo {
    io: Arc<Io>,
    // Waits for the work when it is dropped.
    queue: Workqueue,
}

/// What is to be done.
pub(super) enum Slow {
    /// The end of the list is to be read, without the last `skip` records, `max` at most.
    Take {
        /// How many to skip.
        skip: u64,
        /// How many to read.
        max: u32,
        /// For [`Taken::new`].
        copy: u64,
    },
    /// The origin is to be flushed.
    Flush,
    /// So many records are to be cleared at the end of the list.
    Clear(u32),
}

#[pin_data]
struct Io {
    #[pin]
    todo: Mutex<Option<(Leased<Snapshot>, Devices, Slow)>>,
    #[pin]
    work: Work<Self>,
}

impl_has_work! {
    impl HasWork<Self> for Io { self.work }
}

impl SlowIo {
    /// Has nothing to do. May sleep.
    pub(super) fn new() -> Result<Self> {
        let io = Arc::pin_init(
            pin_init!(Io {
                todo <- new_mutex!(None, "SlowIo::todo"),
                work <- new_work!("SlowIo::work"),
            }),
            GFP_KERNEL,
        )?;
        Ok(Self {
            io,
            queue: Workqueue::new(c"ksnapmergeio")?,
        })
    }

    /// Begins with something. It is to do one thing at a time. May sleep.
    pub(super) fn start(&self, snapshot: &Leased<Snapshot>, devices: &Devices, what: Slow) {
        *self.io.todo.lock() = Some((snapshot.clone(), devices.clone(), what));
        let _ = self.queue.enqueue(self.io.clone());
    }

    /// Sleeps until it does nothing.
    pub(super) fn wait(&self) {
        self.queue.flush();
    }
}

impl WorkItem for Io {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let todo = this.todo.lock().take();
        let Some((snapshot, devices, what)) = todo else {
            return;
        };
        match what {
            Slow::Take { skip, max, copy } => {
                let records = last_records(&snapshot, &devices, skip, max).inspect_err(|_| {
                    dm_err!("Read error in exception store: shutting down merge");
                });
                let shift = snapshot.state().shift();
                let taken = records.ok().map(|runs| Taken::new(runs, shift, copy));
                snapshot.tell_merge(|merge| merge.taken(taken));
            }
            Slow::Flush => {
                let flushed = devices.origin.flush().inspect_err(|_| {
                    dm_err!("Flush after merge failed: shutting down merge");
                });
                snapshot.tell_merge(|merge| merge.flushed(flushed.is_ok()));
            }
            Slow::Clear(count) => {
                let store = snapshot.store();
                let cleared = store.commit_merge(borrowed(&devices), count);
                let cleared = cleared.inspect_err(|_| {
                    dm_err!("Write error in exception store: shutting down merge");
                });
                snapshot.traced().merge_batch(count, cleared.is_ok());
                snapshot.tell_merge(|merge| merge.cleared(cleared.is_ok()));
            }
        }
        snapshot.wake_merge();
    }
}

/// Reads the end of the list. If memory is short, less of it.
fn last_records(
    snapshot: &Leased<Snapshot>,
    devices: &Devices,
    skip: u64,
    mut max: u32,
) -> Result<Vec<Run>> {
    let mut records = until_memory(|| {
        let mut records = Vec::new();
        let reserved = records.reserve(max as usize, When::Sleep);
        if reserved.is_err() {
            max = (max / 2).max(1);
        }
        reserved.map(|()| records)
    });
    let mut add = |e: crate::format::Exception| {
        // There is room for as many as were asked for.
        let _ = records.push(Run::new(e.old, e.new));
    };
    let store = snapshot.store();
    store.last_exceptions(borrowed(devices), skip, max, &mut add)?;
    Ok(records)
}

/// Starts a copy. May sleep.
pub(super) fn copy(snapshot: &Leased<Snapshot>, devices: &Devices, copy: MergeCopy) {
    let job = until_memory(|| {
        CopyOf::new(Merging {
            snapshot: snapshot.clone(),
            batch: copy.batch,
        })
    });
    let region = |device, sector| Region {
        device,
        sector,
        count: copy.sectors,
    };
    let to = [region(&devices.origin, copy.origin)];
    let kcopyd = snapshot.origin().kcopyd();
    kcopyd.copy(region(&devices.cow, copy.cow), &to, job);
}

/// A copy in kcopyd's hands.
struct Merging {
    snapshot: Leased<Snapshot>,
    batch: BatchId,
}

impl CopyJob for Merging {
    fn done(job: KBox<CopyOf<Self>>, read_failed: bool, write_failed: usize) {
        if read_failed {
            dm_err!("Read error: shutting down merge.");
        } else if write_failed != 0 {
            dm_err!("Write error: shutting down merge.");
        }
        let success = !read_failed && write_failed == 0;
        let snapshot = &job.snapshot;
        if snapshot.tell_merge(|merge| merge.copied(job.batch, success)) {
            snapshot.wake_merge();
        }
    }
}

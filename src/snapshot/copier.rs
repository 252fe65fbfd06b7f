// SPDX-License-Identifier: GPL-2.0-only

//! Copies that pass through memory of ours, where that saves a request:
//!
//! - Copies with several chunk sizes for one write to the origin: what they are of is read once.
//! - A copy for a write to a part of a chunk of a snapshot: the write is put into it, and they are one.
//! - A copy that nothing else waits beside, on a COW device that writes to stable storage without a flush
//!   (`REQ_FUA`): its record needs no flush before it.
//!
//! All others are kcopyd's, and these too where there is no memory.

use super::{
    copy_job::CopyJob,
    core::{
        Spare,
        Why,
        MAX_MEMBERS, //
    },
    types::Kernel, //
};
use crate::dm::{
    io::{
        bytes_of,
        sectors_of,
        IoClient,
        Place,
        Transfer,
        TransferJob,
        MAX_DEVICES,
        MAX_WRITES, //
    },
    kcopyd::CopyOf,
    params,
    BioList,
    DeviceRef,
    Workqueue, //
};
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    }, //
};

/// Memory for the copies of an origin, in bytes, at most.
const MOST_MEMORY: usize = 4 << 20;

/// What one copy may take of it.
const MOST_AT_ONCE: usize = 1 << 20;

/// Transfers that wait for something to do, at most.
const MOST_IDLE: usize = 64;

// A write goes to all members of a copy.
const _: () = assert!(MAX_MEMBERS == MAX_DEVICES);

/// The transfers of an origin.
#[pin_data]
pub(super) struct Copier {
    io: Arc<IoClient>,
    #[pin]
    pool: SpinLock<Pool>,
    queue: Arc<Workqueue>,
}

/// Memory that was used and will be again: getting it takes long.
struct Pool {
    idle: [Option<Memory>; MOST_IDLE],
    /// Bytes that all transfers have together.
    bytes: usize,
}

impl Pool {
    /// Takes the smallest of those that are idle and have so many bytes.
    fn take(&mut self, fits: impl Fn(usize) -> bool) -> Option<Memory> {
        let capacity = |idle: &Option<Memory>| {
            let capacity = idle.as_ref().map(|idle| idle.capacity());
            capacity.filter(|capacity| fits(*capacity))
        };
        let fitting = self.idle.iter_mut().filter(|idle| capacity(idle).is_some());
        fitting.min_by_key(|idle| capacity(idle))?.take()
    }

    /// Bytes that those have that are idle.
    fn idle_bytes(&self) -> usize {
        self.idle.iter().flatten().map(|idle| idle.capacity()).sum()
    }
}

impl Copier {
    /// Has no memory yet. May sleep.
    pub(super) fn new() -> Result<impl PinInit<Self>> {
        let io = Arc::new(IoClient::new()?, GFP_KERNEL)?;
        let queue = Arc::new(Workqueue::new(c"ksnapcopy")?, GFP_KERNEL)?;
        Ok(pin_init!(Self {
            io,
            pool <- new_spinlock!(
                Pool {
                    idle: [const { None }; MOST_IDLE],
                    bytes: 0,
                },
                "Copier::pool"
            ),
            queue,
        }))
    }

    /// Sleeps until nothing is done any more for copies that have ended.
    pub(super) fn flush(&self) {
        self.queue.flush();
    }

    /// A transfer for the copies that are to be started, if one saves a request and there is memory for it.
    /// It does if they are to be written to stable storage. May sleep.
    pub(super) fn transfer_for(&self, spare: &Spare<Kernel>, stable: bool) -> Option<Memory> {
        let (count, from, until) = spare.to_be_started(MAX_WRITES)?;
        let worth_it = count > 1 || spare.why() == Some(Why::Snapshot) || stable;
        if !worth_it || params::copy_is_throttled() {
            return None;
        }
        let mut transfer = self.get(bytes_of(until - from))?;
        *transfer.as_mut().job() = Copies::new(from);
        Some(transfer)
    }

    fn get(&self, bytes: usize) -> Option<Memory> {
        if bytes > MOST_AT_ONCE {
            return None;
        }
        loop {
            let unfit = {
                let mut pool = self.pool.lock();
                if let Some(transfer) = pool.take(|idle| idle >= bytes && idle / 4 <= bytes) {
                    return Some(transfer);
                }
                if pool.bytes + bytes <= MOST_MEMORY {
                    pool.bytes += bytes;
                    break;
                }
                // There is room for it if enough is idle.
                if pool.bytes - pool.idle_bytes() + bytes > MOST_MEMORY {
                    return None;
                }
                let unfit = pool.take(|_| true)?;
                pool.bytes -= unfit.capacity();
                unfit
            };
            drop(unfit);
        }
        let (io, queue) = (self.io.clone(), self.queue.clone());
        let made = Transfer::new(io, queue, bytes, Copies::new(0)).ok();
        if made.is_none() {
            self.pool.lock().bytes -= bytes;
        }
        made
    }

    /// Keeps a transfer that has nothing to do for the next one who needs it. May sleep.
    pub(super) fn put(&self, mut transfer: Memory) {
        transfer.as_mut().clear();
        let mut pool = self.pool.lock();
        match pool.idle.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(transfer),
            None => {
                pool.bytes -= transfer.capacity();
                drop(pool);
                drop(transfer);
            }
        }
    }
}

/// A transfer of copies.
type Memory = Pin<KBox<Transfer<Copies>>>;

/// What a transfer copies.
pub(super) struct Copies {
    stage: Stage,
    parts: [Option<Part>; MAX_WRITES],
    /// The first sector of the origin that is read, and the first one behind them.
    from: u64,
    until: u64,
}

/// What a transfer does next.
#[derive(Clone, Copy)]
enum Stage {
    Read,
    Write,
    End,
}

/// One of the copies of a transfer.
struct Part {
    /// What is to be done when it is over.
    job: KBox<CopyOf<CopyJob>>,
    /// The first sector of the origin that it is of.
    sector: u64,
    /// Writes to the snapshot that were put into it.
    carried: BioList,
}

impl Copies {
    fn new(from: u64) -> Self {
        Self {
            stage: Stage::Read,
            parts: [const { None }; MAX_WRITES],
            from,
            until: from,
        }
    }
}

/// A copy that is to be made: the job, and where it goes.
type Planned = (KBox<CopyOf<CopyJob>>, [Option<Place>; MAX_MEMBERS]);

/// Adds a copy of the origin's sectors from `sector` on to a transfer; gives it back if there is no room.
pub(super) fn add(
    mut transfer: Pin<&mut Transfer<Copies>>,
    job: KBox<CopyOf<CopyJob>>,
    sector: u64,
    to: [Option<Place>; MAX_MEMBERS],
) -> Result<(), Planned> {
    let sectors = job.sectors;
    let room = sectors_of(transfer.capacity());
    let copies = transfer.as_mut().job();
    let from = copies.from;
    let fits = sector >= from && sector + sectors <= from + room;
    let place = copies.parts.iter().position(Option::is_none);
    let Some(write) = place.filter(|_| fits) else {
        return Err((job, to));
    };
    copies.until = copies.until.max(sector + sectors);
    copies.parts[write] = Some(Part {
        job,
        sector,
        carried: BioList::new(),
    });
    transfer.plan_write(write, sector - from, sectors, to);
    Ok(())
}

/// Has a transfer begin to copy from `source` what was added, to stable storage if `stable`. Returns how many
/// sectors are read once and copied once more.
pub(super) fn begin(mut transfer: Memory, source: &DeviceRef, stable: bool) -> u64 {
    let copies = transfer.as_mut().job();
    let copied = copies.parts.iter().flatten().map(|part| part.job.sectors);
    let copied: u64 = copied.sum();
    let (from, sectors) = (copies.from, copies.until - copies.from);
    transfer.as_mut().plan_read((source.clone(), from), sectors);
    transfer.as_mut().set_stable(stable);
    transfer.go_on();
    copied.saturating_sub(sectors)
}

impl TransferJob for Copies {
    fn go_on(mut transfer: Pin<KBox<Transfer<Self>>>) {
        let is_read = !transfer.read_failed();
        let copies = transfer.as_mut().job();
        let alone = copies.parts.iter().flatten().count() == 1;
        let stage = &mut copies.stage;
        match stage {
            Stage::Read => {
                *stage = Stage::Write;
                transfer.read();
            }
            Stage::Write if is_read => {
                *stage = Stage::End;
                overlay(transfer.as_mut());
                transfer.write();
            }
            Stage::Write if !alone => copy_each(transfer),
            Stage::Write | Stage::End => end(transfer),
        }
    }
}

/// What copies of several sizes are of could not be read as a whole: those that can be read are made each by itself.
fn copy_each(mut transfer: Memory) {
    let mut parts = take_parts(transfer.as_mut());
    let mut planned = [const { None }; MAX_WRITES];
    for (write, (planned, part)) in planned.iter_mut().zip(&mut parts).enumerate() {
        let (from, to) = transfer.as_mut().take_places(write);
        if let (Some(part), Some((source, _))) = (part.take(), from) {
            *planned = Some((part, source, to));
        }
    }
    give_back(transfer, planned.iter().flatten().map(|(part, ..)| part));
    for (part, source, to) in planned.into_iter().flatten() {
        let origin = part.job.origin();
        origin.copy_by_kcopyd(part.job, (&source, part.sector), &to);
    }
}

/// Puts the writes to a snapshot that wait into what was read, unless that is copied to others as well.
fn overlay(transfer: Pin<&mut Transfer<Copies>>) {
    let (copies, memory) = transfer.job_and_memory();
    let from = copies.from;
    let [Some(part), None, ..] = &mut copies.parts else {
        return;
    };
    let mut writes = part.job.overlay(part.sector + part.job.sectors);
    while let Some(bio) = writes.pop() {
        let first = bytes_of(bio.sector() - from);
        let bytes = first..first + bytes_of(bio.sectors().into());
        bio.copy_data(&mut memory[bytes]);
        part.carried.push(bio);
    }
}

fn take_parts(transfer: Pin<&mut Transfer<Copies>>) -> [Option<Part>; MAX_WRITES] {
    ::core::mem::replace(&mut transfer.job().parts, [const { None }; MAX_WRITES])
}

/// Gives a transfer back to the origin of its parts, which are not over yet: so the origin is there.
fn give_back<'a>(transfer: Memory, mut parts: impl Iterator<Item = &'a Part>) {
    if let Some(part) = parts.next() {
        part.job.origin().copier().put(transfer);
    }
}

/// All is over, or was not begun since nothing could be read. Sleeps.
fn end(mut transfer: Memory) {
    let parts = take_parts(transfer.as_mut());
    let read_failed = transfer.read_failed();
    let failed: [usize; MAX_WRITES] = ::core::array::from_fn(|write| transfer.write_failed(write));
    let stable = transfer.is_stable();
    give_back(transfer, parts.iter().flatten());
    for (part, failed) in parts.into_iter().zip(failed) {
        if let Some(part) = part {
            let failed = if read_failed { usize::MAX } else { failed };
            CopyJob::over(part.job, failed, stable, part.carried);
        }
    }
}

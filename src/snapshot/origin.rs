// SPDX-License-Identifier: GPL-2.0-only

//! An origin: a device that there are snapshots of.

use super::{
    copier::{
        self,
        Copier, //
    },
    copy_job::CopyJob,
    core::{
        shard_of,
        table::Table,
        Ahead,
        AheadLimits,
        CopyId,
        Cover,
        Epochs,
        Finished,
        Incoming,
        OriginWrite,
        Shard,
        SlotId,
        Spare,
        Why,
        MAX_MEMBERS,
        SHARDS, //
    },
    leased::{
        Leased,
        Quiesce, //
    },
    patience::Patience,
    snapshot::Snapshot,
    tracking::Tracking,
    types::Kernel, //
};
use crate::dm::{
    io::Place,
    kcopyd::{
        CopyOf,
        Kcopyd,
        Region,
        Throttle, //
    },
    noio::{
        sleep_ms,
        until_memory,
        NoIo, //
    },
    params,
    plugged,
    Bio,
    BioList,
    DeviceRef,
    Keeping,
    WaitQueue,
    Workqueue, //
};
use crate::format::{
    Exception,
    NoMemory, //
};
use crate::memory::When;
use ::core::sync::atomic::{
    AtomicU64,
    Ordering::SeqCst, //
};
use kernel::{
    impl_has_work,
    new_spinlock,
    new_work,
    prelude::*,
    static_lock_class,
    sync::{
        Arc,
        SpinLock, //
    },
    workqueue::{
        Work,
        WorkItem, //
    }, //
};

/// A shard and what is counted without its lock.
#[pin_data]
pub(super) struct ShardCell {
    /// Reads of snapshots that went to the origin.
    pub(super) reads: Epochs,
    #[pin]
    pub(super) shard: SpinLock<Shard<Kernel>>,
}

impl ShardCell {
    fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            reads: Epochs::new(),
            shard <- new_spinlock!(Shard::new(AheadLimits::USUAL), "Origin::shard"),
        })
    }

    /// Counts a read of the origin for a snapshot; returns its epoch.
    pub(super) fn begin_read(&self) -> u64 {
        let _shard = self.shard.lock();
        self.reads.begin()
    }

    /// Adds a snapshot with chunks of `1 << shift` sectors. Sleeps.
    pub(super) fn add_slot(
        &self,
        id: SlotId,
        snapshot: &Leased<Snapshot>,
        shift: u32,
        table: Table,
    ) {
        loop {
            let mut shard = self.shard.lock();
            if shard.reserve_slot(When::Atomic).is_ok() {
                shard.add_slot(id, snapshot.clone(), shift, table);
                return;
            }
            drop(shard);
            sleep_ms(1);
        }
    }
}

/// An origin. [`registry`](super::registry) has one for each device that a table calls an origin.
#[pin_data]
pub(super) struct Origin {
    #[pin]
    shards: [ShardCell; SHARDS],
    /// Copies for all snapshots of the origin.
    kcopyd: Kcopyd,
    /// Copies that kcopyd cannot make as well.
    #[pin]
    copier: Copier,
    /// Snapshots of the origin.
    snapshots: AtomicU64,
    /// Chunks that are being copied.
    copying: AtomicU64,
    /// Sectors that are being copied.
    copying_sectors: AtomicU64,
    /// For those who wait until `copying` is small.
    #[pin]
    room: WaitQueue,
    /// Copies that were finished, ever.
    finished: AtomicU64,
    /// For those who wait until `finished` moves, or a merge may go on.
    #[pin]
    progress: WaitQueue,
    /// The shards in which reads ended that somebody may wait for.
    ended: AtomicU64,
    /// Looks after `ended`.
    #[pin]
    work: Work<Self>,
    // Waits for the work when it is dropped.
    queue: Workqueue,
}

impl_has_work! {
    impl HasWork<Self> for Origin { self.work }
}

impl Origin {
    /// An origin without snapshots. May sleep.
    pub(super) fn new() -> Result<Arc<Self>> {
        Arc::try_pin_init(
            try_pin_init!(Self {
                shards <- pin_init::pin_init_array_from_fn(|_| ShardCell::new()),
                kcopyd: Kcopyd::new(&Throttle::of_module())?,
                copier <- Copier::new()?,
                snapshots: AtomicU64::new(0),
                copying: AtomicU64::new(0),
                copying_sectors: AtomicU64::new(0),
                room <- WaitQueue::new(c"Origin::room", static_lock_class!()),
                finished: AtomicU64::new(0),
                progress <- WaitQueue::new(c"Origin::progress", static_lock_class!()),
                ended: AtomicU64::new(0),
                work <- new_work!("Origin::work"),
                queue: Workqueue::new(c"ksnaporigin")?,
            }? Error),
            GFP_KERNEL,
        )
    }

    /// The shard with this number.
    pub(super) fn cell(&self, shard: usize) -> &ShardCell {
        // Always in bounds, by the remainder.
        &self.shards[shard % SHARDS]
    }

    /// All shards.
    pub(super) fn cells(&self) -> impl Iterator<Item = &ShardCell> {
        self.shards.iter()
    }

    /// For copies.
    pub(super) fn kcopyd(&self) -> &Kcopyd {
        &self.kcopyd
    }

    /// For copies that kcopyd cannot make as well.
    pub(super) fn copier(&self) -> &Copier {
        &self.copier
    }

    /// Whether the origin has snapshots.
    pub(super) fn has_snapshots(&self) -> bool {
        self.snapshots() != 0
    }

    /// How many snapshots the origin has.
    pub(super) fn snapshots(&self) -> u64 {
        self.snapshots.load(SeqCst)
    }

    /// How many chunks are being copied.
    pub(super) fn copying(&self) -> u64 {
        self.copying.load(SeqCst)
    }

    /// The origin gets a snapshot.
    pub(super) fn snapshot_added(&self) {
        self.snapshots.fetch_add(1, SeqCst);
    }

    /// The origin loses a snapshot.
    pub(super) fn snapshot_removed(&self) {
        self.snapshots.fetch_sub(1, SeqCst);
    }

    /// Copies that were finished, ever.
    pub(super) fn finished_count(&self) -> u64 {
        self.finished.load(SeqCst)
    }

    /// Sleeps until `met`, which is asked whenever a copy was finished, and by [`Self::look_again`].
    /// `met` may take a shard's lock.
    pub(super) fn wait_for_progress(&self, met: impl FnMut() -> bool) {
        self.progress.wait_until(met);
    }

    /// Has those look again who wait for progress. Any context.
    pub(super) fn look_again(&self) {
        self.progress.wake_all();
    }

    /// Sleeps while the limit of chunks that are being copied is exceeded.
    pub(super) fn wait_for_room(&self) {
        let has_room = || self.copying.load(SeqCst) <= params::cow_threshold().into();
        if !has_room() {
            self.room.wait_until(has_room);
        }
    }

    /// So many chunks, of so many sectors, are not being copied any more.
    pub(super) fn copying_ended(&self, chunks: u64, sectors: u64) {
        self.copying_sectors.fetch_sub(sectors, SeqCst);
        let left = self.copying.fetch_sub(chunks, SeqCst) - chunks;
        // The limit may have been raised since somebody began to wait.
        if left <= params::cow_threshold().into() {
            self.room.wake_all();
        }
    }

    /// A snapshot's read of the origin is over. Any context.
    pub(super) fn read_ended(self: &Arc<Self>, shard: usize, epoch: u64) {
        if self.cell(shard).reads.end(epoch) {
            self.ended.fetch_or(1 << shard, SeqCst);
            // Queued already: then it has not looked yet.
            let _ = self.queue.enqueue(self.clone());
        }
    }

    /// A copy in a shard that is finished, since the reads are over that it waited for.
    fn next_ended(&self, shard: usize) -> Option<Finished<Kernel>> {
        let cell = self.cell(shard);
        let mut shard = cell.shard.lock();
        shard.reads_ended(&cell.reads)
    }
}

/// Sectors that may be being copied when more is copied ahead: 16 MiB. What others need waits behind it.
const MOST_AHEAD: u64 = 32768;

/// Copies ahead that one write begins, at most.
const MOST_AT_ONCE: u32 = 16;

impl Leased<Origin> {
    /// Sleeps until all copies for its snapshots are recorded that were begun before.
    pub(super) fn wait_for_all(&self) {
        // Each shard has all snapshots.
        let nth = |n: usize| self.cell(0).shard.lock().snapshot(n).cloned();
        for snapshot in (0..).map_while(nth) {
            snapshot.wait_for_all();
        }
    }

    /// A write comes to the origin, within one span. Returns it if it may go there now; else it goes
    /// by itself when it may. May sleep.
    pub(super) fn write<B: Incoming<Bio>>(
        &self,
        mut bio: B,
        mut patience: Patience<'_>,
    ) -> Option<B> {
        if !self.has_snapshots() {
            return Some(bio);
        }
        let shard = shard_of(bio.sector());
        let mut spare = Spare::new();
        let to_submit = loop {
            spare.now = patience.is_over();
            let outcome = self.cell(shard).shard.lock().write_origin(bio, &mut spare);
            self.start(&mut spare);
            bio = match outcome {
                OriginWrite::Submit(bio) => break Some(bio),
                OriginWrite::Waits => break None,
                OriginWrite::NoSpare(bio, _)
                | OriginWrite::NotNow(bio)
                | OriginWrite::Full(bio, _)
                    if !patience.may_sleep() =>
                {
                    bio.into_bio().end(Err(EAGAIN));
                    return None;
                }
                OriginWrite::NoSpare(bio, count) => {
                    // One that has waited comes from a worker that ends copies: it must not wait.
                    if B::MAY_CUT {
                        self.wait_for_room();
                    }
                    self.add_spare(&mut spare, count, shard);
                    bio
                }
                OriginWrite::NotNow(bio) => {
                    patience.wait();
                    bio
                }
                OriginWrite::Full(bio, snapshot) => {
                    if !snapshot.no_room_for_origin() {
                        bio.into_bio().end(Err(ENOSPC));
                        return None;
                    }
                    bio
                }
            };
        };
        if spare.ahead && patience.may_sleep() && params::copy_ahead() {
            self.copy_ahead(shard);
        }
        to_submit
    }

    /// Copies what is due ahead of those who write in sequence. Without memory for that, or beside many other
    /// copies, another time. May sleep.
    fn copy_ahead(&self, shard: usize) {
        // The bio that is being mapped waits meanwhile.
        let _noio = NoIo::new();
        let mut spare = Spare::new();
        let has_room = || {
            self.copying() <= u64::from(params::cow_threshold()) / 2
                && self.copying_sectors.load(SeqCst) < MOST_AHEAD
        };
        for _ in 0..MOST_AT_ONCE {
            if !has_room() {
                return;
            }
            let outcome = self.cell(shard).shard.lock().copy_ahead(&mut spare);
            self.start(&mut spare);
            match outcome {
                Ahead::Begun => {}
                Ahead::NoSpare(count) => {
                    for _ in 0..count {
                        let job = CopyJob::new(self, shard);
                        if job.map_or(true, |job| spare.add(job).is_err()) {
                            return;
                        }
                    }
                }
                Ahead::Nothing => return,
            }
        }
    }

    /// Whether the first of the sectors `start..end` of the origin, within one span, may be overwritten at
    /// once, and up to where the answer is the same.
    pub(super) fn is_covered(&self, start: u64, end: u64) -> (bool, u64) {
        self.cell(shard_of(start))
            .shard
            .lock()
            .is_covered(start, end)
    }

    /// Whether sectors `start..end` of the origin, within one span, may be overwritten, as far as its
    /// snapshots are concerned. If not, copies are under way for the first of them: up to the sector
    /// that is returned. An error if one of them must not lose them and has no room. Sleeps.
    pub(super) fn cover(
        &self,
        start: u64,
        end: u64,
        mut patience: Patience<'_>,
    ) -> Result<Option<u64>> {
        let shard = shard_of(start);
        let mut spare = Spare::new();
        loop {
            spare.now = patience.is_over();
            let outcome = self.cell(shard).shard.lock().cover(start, end, &mut spare);
            self.start(&mut spare);
            match outcome {
                Cover::Covered => return Ok(None),
                Cover::Waits(until) => return Ok(Some(until)),
                Cover::NoSpare(count) => self.add_spare(&mut spare, count, shard),
                Cover::NotNow => patience.wait(),
                Cover::Full(snapshot) => {
                    if !snapshot.no_room_for_origin() {
                        return Err(ENOSPC);
                    }
                }
            }
        }
    }

    /// Gets memory for `count` more copies in `shard`, however long that takes. Sleeps.
    pub(super) fn add_spare(&self, spare: &mut Spare<Kernel>, count: usize, shard: usize) {
        for _ in 0..count {
            until_memory(|| {
                let job = CopyJob::new(self, shard).map_err(|_| NoMemory)?;
                spare.add(job)
            });
        }
    }

    /// Starts the copies that are to be started. May sleep.
    pub(super) fn start(&self, spare: &mut Spare<Kernel>) {
        // One that waits for the record, alone, has nobody to share a flush with.
        let waits = spare.why() == Some(Why::Origin);
        let stable = waits && self.copying() == 0 && Self::is_kept_by_fua(spare);
        let mut transfer = self.copier.transfer_for(spare, stable);
        let mut read_from = None;
        while let Some(mut start) = spare.started() {
            let shard = shard_of(start.sector);
            let devices: [_; MAX_MEMBERS] = ::core::array::from_fn(|n| {
                let to = start.to.get(n).and_then(Option::as_ref)?;
                Some((to.0.devices()?, to.1))
            });
            let members = start.to.iter().flatten().count();
            let first = devices.iter().flatten().next();
            let all = devices.iter().flatten().count() == members;
            let sectors = first.map_or(0, |(devices, _)| {
                let size = devices.origin.sectors();
                start.sectors.min(size.saturating_sub(start.sector))
            });
            let (Some((source, _)), true, 1..) = (first, all, sectors) else {
                // The origin became smaller than the snapshot.
                self.copied(shard, start.copy, usize::MAX, false, BioList::new());
                continue;
            };
            let source = source.origin.clone();
            for (snapshot, sector) in start.to.iter().flatten() {
                let shift = snapshot.state().shift();
                let first = Exception {
                    old: start.sector >> shift,
                    new: sector >> shift,
                };
                let traced = snapshot.traced();
                traced.exception_start(first, start.chunks, sectors);
            }
            start.job.copy = start.copy;
            start.job.chunks = start.chunks;
            start.job.sectors = sectors;
            self.copying.fetch_add(start.chunks, SeqCst);
            self.copying_sectors.fetch_add(sectors, SeqCst);
            let to = devices.map(|to| to.map(|(devices, sector)| (devices.cow, sector)));
            let copied = match &mut transfer {
                Some(transfer) => copier::add(transfer.as_mut(), start.job, start.sector, to),
                None => Err((start.job, to)),
            };
            match copied {
                Ok(()) => read_from = Some((shard, source)),
                Err((job, to)) => self.copy_by_kcopyd(job, (&source, start.sector), &to),
            }
        }
        match (transfer, read_from) {
            (Some(transfer), Some((shard, source))) => {
                let together = copier::begin(transfer, &source, stable);
                if together > 0 {
                    let mut shard = self.cell(shard).shard.lock();
                    shard.origin_counts().together += together;
                }
            }
            (Some(transfer), None) => self.copier.put(transfer),
            (None, _) => {}
        }
    }

    /// Whether copies that are to be started need no flush, if they are written past volatile caches, and need
    /// one otherwise.
    fn is_kept_by_fua(spare: &Spare<Kernel>) -> bool {
        let mut gains = false;
        let mut each = spare.snapshots().map(|snapshot| snapshot.keeping());
        let none_flushes = each.all(|keeping| {
            gains |= keeping == Keeping::ByFua;
            keeping != Keeping::ByFlush
        });
        none_flushes && gains
    }

    /// Has kcopyd copy the sectors of a job. May sleep.
    pub(super) fn copy_by_kcopyd(
        &self,
        job: KBox<CopyOf<CopyJob>>,
        (source, sector): (&DeviceRef, u64),
        to: &[Option<Place>; MAX_MEMBERS],
    ) {
        let region = |device, sector| Region {
            device,
            sector,
            count: job.sectors,
        };
        let members = to.iter().flatten().count();
        let from = region(source, sector);
        let to = to.each_ref().map(|to| match to {
            Some((device, sector)) => region(device, *sector),
            None => from,
        });
        self.kcopyd.copy(from, &to[..members], job);
    }

    /// A copy is over, or failed for the snapshots whose bits are set; `stable` if it is on stable storage.
    /// `carried` are the writes to a snapshot that are a part of it, or all. Sleeps.
    pub(super) fn copied(
        &self,
        shard: usize,
        copy: CopyId,
        failed: usize,
        stable: bool,
        carried: BioList,
    ) {
        let cell = self.cell(shard);
        let (copied, due) = {
            let mut shard = cell.shard.lock();
            let copied = shard.copied(copy, failed, stable, carried, &cell.reads);
            (copied, shard.is_due(&cell.reads))
        };
        Self::end_carried(copied.carried, true);
        plugged(|| {
            for copied in copied.snapshots.into_iter().flatten() {
                Leased::<Snapshot>::copied(copied, shard);
            }
        });
        if due {
            self.finish_ended(shard);
        }
    }

    /// Finishes the copies in a shard that waited for reads that are over. Sleeps.
    fn finish_ended(&self, shard: usize) {
        while let Some(finished) = self.next_ended(shard) {
            self.finish(finished);
        }
    }

    /// Ends writes to a snapshot that were a part of a copy, or all of it.
    fn end_carried(mut bios: BioList, good: bool) {
        while let Some(mut bio) = bios.pop() {
            *bio.data_mut::<Tracking>() = Tracking::default();
            bio.end(if good { Ok(()) } else { Err(EIO) });
        }
    }

    /// Lets go on what waited for a copy. Sleeps.
    pub(super) fn finish(&self, finished: Finished<Kernel>) {
        let Finished {
            mut origin,
            snapshots,
            carried,
            recorded,
        } = finished;
        plugged(|| {
            Self::end_carried(carried, recorded);
            for mut released in snapshots.into_iter().flatten() {
                while let Some(bio) = released.bios.pop() {
                    if released.recorded {
                        released.snapshot.write_again(bio);
                    } else {
                        bio.end(Err(EIO));
                    }
                }
            }
            while let Some(bio) = origin.pop() {
                if let Some(bio) = self.write(bio, Patience::none()) {
                    bio.submit();
                }
            }
        });
        self.finished.fetch_add(1, SeqCst);
        self.progress.wake_all();
    }
}

impl WorkItem for Origin {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let mut ended = this.ended.swap(0, SeqCst);
        while ended != 0 {
            // CAST: Less than the number of shards.
            let shard = ended.trailing_zeros() as usize;
            ended &= ended - 1;
            while let Some(finished) = this.next_ended(shard) {
                // Somebody waits, and that keeps a lease.
                let lease = finished.snapshots.iter().flatten().next();
                if let Some(origin) = lease.map(|released| released.snapshot.origin().clone()) {
                    origin.finish(finished);
                }
            }
        }
    }
}

impl Quiesce for Origin {
    fn quiesce(&self) {
        self.copier.flush();
        self.queue.flush();
    }
}

/// The devices of a snapshot, as a table opened them.
#[derive(Clone)]
pub(super) struct Devices {
    /// The origin.
    pub(super) origin: DeviceRef,
    /// The COW device.
    pub(super) cow: DeviceRef,
}

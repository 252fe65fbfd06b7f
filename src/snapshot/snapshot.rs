// SPDX-License-Identifier: GPL-2.0-only

//! A snapshot.

use super::{
    core::{
        shard_of,
        span_end,
        table::{
            LoadError,
            Loader, //
        },
        Allocation,
        CopiedFor,
        Epochs,
        Fill,
        Incoming,
        Item,
        Limits,
        Merge,
        MergeWrite,
        NoChunk,
        Read,
        SlotId,
        SnapshotWrite,
        Spare,
        Step, //
    },
    leased::{
        Leased,
        Quiesce, //
    },
    order::Order,
    origin::{
        Devices,
        Origin, //
    },
    patience::Patience,
    room::Room,
    state::State,
    store::Store,
    tracking::{
        Tracked,
        Tracking, //
    },
    types::Kernel,
    DM_MSG_PREFIX, //
};
use crate::dm::{
    exception_store::{
        self,
        Completion,
        Copied,
        ExceptionTable,
        Usage, //
    },
    message::{
        dm_err,
        dm_warn, //
    },
    noio::{
        cond_resched,
        give_way, //
    },
    params,
    target::TargetHandle,
    unclean,
    Bio,
    BioList,
    IrqSpinLock,
    Keeping,
    MapBio,
    Traced,
    Workqueue, //
};
use crate::format::{
    Exception,
    Fault, //
};
use crate::memory::When;
use crate::store::refuse;
use ::core::sync::atomic::{
    AtomicBool,
    AtomicU64,
    Ordering::SeqCst, //
};
use kernel::{
    impl_has_work,
    new_mutex,
    new_spinlock,
    new_work,
    prelude::*,
    static_lock_class,
    sync::{
        Arc,
        Mutex,
        SpinLock, //
    },
    workqueue::{
        Work,
        WorkItem, //
    }, //
};

/// A snapshot of an origin, from the load of its first table to the end of its last. A reload of its
/// table passes it from one to the next.
#[pin_data]
pub(super) struct Snapshot {
    origin: Leased<Origin>,
    slot: SlotId,
    traced: Traced,
    state: State,
    store: Store,
    /// Whether the table that has it wants to know of overflows.
    supports_overflow: AtomicBool,
    /// Those of the table that has the snapshot; `None` if no table has.
    #[pin]
    devices: SpinLock<Option<Devices>>,
    /// How full the COW device becomes.
    #[pin]
    room: SpinLock<Room>,
    /// Whether userspace is to be told something.
    event_due: AtomicBool,
    /// Who is told of events.
    #[pin]
    handle: SpinLock<Option<Arc<TargetHandle>>>,
    /// Held while the snapshot is invalidated.
    #[pin]
    dropping: Mutex<()>,
    /// Exceptions in the order in which they are recorded.
    #[pin]
    order: SpinLock<Order>,
    /// How it is merged into its origin.
    #[pin]
    merge: SpinLock<Merge<Kernel>>,
    /// Writes to the COW device while it is merged; under the lock of `merge`.
    merge_writes: Epochs,
    /// Counts what a merge may wait for.
    merge_events: AtomicU64,
    /// Writes of whole chunks that are over.
    #[pin]
    written: IrqSpinLock<BioList>,
    /// Sees to `written`, which must not wait for the store.
    #[pin]
    end_work: Work<Self, END>,
    // Each queue waits for its work when it is dropped.
    end_queue: Workqueue,
    /// Sees to `order`, and to events.
    #[pin]
    commit_work: Work<Self, COMMIT>,
    commit_queue: Workqueue,
}

const END: u64 = 0;
const COMMIT: u64 = 1;

impl_has_work! {
    impl HasWork<Self, END> for Snapshot { self.end_work }
    impl HasWork<Self, COMMIT> for Snapshot { self.commit_work }
}

impl Snapshot {
    /// A snapshot that is not loaded yet. May sleep.
    pub(super) fn new(
        origin: Leased<Origin>,
        slot: SlotId,
        store: Store,
        devices: Devices,
    ) -> Result<Arc<Self>> {
        Arc::try_pin_init(
            try_pin_init!(Self {
                origin,
                slot,
                traced: Traced::new(&devices.origin, &devices.cow),
                state: State::new(params::overflow_keep()),
                store,
                supports_overflow: AtomicBool::new(false),
                devices <- new_spinlock!(Some(devices), "Snapshot::devices"),
                room <- new_spinlock!(Room::new(), "Snapshot::room"),
                event_due: AtomicBool::new(false),
                handle <- new_spinlock!(None, "Snapshot::handle"),
                dropping <- new_mutex!((), "Snapshot::dropping"),
                order <- new_spinlock!(Order::new(), "Snapshot::order"),
                merge <- new_spinlock!(Merge::new(Limits::USUAL), "Snapshot::merge"),
                merge_writes: Epochs::new(),
                merge_events: AtomicU64::new(0),
                written <- IrqSpinLock::new(
                    BioList::new(),
                    c"Snapshot::written",
                    static_lock_class!(),
                ),
                end_work <- new_work!("Snapshot::end_work"),
                end_queue: Workqueue::new(c"ksnapend")?,
                commit_work <- new_work!("Snapshot::commit_work"),
                commit_queue: Workqueue::new(c"ksnapcommit")?,
            }? Error),
            GFP_KERNEL,
        )
    }

    /// What may be known without a lock.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Its place in the shards of its origin.
    pub(super) fn slot(&self) -> SlotId {
        self.slot
    }

    /// Its events.
    pub(super) fn traced(&self) -> Traced {
        self.traced
    }

    /// Its origin.
    pub(super) fn origin(&self) -> &Leased<Origin> {
        &self.origin
    }

    /// Its store.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// The devices of the table that has it now.
    pub(super) fn devices(&self) -> Option<Devices> {
        self.devices.lock().clone()
    }

    /// It passes to a table with these devices, or to none.
    pub(super) fn set_devices(&self, devices: Option<Devices>) {
        let old = ::core::mem::replace(&mut *self.devices.lock(), devices);
        drop(old);
    }

    /// It passes to the table of this target, or to none.
    pub(super) fn set_handle(&self, handle: Option<Arc<TargetHandle>>, supports_overflow: bool) {
        let old = ::core::mem::replace(&mut *self.handle.lock(), handle);
        drop(old);
        self.supports_overflow.store(supports_overflow, SeqCst);
        // What the last one was told, this one may not know.
        *self.room.lock() = Room::new();
    }

    /// How full its store is; `None` without a table.
    pub(super) fn usage(&self) -> Option<Usage> {
        let devices = self.devices()?;
        Some(self.store.usage(borrowed(&devices)))
    }

    /// How full the COW device is.
    fn fill(&self, devices: &Devices) -> Fill {
        let usage = self.store.usage(borrowed(devices));
        Fill {
            allocated: usage.allocated,
            total: usage.total,
            chunk: self.state.chunk_sectors().into(),
        }
    }

    /// Whether it has room for chunks that may never be needed: not more than half of the COW device is in
    /// use. Under a shard's lock.
    pub(super) fn has_plenty(&self) -> bool {
        let devices = self.devices();
        devices.is_some_and(|devices| !self.fill(&devices).is_half_full())
    }

    /// How its COW device is best made to keep the data of the exception whose chunk was handed out last.
    pub(super) fn keeping(&self) -> Keeping {
        match self.devices() {
            // They share a flush.
            Some(_) if self.order.lock().pipeline.unrecorded() > 1 => Keeping::ByFlush,
            Some(devices) if self.store.has_records() => devices.cow.keeping(),
            _ => Keeping::Itself,
        }
    }

    /// Writes to the chunks of `ticket` may be over from now on; a flush waits for their records. Under a
    /// shard's lock.
    pub(super) fn promise(&self, ticket: u64) {
        self.order.lock().pipeline.promise(ticket);
    }

    /// Hands out chunks of the COW device. Under a shard's lock.
    fn hand_out(&self, devices: &Devices, max: u64) -> Result<Allocation, NoChunk> {
        let mut order = self.order.lock();
        let pipeline = &mut order.pipeline;
        pipeline
            .reserve(When::Atomic)
            .map_err(|_| NoChunk::NotNow)?;
        let max = u32::try_from(max).unwrap_or(u32::MAX);
        let (new, chunks) = self
            .store
            .prepare_exceptions(borrowed(devices), max)
            .map_err(|_| NoChunk::Full)?;
        Ok(Allocation {
            ticket: pipeline.ticket(),
            new,
            chunks: chunks.into(),
        })
    }

    /// A write to the origin found no room for the snapshot. Returns whether it may go on: without the
    /// snapshot, which is of no use any more. Else it is to fail. Sleeps.
    pub(super) fn no_room_for_origin(&self) -> bool {
        if self.state.is_kept() && self.state.is_valid() {
            self.overflow();
            return false;
        }
        self.invalidate_full();
        true
    }

    fn invalidate_full(&self) {
        self.invalidate(true);
    }

    fn overflow(&self) {
        if self.state.is_valid() && self.state.set_overflowed() {
            dm_err!("Snapshot overflowed: Unable to allocate exception.");
            self.trace_overflow(true);
            self.event();
        }
    }

    /// A table with the snapshot is resumed: one that was kept can be written again if there is room.
    pub(super) fn look_for_room(&self) {
        let has_room = |usage: Usage| usage.allocated < usage.total;
        if self.state.is_kept() && self.usage().is_some_and(has_room) {
            self.state.clear_overflowed();
        }
    }

    /// The snapshot is of no use any more: an I/O failed. Sleeps.
    fn invalidate_failed(&self) {
        self.invalidate(false);
    }

    /// Notes on the COW device that the snapshot is invalid, before anything can be written to the
    /// origin that the snapshot does not have.
    fn invalidate(&self, full: bool) {
        let dropping = self.dropping.lock();
        if !self.state.is_valid() {
            return;
        }
        let why = match full {
            true => "Unable to allocate exception.",
            false => "Error reading/writing.",
        };
        dm_err!("Invalidating snapshot: {}", why);
        if full {
            self.trace_overflow(false);
        }
        if let Some(devices) = self.devices() {
            self.store.drop_snapshot(borrowed(&devices));
        }
        self.state.set_invalid();
        self.traced.drop(full);
        drop(dropping);
        self.event();
    }

    fn trace_overflow(&self, kept: bool) {
        let sectors = self.usage().map_or(0, |usage| usage.total);
        self.traced.overflow(sectors, kept);
    }

    /// Tells who waits for the device's events.
    fn event(&self) {
        let handle = self.handle.lock().clone();
        if let Some(handle) = handle {
            handle.event();
        }
    }

    /// A write to the snapshot found no room. Sleeps.
    fn no_room(&self) {
        if self.supports_overflow.load(SeqCst) || self.state.is_kept() {
            self.overflow();
        } else {
            self.invalidate_full();
        }
    }
}

impl Leased<Snapshot> {
    /// A read of the snapshot comes. Returns it, to be submitted.
    pub(super) fn read<'a>(
        &self,
        mut bio: MapBio<'a>,
        devices: &Devices,
    ) -> Result<MapBio<'a>, MapBio<'a>> {
        let sector = Incoming::sector(&bio);
        let sectors = Incoming::sectors(&bio).min(span_end(sector) - sector);
        let shard = shard_of(sector);
        let cell = self.origin.cell(shard);
        let read = cell
            .shard
            .lock()
            .read_snapshot(self.slot, sector, sectors, &cell.reads);
        if let Read::Origin { epoch, .. } = read {
            bio.track(Tracking::read(shard, epoch));
        }
        Self::send_read(bio, read, devices)
    }

    /// A read of a snapshot that is being merged comes, within one span. Returns it, to be submitted.
    pub(super) fn read_merging<'a>(
        &self,
        bio: MapBio<'a>,
        devices: &Devices,
    ) -> Result<MapBio<'a>, MapBio<'a>> {
        let (sector, sectors) = (Incoming::sector(&bio), Incoming::sectors(&bio));
        let cell = self.origin.cell(shard_of(sector));
        let found = cell.shard.lock().find_recorded(self.slot, sector, sectors);
        Self::send_read(bio, found, devices)
    }

    /// Sends a read where its first sectors are, and cuts it down to those.
    fn send_read<'a>(
        mut bio: MapBio<'a>,
        read: Read,
        devices: &Devices,
    ) -> Result<MapBio<'a>, MapBio<'a>> {
        let all = Incoming::sectors(&bio);
        let sectors = match read {
            Read::Gone => return Err(bio),
            Read::Cow { sector, sectors } => {
                bio.go_to(devices, sector);
                sectors
            }
            Read::Origin { sectors, .. } => {
                bio.go_to_origin(devices);
                sectors
            }
        };
        if sectors < all {
            bio.cut(sectors);
        }
        Ok(bio)
    }

    /// A write to the snapshot comes, within one span. What is to be submitted is returned; else the
    /// write goes by itself when it may, or has failed. May sleep.
    pub(super) fn write<B: Incoming<Bio> + SendOn>(
        &self,
        mut bio: B,
        devices: &Devices,
        mut patience: Patience<'_>,
    ) -> Option<B> {
        let shard = shard_of(bio.sector());
        let cell = self.origin.cell(shard);
        let mut spare = Spare::new();
        loop {
            spare.now = patience.is_over();
            let outcome = cell.shard.lock().write_snapshot(self.slot, bio, &mut spare);
            self.origin.start(&mut spare);
            bio = match outcome {
                SnapshotWrite::Cow(bio, sector) => {
                    bio.go_to(devices, sector);
                    return Some(bio);
                }
                SnapshotWrite::Full(mut bio, sector, copy) => {
                    let shift = self.state.shift();
                    let first = Exception {
                        old: bio.sector() >> shift,
                        new: sector >> shift,
                    };
                    self.traced
                        .exception_start(first, bio.sectors() >> shift, 0);
                    bio.track(Tracking::full(shard, copy));
                    bio.go_to(devices, sector);
                    return Some(bio);
                }
                SnapshotWrite::Waits => return None,
                SnapshotWrite::NoSpare(bio)
                | SnapshotWrite::NotNow(bio)
                | SnapshotWrite::NoRoom(bio)
                    if !patience.may_sleep() =>
                {
                    bio.into_bio().end(Err(EAGAIN));
                    return None;
                }
                SnapshotWrite::NoSpare(bio) => {
                    if B::MAY_CUT {
                        self.origin.wait_for_room();
                    }
                    self.origin.add_spare(&mut spare, 1, shard);
                    bio
                }
                SnapshotWrite::NotNow(bio) => {
                    patience.wait();
                    bio
                }
                SnapshotWrite::NoRoom(bio) => {
                    self.no_room();
                    bio.into_bio().end(Err(EIO));
                    return None;
                }
                SnapshotWrite::Gone(bio) => {
                    bio.into_bio().end(Err(EIO));
                    return None;
                }
            };
        }
    }

    /// Hands out chunks of the COW device: the last of it one by one and slowly, so that it can be
    /// extended, unless they have to be had `now`. Has userspace told each time that another 5 % of it
    /// are in use. Under a shard's lock.
    pub(super) fn allocate(&self, max: u64, now: bool) -> Result<Allocation, NoChunk> {
        let devices = self.devices().ok_or(NoChunk::Full)?;
        let seconds = params::full_seconds();
        let mut room = self.room.lock();
        // Nothing is to last if that is turned off.
        let before = (seconds != 0).then(|| self.fill(&devices).chunks_before_last());
        let is_slow = before == Some(0);
        if is_slow && !now && !room.allows() {
            return Err(NoChunk::NotNow);
        }
        let max = before.map_or(max, |before| max.min(before.max(1)));
        let allocation = self.hand_out(&devices, max)?;
        let fill = self.fill(&devices);
        let is_first = is_slow && !room.was_slow;
        room.was_slow = is_slow;
        if is_slow {
            room.pause(fill.pause(seconds));
        }
        let is_news = room.is_news(fill);
        drop(room);
        if is_news {
            self.event_due.store(true, SeqCst);
            self.kick();
        }
        if is_first {
            dm_warn!(
                "{}: nearly full: until it is extended, what is left is handed out slowly",
                &*devices.cow
            );
        }
        Ok(allocation)
    }

    /// A write to the snapshot has waited long enough. Sleeps.
    pub(super) fn write_again(&self, bio: Bio) {
        match self.devices() {
            Some(devices) => {
                if let Some(bio) = self.write(bio, &devices, Patience::none()) {
                    bio.submit();
                }
            }
            None => bio.end(Err(EIO)),
        }
    }

    /// A copy of exceptions in `shard` is done, or failed: they can be recorded, and those go on who waited
    /// for the data. Sleeps.
    pub(super) fn copied(copied: CopiedFor<Kernel>, shard: usize) {
        let CopiedFor {
            snapshot,
            ticket,
            item,
            mut bios,
        } = copied;
        let traced = snapshot.traced;
        traced.copied(item.first(), item.chunks, item.copied);
        snapshot
            .order
            .lock()
            .pipeline
            .complete(ticket, (shard, item));
        snapshot.kick();
        while let Some(bio) = bios.pop() {
            if snapshot.state.is_valid() {
                snapshot.write_again(bio);
            } else {
                bio.end(Err(EIO));
            }
        }
    }

    /// A flush comes. Returns it if it is to go to the COW device now; else it goes there by itself when what
    /// it waits for is recorded, or has failed. Any context.
    pub(super) fn flush<'a>(&self, bio: MapBio<'a>) -> Option<MapBio<'a>> {
        let mut order = self.order.lock();
        let Some(owed) = order.pipeline.owed() else {
            drop(order);
            // What could not be recorded made it invalid before it was counted.
            if self.state.is_valid() {
                return Some(bio);
            }
            Bio::from(bio).end(Err(EIO));
            return None;
        };
        order.flushes.add(Bio::from(bio), owed);
        None
    }

    /// Sleeps until all copies are recorded that were begun before.
    pub(super) fn wait_for_all(&self) {
        let all = self.order.lock().pipeline.handed_out();
        self.wait_until_recorded(all);
    }

    /// Sleeps until all is recorded that writes to the snapshot rely on which were over before.
    pub(super) fn wait_for_promised(&self) {
        let owed = self.order.lock().pipeline.owed();
        self.wait_until_recorded(owed.unwrap_or(0));
    }

    /// Sleeps until so many tickets are done with.
    fn wait_until_recorded(&self, tickets: u64) {
        self.origin
            .wait_for_progress(|| self.order.lock().pipeline.recorded() >= tickets);
    }

    /// A write of whole chunks to the snapshot is over. Any context.
    pub(super) fn full_write_ended(&self, bio: Bio) {
        // The worker may end the bio at once, and with it the last thing that the table waits for.
        let this = self.clone();
        this.written.lock().push(bio);
        // Queued already: then it has not looked yet.
        let _ = this.end_queue.enqueue::<_, END>(this.arc().clone());
    }

    fn kick(&self) {
        // Queued already: then it has not looked yet.
        let _ = self.commit_queue.enqueue::<_, COMMIT>(self.arc().clone());
    }
}

impl Leased<Snapshot> {
    /// A write to a snapshot that is being merged comes, within one span, or has waited long enough.
    /// Returns it if it is to be submitted; else it goes by itself when it may, or has failed. May
    /// sleep.
    pub(super) fn write_merging<B: Incoming<Bio> + SendOn>(
        &self,
        bio: B,
        devices: &Devices,
        patience: Patience<'_>,
    ) -> Option<B> {
        let cell = self.origin.cell(shard_of(bio.sector()));
        let outcome = {
            let shard = cell.shard.lock();
            let mut merge = self.merge.lock();
            shard.write_merging(self.slot, bio, &mut merge, &self.merge_writes)
        };
        match outcome {
            MergeWrite::Cow(mut bio, sector, epoch) => {
                bio.track(Tracking::merge_write(epoch));
                bio.go_to(devices, sector);
                Some(bio)
            }
            MergeWrite::Origin(bio) => {
                bio.go_to_origin(devices);
                self.origin.write(bio, patience)
            }
            MergeWrite::Waits => None,
            MergeWrite::Lost(bio) => {
                bio.into_bio().end(Err(EIO));
                None
            }
        }
    }
}

impl Snapshot {
    /// What its merge is to do next.
    pub(super) fn next_of_merge(&self) -> Step<Kernel> {
        self.merge.lock().next(&self.merge_writes)
    }

    /// Tells its merge something.
    pub(super) fn tell_merge<R>(&self, tell: impl FnOnce(&mut Merge<Kernel>) -> R) -> R {
        tell(&mut self.merge.lock())
    }

    /// A write to the COW device is over that was counted in this epoch. Any context.
    pub(super) fn merge_write_ended(&self, epoch: u64) {
        if self.merge_writes.end(epoch) {
            self.wake_merge();
        }
    }

    /// Something has happened that its merge may wait for. Any context.
    pub(super) fn wake_merge(&self) {
        self.merge_events.fetch_add(1, SeqCst);
        self.origin.look_again();
    }

    /// Changes whenever something has happened that its merge may wait for.
    pub(super) fn events_of_merge(&self) -> (u64, u64) {
        (self.merge_events.load(SeqCst), self.origin.finished_count())
    }
}

/// A bio that is sent on.
pub(super) trait SendOn {
    /// Sends it to this sector of the COW device.
    fn go_to(&self, devices: &Devices, sector: u64);

    /// Sends it to the origin.
    fn go_to_origin(&self, devices: &Devices);

    /// Notes what is to be done when it is over.
    fn track(&mut self, tracking: Tracking);
}

impl SendOn for Bio {
    fn go_to(&self, devices: &Devices, sector: u64) {
        self.set_device(&devices.cow);
        self.set_sector(sector);
    }

    fn go_to_origin(&self, devices: &Devices) {
        self.set_device(&devices.origin);
    }

    fn track(&mut self, tracking: Tracking) {
        *self.data_mut::<Tracking>() = tracking;
    }
}

impl SendOn for MapBio<'_> {
    fn go_to(&self, devices: &Devices, sector: u64) {
        Bio::go_to(self, devices, sector);
    }

    fn go_to_origin(&self, devices: &Devices) {
        Bio::go_to_origin(self, devices);
    }

    fn track(&mut self, tracking: Tracking) {
        *self.data_mut::<Tracking>() = tracking;
    }
}

impl WorkItem<END> for Snapshot {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        loop {
            let written = this.written.lock().pop();
            let Some(bio) = written else { return };
            if let Tracked::Full(shard, copy) = bio.data::<Tracking>().what() {
                let failed = if bio.result().is_ok() { 0 } else { usize::MAX };
                let mut carried = BioList::new();
                let stable = bio.is_fua();
                carried.push(bio);
                this.origin.copied(shard, copy, failed, stable, carried);
            }
            cond_resched();
        }
    }
}

impl WorkItem<COMMIT> for Snapshot {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        loop {
            if this.event_due.swap(false, SeqCst) {
                this.event();
            }
            let together = this.gather();
            // One that was given up comes alone.
            for left in (0..together.max(1)).rev() {
                let next = this.order.lock().pipeline.take_next();
                let Some((shard, item)) = next else { return };
                this.commit(shard, item, left > 0);
            }
        }
    }
}

/// Copies whose exceptions are recorded together, at most.
const MOST_TOGETHER: usize = 64;

impl Snapshot {
    /// How many copies are to be recorded together. Sleeps.
    fn gather(&self) -> usize {
        let count = || {
            let pipeline = &self.order.lock().pipeline;
            let ready = pipeline.ready(MOST_TOGETHER, |(_, item)| !item.given_up);
            (ready, pipeline.outstanding())
        };
        let (mut ready, mut outstanding) = count();
        // One that comes alone is not kept waiting.
        while 0 < ready && ready < MOST_TOGETHER && outstanding > 1 {
            // Where others are about to run, some of them end copies or are to begin them. What they add shares
            // a flush, which costs as much as they do. Where nobody is, this takes no time.
            give_way();
            let before = ready;
            (ready, outstanding) = count();
            if ready == before {
                break;
            }
        }
        ready
    }
}

impl Snapshot {
    /// Has the store record exceptions whose turn it is, alone or with `more` that come at once. Sleeps.
    fn commit(self: &Arc<Self>, shard: usize, item: Item, more: bool) {
        let devices = self.devices();
        for n in 0..item.chunks {
            let done = Recorded {
                snapshot: self.clone(),
                shard,
                item,
                last: n + 1 == item.chunks,
            };
            let more = more || !done.last;
            let exception = Exception {
                old: item.old + n,
                new: item.new + n,
            };
            match &devices {
                _ if item.given_up => done.complete(true),
                Some(devices) => {
                    let copied = match item.copied && self.state.is_valid() {
                        true if item.stable => Copied::Stable,
                        true => Copied::Cached,
                        false => Copied::No,
                    };
                    self.store
                        .commit_exception(borrowed(devices), exception, copied, more, done);
                }
                None => done.complete(false),
            }
        }
    }
}

impl Snapshot {
    /// The exceptions of one more ticket are recorded, or never will be: then the snapshot is invalid.
    fn note_recorded(&self) {
        let mut flushes = self.order.lock().recorded();
        let devices = self.devices().filter(|_| self.state.is_valid());
        while let Some(bio) = flushes.pop() {
            match &devices {
                Some(devices) => {
                    bio.set_device(&devices.cow);
                    bio.submit();
                }
                None => bio.end(Err(EIO)),
            }
        }
        self.origin.look_again();
    }
}

impl Quiesce for Snapshot {
    fn quiesce(&self) {
        self.end_queue.flush();
        self.commit_queue.flush();
    }
}

/// Who waits for an exception to be recorded. Exists only while the snapshot has copies under way.
pub(super) struct Recorded {
    snapshot: Arc<Snapshot>,
    shard: usize,
    /// What it is of.
    item: Item,
    /// Whether it is the last of its copy: they are recorded in order, and once one could not be,
    /// none is any more.
    last: bool,
}

impl Completion for Recorded {
    fn complete(self, success: bool) {
        if !self.last {
            return;
        }
        let item = &self.item;
        if !item.given_up {
            let traced = self.snapshot.traced;
            traced.durable(item.first(), item.chunks, success);
        }
        if !success {
            self.snapshot.invalidate_failed();
        }
        self.snapshot.note_recorded();
        let origin = &self.snapshot.origin;
        let finished = {
            let mut shard = origin.cell(self.shard).shard.lock();
            shard.recorded(item.copy, item.member, success)
        };
        if let Some(finished) = finished {
            origin.finish(finished);
        }
    }
}

/// The devices as a store takes them.
pub(super) fn borrowed(devices: &Devices) -> exception_store::Devices<'_> {
    exception_store::Devices {
        origin: &devices.origin,
        cow: &devices.cow,
    }
}

// --- Beginning and end

/// The tables of a snapshot, one for each shard of its origin, while they are loaded.
struct Loading<'a> {
    devices: &'a Devices,
    /// `None` until the chunk size is known.
    loader: Option<Loader>,
}

impl ExceptionTable for Loading<'_> {
    const TAKES_ANY_ORDER: bool = true;

    fn begin(&mut self, chunk_sectors: u32) -> Result {
        let loader = Loader::new(chunk_sectors.trailing_zeros()).map_err(|_| ENOMEM)?;
        self.loader = Some(loader);
        Ok(())
    }

    fn insert(&mut self, exception: Exception) -> Result {
        let loader = self.loader.as_mut().ok_or(EINVAL)?;
        loader
            .add(exception.old, exception.new)
            .map_err(|e| load_error(self.devices, e))
    }
}

impl Leased<Snapshot> {
    /// Reads the metadata, and makes the snapshot known to its origin. Sleeps.
    pub(super) fn load(&self, chunk_sectors: u32) -> Result<(), LoadFailure> {
        let devices = self.devices().ok_or(ENODEV)?;
        let mut loading = Loading {
            devices: &devices,
            loader: None,
        };
        let found = self
            .store
            .read_metadata(borrowed(&devices), chunk_sectors, &mut loading)?;
        if found.chunk_sectors == 0 {
            return Err(LoadFailure::NoChunkSize);
        }
        if !found.valid {
            dm_warn!("Snapshot is marked invalid.");
            self.state.set_invalid();
        }
        let shift = found.chunk_sectors.trailing_zeros();
        let loader = match loading.loader {
            Some(loader) => loader,
            None => Loader::new(shift).map_err(|_| ENOMEM)?,
        };
        let mut tables = loader.finish().map_err(|e| load_error(&devices, e))?;
        self.state.set_shift(shift);
        for (number, cell) in self.origin.cells().enumerate() {
            cell.add_slot(self.slot, self, shift, tables.take(number));
        }
        self.origin.snapshot_added();
        self.state.set_loaded();
        Ok(())
    }

    /// No table has the snapshot any more: waits until nothing is under way that needs the devices.
    pub(super) fn stop(&self) {
        self.state.set_active(false);
        self.wait_until_idle();
        self.set_devices(None);
        self.set_handle(None, false);
    }

    /// Sleeps until no copies for the snapshot are under way.
    pub(super) fn wait_until_idle(&self) {
        self.origin.wait_for_progress(|| {
            let mut cells = self.origin.cells();
            cells.all(|cell| cell.shard.lock().is_idle(self.slot))
        });
    }

    /// Makes its origin forget the snapshot, which was stopped. Sleeps.
    pub(super) fn unload(&self) {
        for cell in self.origin.cells() {
            let table = cell.shard.lock().remove_slot(self.slot);
            // Without the lock: it may be large.
            drop(table);
            cond_resched();
        }
        if self.state.is_loaded() {
            self.origin.snapshot_removed();
        }
    }
}

/// Why a snapshot cannot be loaded.
pub(super) enum LoadFailure {
    /// Neither the table nor the COW device says how large a chunk is.
    NoChunkSize,
    /// The metadata cannot be read, or is damaged; the log says how.
    Error(Error),
}

impl From<Error> for LoadFailure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Logs what is wrong with the exceptions.
fn load_error(devices: &Devices, error: LoadError) -> Error {
    match error {
        LoadError::NoMemory => ENOMEM,
        LoadError::NewTooLarge { new } => {
            dm_err!(
                "{}: new chunk {} is beyond what can be used",
                &*devices.cow,
                new
            );
            unclean()
        }
        LoadError::OldTwice { old, new } => refuse(&devices.cow, Fault::OldUsedTwice { old, new }),
    }
}

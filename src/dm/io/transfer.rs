// SPDX-License-Identifier: GPL-2.0-only

//! Copying through memory of our own.
//!
//! kcopyd copies a region as it is. What is to be changed on the way, or to be written to stable storage, or
//! only in part to one device and as a whole to another, passes through a [`Transfer`]: memory that is read
//! into, looked at, and written.

use super::{
    client::Data,
    IoBuffer,
    IoClient, //
};
use crate::dm::{
    ffi::{
        dm_io_notify,
        dm_io_region, //
    },
    DeviceRef,
    Workqueue, //
};
use crate::format::SECTOR_BYTES;
use core::mem::offset_of;
use core::ops::Range;
use core::ptr::{
    self,
    NonNull, //
};
use core::sync::atomic::{
    AtomicUsize,
    Ordering::SeqCst, //
};
use kernel::{
    impl_has_work,
    new_work,
    prelude::*,
    sync::Arc,
    types::ForeignOwnable,
    workqueue::{
        Work,
        WorkItem, //
    }, //
};

/// Writes of one transfer, at most.
pub(crate) const MAX_WRITES: usize = 4;

/// Devices that one write may go to, at most.
pub(crate) const MAX_DEVICES: usize = 8;

/// What is to be done with a transfer.
pub(crate) trait TransferJob: Sized + Send + 'static {
    /// Called in the thread of the transfer's workqueue, after [`Transfer::go_on`], and when it was read or all
    /// of it written. May sleep; others of the workqueue wait meanwhile.
    fn go_on(transfer: Pin<KBox<Transfer<Self>>>);
}

/// Some sectors of a device.
pub(crate) type Place = (DeviceRef, u64);

/// A read or a write.
struct Request {
    /// Which.
    index: usize,
    /// What is read or written of the memory.
    bytes: Range<usize>,
    /// From where, or to where. The devices are open until it is over.
    places: [Option<Place>; MAX_DEVICES],
    /// The bits of the places that failed.
    failed: AtomicUsize,
}

/// Memory, the requests that read and write it, and what it is all for.
///
/// # Invariants
///
/// `requests[n].index` is n. While requests are under way, the box that the transfer is in belongs to them:
/// the one that is over last gives it to the workqueue. Until then `under_way` and the `failed` of the requests
/// change, dm-io looks at the memory, and nothing else is written to.
#[pin_data]
pub(crate) struct Transfer<J: TransferJob> {
    client: Arc<IoClient>,
    queue: Arc<Workqueue>,
    buffer: IoBuffer,
    /// The read, and the writes.
    requests: [Request; 1 + MAX_WRITES],
    /// Whether the writes go to stable storage.
    stable: bool,
    /// How many requests are under way, and one while they are being begun.
    under_way: AtomicUsize,
    #[pin]
    work: Work<Self>,
    job: J,
}

impl_has_work! {
    impl{J: TransferJob} HasWork<Self> for Transfer<J> { self.work }
}

impl<J: TransferJob> Transfer<J> {
    /// A transfer with `bytes` of memory, if that is to be had without waiting, which goes on in `queue`. May
    /// sleep.
    pub(crate) fn new(
        client: Arc<IoClient>,
        queue: Arc<Workqueue>,
        bytes: usize,
        job: J,
    ) -> Result<Pin<KBox<Self>>> {
        let buffer = IoBuffer::if_there_is_room(bytes)?;
        KBox::pin_init(
            pin_init!(Self {
                client,
                queue,
                buffer,
                // INVARIANT: Numbered in order; none is under way.
                requests: core::array::from_fn(|index| Request {
                    index,
                    bytes: 0..0,
                    places: [const { None }; MAX_DEVICES],
                    failed: AtomicUsize::new(0),
                }),
                stable: false,
                under_way: AtomicUsize::new(0),
                work <- new_work!("Transfer::work"),
                job,
            }),
            GFP_NOWAIT | __GFP_NOWARN,
        )
    }

    /// How much memory there is, in bytes.
    pub(crate) fn capacity(&self) -> usize {
        self.buffer.len()
    }

    /// What it is for.
    pub(crate) fn job(self: Pin<&mut Self>) -> &mut J {
        self.project().job
    }

    /// What it is for, and the memory.
    pub(crate) fn job_and_memory(self: Pin<&mut Self>) -> (&mut J, &mut [u8]) {
        let this = self.project();
        (this.job, this.buffer)
    }

    /// The memory is to be read from the device, from the sector on, `sectors` of them, which it must have
    /// room for.
    pub(crate) fn plan_read(self: Pin<&mut Self>, from: Place, sectors: u64) {
        let [read, ..] = self.project().requests;
        read.bytes = 0..bytes_of(sectors);
        read.places[0] = Some(from);
    }

    /// The `sectors` of the memory from the nth on, which it must have, are to be written to each of these
    /// devices, from the sector on. `write` is less than [`MAX_WRITES`], and was not planned yet.
    pub(crate) fn plan_write(
        self: Pin<&mut Self>,
        write: usize,
        nth: u64,
        sectors: u64,
        to: [Option<Place>; MAX_DEVICES],
    ) {
        let request = &mut self.project().requests[1 + write];
        request.bytes = bytes_of(nth)..bytes_of(nth + sectors);
        request.places = to;
    }

    /// Whether all writes are to go to stable storage (`REQ_FUA`).
    pub(crate) fn set_stable(self: Pin<&mut Self>, stable: bool) {
        *self.project().stable = stable;
    }

    /// Whether they are.
    pub(crate) fn is_stable(&self) -> bool {
        self.stable
    }

    /// Takes what was planned to be read from, and written to by one of the writes.
    pub(crate) fn take_places(
        self: Pin<&mut Self>,
        write: usize,
    ) -> (Option<Place>, [Option<Place>; MAX_DEVICES]) {
        let requests = self.project().requests;
        let from = requests[0].places[0].clone();
        let to = &mut requests[1 + write].places;
        (from, core::mem::replace(to, [const { None }; MAX_DEVICES]))
    }

    /// Whether the data could not be read.
    pub(crate) fn read_failed(&self) -> bool {
        self.requests[0].failed.load(SeqCst) != 0
    }

    /// To which devices a write failed: a bit each, in the order of `to`.
    pub(crate) fn write_failed(&self, write: usize) -> usize {
        self.requests[1 + write].failed.load(SeqCst)
    }

    /// Forgets what was planned.
    pub(crate) fn clear(self: Pin<&mut Self>) {
        let this = self.project();
        *this.stable = false;
        for request in this.requests {
            request.places.fill_with(|| None);
            *request.failed.get_mut() = 0;
        }
    }

    /// Has [`TransferJob::go_on`] called. Any context.
    pub(crate) fn go_on(self: Pin<KBox<Self>>) {
        let queue = NonNull::from(&*self.queue);
        // SAFETY: The transfer, which is queued with this call, has a reference to the queue. Queueing
        // does not touch the queue any more once the item can run.
        unsafe { queue.as_ref() }.enqueue(self);
    }

    /// Begins to read what was planned. When that is over, it goes on. May sleep.
    pub(crate) fn read(self: Pin<KBox<Self>>) {
        self.begin(Data::Read, 0..1);
    }

    /// Begins all writes that were planned. When they are over, it goes on. May sleep.
    pub(crate) fn write(self: Pin<KBox<Self>>) {
        let how = if self.stable {
            Data::WriteStable
        } else {
            Data::Write
        };
        self.begin(how, 1..1 + MAX_WRITES);
    }

    fn begin(mut self: Pin<KBox<Self>>, what: Data, which: Range<usize>) {
        *self.as_mut().project().under_way.get_mut() = 1 + which.len();
        // INVARIANT: It belongs to the requests now, and to us until `one_is_over` below.
        let this = self.into_foreign().cast::<Self>();
        for index in which {
            // SAFETY: The transfer is live, since `under_way` counts this request and us; nobody writes to what
            // of the request is looked at.
            let (request, mut regions, count, bytes) = unsafe {
                let request = &raw mut (*this).requests[index];
                let (regions, count) = (*request).regions();
                (request, regions, count, (*request).bytes.clone())
            };
            let begun = if count == 0 {
                None
            } else {
                let notify = dm_io_notify {
                    fn_: Some(Self::over),
                    context: request.cast(),
                };
                // SAFETY: As above. Until the request is over, which `Self::over` is told of once, the
                // transfer is live, and with it the memory and what keeps the devices open. Nobody else looks
                // at the memory while it is read.
                let (client, buffer) = unsafe { (&(*this).client, &(*this).buffer) };
                // SAFETY: As above.
                Some(unsafe {
                    client.start_data(what, &mut regions[..count], buffer, bytes, notify)
                })
            };
            if let Some(Ok(())) = begun {
                continue;
            }
            // SAFETY: As above. Nobody will be told that this request is over: it is now.
            unsafe {
                if begun.is_some() {
                    (*request).failed.store(usize::MAX, SeqCst);
                }
                Self::one_is_over(this);
            }
        }
        // SAFETY: `under_way` counts us, and no more from here on.
        unsafe { Self::one_is_over(this) }
    }

    /// A request is over. Any context.
    ///
    /// # Safety
    ///
    /// `context` must be one of the requests of a transfer that [`Self::begin`] gave up, counted in
    /// `under_way`, and not any more after this.
    unsafe extern "C" fn over(error: c_ulong, unsup: c_ulong, context: *mut c_void) {
        let request = context.cast::<Request>();
        // SAFETY: The transfer is live while the request is counted. `context` was made of a pointer to all of
        // it, in which `request` is the one with its index.
        unsafe {
            (*request).failed.store(error | unsup, SeqCst);
            let first = request.sub((*request).index);
            Self::one_is_over(first.byte_sub(offset_of!(Self, requests)).cast());
        }
    }

    /// One that `under_way` counted is over. Any context.
    ///
    /// # Safety
    ///
    /// `this` must be a transfer that [`Self::begin`] gave up, and the caller counted in its `under_way`; it
    /// is not any more after this.
    unsafe fn one_is_over(this: *mut Self) {
        // SAFETY: The transfer is live while the caller is counted.
        if unsafe { (*this).under_way.fetch_sub(1, SeqCst) } == 1 {
            // SAFETY: Nobody is counted any more, so that the box, which `begin` gave up, is ours.
            let this = unsafe { Pin::<KBox<Self>>::from_foreign(this.cast()) };
            this.go_on();
        }
    }
}

impl Request {
    /// What dm-io makes of the places, and how many there are.
    fn regions(&self) -> ([dm_io_region; MAX_DEVICES], usize) {
        let count = sectors_of(self.bytes.len());
        let region = |place: &Option<Place>| dm_io_region {
            bdev: place
                .as_ref()
                .map_or(ptr::null_mut(), |(device, _)| device.as_ptr()),
            sector: place.as_ref().map_or(0, |(_, sector)| *sector),
            count,
        };
        (
            self.places.each_ref().map(region),
            self.places.iter().flatten().count(),
        )
    }
}

impl<J: TransferJob> WorkItem for Transfer<J> {
    type Pointer = Pin<KBox<Self>>;

    fn run(this: Pin<KBox<Self>>) {
        J::go_on(this);
    }
}

/// So many sectors in bytes: of what is in memory, or could be.
pub(crate) fn bytes_of(sectors: u64) -> usize {
    // CAST: Lossless, a `usize` has 64 bits.
    sectors as usize * SECTOR_BYTES as usize
}

/// So many bytes in sectors.
pub(crate) fn sectors_of(bytes: usize) -> u64 {
    // CAST: Lossless, a `usize` has at most 64 bits.
    bytes as u64 / u64::from(SECTOR_BYTES)
}

// SPDX-License-Identifier: GPL-2.0-only

//! Reading many places of a device in order, with a deep queue.

use super::{
    request::Request,
    IoBuffer,
    IoClient, //
};
use crate::dm::BlockDevice;
use kernel::prelude::*;

/// Reads places of equal size, given one after another, and hands out their data in that order.
///
/// The number of reads in flight starts at one and doubles as reading goes on, up to a limit: a
/// reader that stops early has read little in vain, and one that goes on soon has the queue full.
/// Memory grows with it.
///
/// Sleeps; dropping it waits for the reads that are in flight.
pub(crate) struct ReadAhead<'a> {
    client: &'a IoClient,
    device: &'a BlockDevice,
    /// Bytes of a place.
    bytes: usize,
    /// A ring of reads. A slot is made when it is first needed.
    slots: KVec<Option<Pin<KBox<Slot>>>>,
    /// The slot of the oldest read in flight, or of the next to start if there is none.
    oldest: usize,
    /// Reads in flight, at most as many as there are slots.
    in_flight: usize,
}

impl<'a> ReadAhead<'a> {
    /// Prepares to read places of `bytes`, a multiple of the device's logical block, from
    /// `device`, at most `depth` (at least 1) at a time.
    pub(crate) fn new(
        client: &'a IoClient,
        device: &'a BlockDevice,
        bytes: usize,
        depth: usize,
    ) -> Result<Self> {
        let mut slots = KVec::with_capacity(depth, GFP_KERNEL)?;
        for _ in 0..depth {
            slots.push(None, GFP_KERNEL)?;
        }
        Ok(Self {
            client,
            device,
            bytes,
            slots,
            oldest: 0,
            in_flight: 0,
        })
    }

    /// Reads at the sectors that `places` yields, and passes the data of each to `visit`, until
    /// that returns false or there are no more.
    pub(crate) fn read_each<E: From<Error>>(
        mut self,
        mut places: impl Iterator<Item = u64>,
        mut visit: impl FnMut(&[u8]) -> Result<bool, E>,
    ) -> Result<(), E> {
        let mut wanted = 1;
        loop {
            while self.in_flight < wanted {
                let Some(sector) = places.next() else { break };
                self.start(sector)?;
            }
            if self.in_flight == 0 {
                return Ok(());
            }
            if !visit(self.wait()?)? {
                return Ok(());
            }
            wanted = (wanted * 2).min(self.slots.len());
        }
    }

    /// The slot `n` places after `oldest` in the ring.
    fn slot(&mut self, n: usize) -> Result<&mut Option<Pin<KBox<Slot>>>> {
        let index = self.oldest + n;
        let wrapped = index.checked_sub(self.slots.len()).unwrap_or(index);
        self.slots.get_mut(wrapped).ok_or(EINVAL)
    }

    /// Starts a read in the next slot, which must not be in flight.
    fn start(&mut self, sector: u64) -> Result {
        let (client, device, bytes) = (self.client, self.device, self.bytes);
        let slot = self.slot(self.in_flight)?;
        let slot = match slot {
            Some(slot) => slot,
            None => slot.insert(Slot::new(bytes)?),
        };
        // SAFETY: `in_flight` counts it, so that `wait` comes to it before the slot is used again
        // or `self`, which borrows the device and the client, goes away.
        unsafe { slot.start(client, device, sector)? };
        self.in_flight += 1;
        Ok(())
    }

    /// Waits for the oldest read in flight and returns its data.
    fn wait(&mut self) -> Result<&[u8]> {
        let oldest = self.oldest;
        self.in_flight = self.in_flight.checked_sub(1).ok_or(EINVAL)?;
        self.oldest = if oldest + 1 < self.slots.len() {
            oldest + 1
        } else {
            0
        };
        let slot = self.slots.get(oldest).and_then(Option::as_ref);
        let slot = slot.ok_or(EINVAL)?;
        // SAFETY: `in_flight` counted its read, and does no more.
        unsafe { slot.wait()? };
        Ok(&slot.buffer)
    }
}

impl Drop for ReadAhead<'_> {
    fn drop(&mut self) {
        while self.in_flight > 0 {
            // What came of a read that nobody wants any more does not matter.
            let _ = self.wait();
        }
    }
}

/// A read and its memory.
///
/// # Invariants
///
/// Between [`Slot::start`] and [`Slot::wait`] dm-io writes `buffer`, and nobody reads it.
#[pin_data]
struct Slot {
    buffer: IoBuffer,
    #[pin]
    request: Request,
}

impl Slot {
    fn new(bytes: usize) -> Result<Pin<KBox<Self>>> {
        let buffer = IoBuffer::new(bytes)?;
        KBox::pin_init(
            pin_init!(Self {
                buffer,
                request <- Request::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// Starts to read `buffer` from `sector`.
    ///
    /// # Safety
    ///
    /// If it succeeds, [`Slot::wait`] must be called before the next call, before `buffer` is
    /// looked at, and before the slot is dropped or the borrow of `client` and `device` ends.
    unsafe fn start(&self, client: &IoClient, device: &BlockDevice, sector: u64) -> Result {
        // SAFETY: The caller waits for the read before any of what it uses goes away.
        unsafe { client.start_read(device, sector, &self.buffer, self.request.notify()) }
    }

    /// Waits for the read that was started.
    ///
    /// # Safety
    ///
    /// A read must have been started that nobody waited for.
    unsafe fn wait(&self) -> Result {
        // SAFETY: The caller vouches for it, and has the slot to itself.
        unsafe { self.request.wait() }
    }
}

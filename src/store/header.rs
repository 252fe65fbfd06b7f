// SPDX-License-Identifier: GPL-2.0-only

//! Writing the header.

use super::info;
use super::metadata::DeviceInfo;
use crate::dm::{
    io::{
        IoBuffer,
        IoClient, //
    },
    Device,
    HeldDevice,
    Workqueue, //
};
use crate::format::{
    self,
    Geometry,
    SECTOR_BYTES, //
};
use core::ops::Range;
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

/// The smallest block that a disk may come to have while a snapshot is active.
const COMMON_BLOCK: usize = 4096;

/// Writes the header from a thread of its own: whoever invalidates a snapshot may be submitting
/// I/O, and would wait for itself.
///
/// It has memory of its own, since a snapshot is invalidated while records are being written.
pub(super) struct HeaderWriter {
    // Dropped first, which waits for what is queued.
    queue: Workqueue,
    task: Arc<Task>,
}

/// Writes what is in `block`.
#[pin_data]
struct Task {
    io: Arc<IoClient>,
    #[pin]
    work: Work<Self>,
    /// `None` until there is a COW device. Held during the write.
    #[pin]
    block: Mutex<Option<Block>>,
}

/// The block that the header is written in: what the COW device writes at once.
struct Block {
    buffer: IoBuffer,
    /// What to write of it, and where to, if somebody asked for it.
    wanted: Option<(HeldDevice, Range<usize>)>,
    /// What came of the last write.
    result: Result,
}

impl_has_work! {
    impl HasWork<Self> for Task { self.work }
}

impl WorkItem for Task {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        if let Some(block) = &mut *this.block.lock() {
            if let Some((device, bytes)) = block.wanted.take() {
                block.result = this.io.flush_and_write(&device, 0, &block.buffer, bytes);
            }
        }
    }
}

impl HeaderWriter {
    /// Makes a writer that uses `io`. May sleep.
    pub(super) fn new(io: Arc<IoClient>) -> Result<Self> {
        Ok(Self {
            queue: Workqueue::new(c"ksnaphd")?,
            task: Arc::pin_init(
                pin_init!(Task {
                    io,
                    work <- new_work!("HeaderWriter::work"),
                    block <- new_mutex!(None, "HeaderWriter::block"),
                }),
                GFP_KERNEL,
            )?,
        })
    }

    /// Makes room for the header of the COW device `cow`. May sleep.
    pub(super) fn prepare(&self, cow: DeviceInfo) -> Result {
        let bytes = cow
            .physical_block
            .min(Geometry::MAX_WINDOW_BYTES)
            .max(cow.logical_block);
        let block = Block {
            buffer: IoBuffer::new(COMMON_BLOCK.max(bytes as usize))?,
            wanted: None,
            result: Err(EIO),
        };
        *self.task.block.lock() = Some(block);
        Ok(())
    }

    /// Writes `header` to `device`; on stable storage, and all that had completed before it, when
    /// it returns. Sleeps.
    pub(super) fn write(&self, device: &Device, header: format::Header) -> Result {
        if let Some(block) = &mut *self.task.block.lock() {
            let bytes = block.fill(header, info(device).unit());
            block.wanted = Some((device.hold(), bytes));
        }
        // If another thread's is queued already, that one will write this header.
        let _ = self.queue.enqueue(self.task.clone());
        self.queue.flush();
        let block = self.task.block.lock();
        block.as_ref().map_or(Err(EINVAL), |block| block.result)
    }
}

impl Block {
    /// Puts `header` into the block; returns what to write of it on a COW device that writes `unit`
    /// bytes at once now: no more than a chunk.
    fn fill(&mut self, header: format::Header, unit: usize) -> Range<usize> {
        let chunk_bytes = header.chunk_sectors as usize * SECTOR_BYTES as usize;
        for (to, from) in self.buffer.iter_mut().zip(header.to_bytes()) {
            *to = from;
        }
        0..unit.min(self.buffer.len()).min(chunk_bytes)
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! The header's block in memory.

use super::metadata::DeviceInfo;
use crate::dm::io::IoBuffer;
use crate::format::{self, Geometry, SECTOR_BYTES};
use core::ops::Range;
use kernel::prelude::*;

/// The smallest block that a disk may come to have while a snapshot is active.
const COMMON_BLOCK: usize = 4096;

/// The block that the header is written in: what the COW device writes at once.
pub(super) struct Header(IoBuffer);

impl Header {
    /// Makes room for the header of the COW device `cow`. May sleep.
    pub(super) fn new(cow: DeviceInfo) -> Result<Self> {
        let bytes = cow
            .physical_block
            .min(Geometry::MAX_WINDOW_BYTES)
            .max(cow.logical_block);
        Ok(Self(IoBuffer::new(COMMON_BLOCK.max(bytes as usize))?))
    }

    /// Puts `header` into the block; returns what to write of it on a COW device that writes `unit`
    /// bytes at once now: no more than a chunk.
    pub(super) fn fill(&mut self, header: format::Header, unit: usize) -> Range<usize> {
        let chunk_bytes = header.chunk_sectors as usize * SECTOR_BYTES as usize;
        for (to, from) in self.0.iter_mut().zip(header.to_bytes()) {
            *to = from;
        }
        0..unit.min(self.0.len()).min(chunk_bytes)
    }

    /// The block.
    pub(super) fn block(&self) -> &IoBuffer {
        &self.0
    }
}

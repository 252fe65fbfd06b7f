// SPDX-License-Identifier: GPL-2.0-only

//! What the copiers write to.

use crate::buffer::is_zero;
use crate::device::Device;
use crate::error::Result;
use rustix::fs::{fadvise, Advice};
use std::fs::File;
use std::ops::Range;

/// Zeros in blocks of this many bytes become holes.
pub const HOLE_BYTES: usize = 64 * 1024;

/// A device or file that becomes what the snapshot is.
pub struct Image {
    device: Device,
    /// Whether what is not written reads as zero.
    holes: bool,
}

impl Image {
    /// A block device, which may hold anything.
    pub fn block_device(device: Device) -> Self {
        Self {
            device,
            holes: false,
        }
    }

    /// A file that was made for it: what was not written yet is a hole.
    pub fn file(device: Device) -> Self {
        Self {
            device,
            holes: true,
        }
    }

    /// The device or file that it is.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Whether what is not written reads as zero.
    pub fn has_holes(&self) -> bool {
        self.holes
    }

    /// Writes `bytes` at `offset`, but leaves holes where it may; returns how many were written.
    pub fn write(&self, bytes: &[u8], offset: u64) -> Result<u64> {
        if !self.holes {
            self.device.write_at(bytes, offset)?;
            return Ok(bytes.len() as u64);
        }
        let mut written = 0;
        let mut from = 0;
        while from < bytes.len() {
            let block = |at: usize| &bytes[at..bytes.len().min(at + HOLE_BYTES)];
            if is_zero(block(from)) {
                from += HOLE_BYTES;
                continue;
            }
            let mut end = from + block(from).len();
            while end < bytes.len() && !is_zero(block(end)) {
                end += block(end).len();
            }
            self.device
                .write_at(&bytes[from..end], offset + from as u64)?;
            written += (end - from) as u64;
            from = end;
        }
        Ok(written)
    }

    /// Makes the bytes `range` zero, if they are not yet.
    pub fn zero(&self, range: Range<u64>) -> Result<()> {
        match self.holes {
            true => Ok(()),
            false => self.device.zero(range),
        }
    }

    /// Makes everything written durable, and has what is read next come from where it is stored.
    pub fn flush_and_forget(&self) -> Result<()> {
        self.device.flush()?;
        forget(self.device.file());
        Ok(())
    }

    /// Whether all of `range` is known to be zero without reading it.
    pub fn is_hole(&self, range: &Range<u64>) -> bool {
        self.device.data_from(range.start).start >= range.end
    }
}

/// Has what is read of `file` next, all of it durable, come from where it is stored.
pub fn forget(file: &File) {
    // It is only advice: where the page cache keeps the file, that is what is read.
    let _ = fadvise(file, 0, None, Advice::DontNeed);
}

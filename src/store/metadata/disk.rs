// SPDX-License-Identifier: GPL-2.0-only

//! The COW device, as far as metadata needs it.

use crate::format::{
    Extent,
    Fault,
    Header,
    NoMemory, //
};
use core::ops::{
    DerefMut,
    Range, //
};

/// A COW device.
///
/// Sectors are 512 bytes. Byte ranges are within a buffer, and their bounds are multiples of the
/// device's logical block.
pub trait Disk {
    /// Why I/O failed.
    type Error;

    /// Memory that I/O is made from.
    type Buffer: DerefMut<Target = [u8]>;

    /// Allocates `bytes` of zeroes.
    fn buffer(&self, bytes: usize) -> Result<Self::Buffer, NoMemory>;

    /// Reads from `sector` on into the `bytes` of `buffer`.
    fn read(
        &self,
        sector: u64,
        buffer: &mut Self::Buffer,
        bytes: Range<usize>,
    ) -> Result<(), Self::Error>;

    /// Reads pieces of `bytes` each, at the sectors that `places` yields, and passes them in that
    /// order to `visit`, until it returns false. May read further places ahead.
    fn read_each<E: From<Self::Error>>(
        &self,
        bytes: usize,
        places: impl Iterator<Item = u64>,
        visit: impl FnMut(&[u8]) -> Result<bool, E>,
    ) -> Result<(), E>;

    /// Writes the `bytes` of `buffer` from `sector` on; on stable storage when it returns.
    fn write(
        &self,
        sector: u64,
        buffer: &Self::Buffer,
        bytes: Range<usize>,
    ) -> Result<(), Self::Error>;

    /// Like [`Self::write`], and all that had completed before is on stable storage before.
    fn flush_and_write(
        &self,
        sector: u64,
        buffer: &Self::Buffer,
        bytes: Range<usize>,
    ) -> Result<(), Self::Error>;

    /// Writes the header's block, as [`Self::flush_and_write`] does, and not from the caller's
    /// thread.
    fn write_header(&self, header: Header) -> Result<(), Self::Error>;

    /// A hint that [`Self::zero`] will be asked for `extent`: may begin with it in the background.
    ///
    /// Called before the completions run: whoever suspends the COW device after them, suspends it
    /// when this I/O is on its way.
    fn zero_ahead(&self, extent: Extent);

    /// Makes `extent` read as zeroes. When it returns this is done, perhaps in a volatile cache.
    fn zero(&self, extent: Extent) -> Result<(), Self::Error>;
}

/// Why metadata could not be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error<E> {
    /// What is on the COW device makes no sense.
    Fault(Fault),
    /// I/O failed, or the receiver of the exceptions did.
    Io(E),
}

impl<E> From<E> for Error<E> {
    fn from(error: E) -> Self {
        Self::Io(error)
    }
}

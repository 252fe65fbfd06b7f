// SPDX-License-Identifier: GPL-2.0-only

//! The COW device of a live snapshot.

use super::{
    header::HeaderWriter,
    metadata::{
        self,
        Disk, //
    }, //
};
use crate::dm::{
    io::{
        IoBuffer,
        IoClient,
        ReadAhead,
        Wiper, //
    },
    Device, //
};
use crate::format::{
    self,
    Extent,
    NoMemory, //
};
use core::ops::Range;
use kernel::prelude::*;

/// Memory that [`ReadAhead`] may take while a snapshot is activated, in bytes.
const READ_AHEAD_BYTES: usize = 1 << 20;

/// A COW device for the duration of a call, and what I/O on it is made with.
pub(super) struct Cow<'a> {
    pub(super) device: &'a Device,
    pub(super) io: &'a IoClient,
    pub(super) wiper: &'a Wiper,
    pub(super) header: &'a HeaderWriter,
}

impl Disk for Cow<'_> {
    type Error = Error;
    type Buffer = IoBuffer;

    fn buffer(&self, bytes: usize) -> Result<IoBuffer, NoMemory> {
        IoBuffer::new(bytes).map_err(|_| NoMemory)
    }

    fn read(&self, sector: u64, buffer: &mut IoBuffer, bytes: Range<usize>) -> Result {
        self.io.read(self.device, sector, buffer, bytes)
    }

    fn read_each<E: From<Error>>(
        &self,
        bytes: usize,
        places: impl Iterator<Item = u64>,
        visit: impl FnMut(&[u8]) -> Result<bool, E>,
    ) -> Result<(), E> {
        let depth = (READ_AHEAD_BYTES / bytes).clamp(2, 256);
        ReadAhead::new(self.io, self.device, bytes, depth)?.read_each(places, visit)
    }

    fn write(&self, sector: u64, buffer: &IoBuffer, bytes: Range<usize>) -> Result {
        self.io.write(self.device, sector, buffer, bytes)
    }

    fn flush_and_write(&self, sector: u64, buffer: &IoBuffer, bytes: Range<usize>) -> Result {
        self.io.flush_and_write(self.device, sector, buffer, bytes)
    }

    fn write_header(&self, header: format::Header) -> Result {
        self.header.write(self.device, header)
    }

    fn zero_ahead(&self, extent: Extent) {
        self.wiper.start(self.device, extent);
    }

    fn zero(&self, extent: Extent) -> Result {
        self.wiper.zero(self.device, extent)
    }
}

/// The records of a live snapshot.
pub(super) type Committer = metadata::Committer<IoBuffer>;

// SPDX-License-Identifier: GPL-2.0-only

//! Who gets the exceptions that are found on a COW device.

use super::disk::Error;
use crate::format::Exception;

/// Takes the exceptions that [`load`](super::load) finds.
///
/// [`Ordered`](super::Ordered) stands before one that wants them in order and checked for old
/// chunks that are used twice. A function is a receiver that takes them as they come.
pub trait Receiver<E> {
    /// Takes the chunk size in sectors, before the first exception, and also where there is none.
    fn chunk_size(&mut self, _sectors: u32) -> Result<(), E> {
        Ok(())
    }

    /// Takes an exception, in the order of the list. Both its chunks are where they may be. That no
    /// other record has its new chunk is certain only when [`Self::finish`] is called.
    fn take(&mut self, e: Exception) -> Result<(), Error<E>>;

    /// All were taken, and no new chunk is used twice. Old chunks were not compared: the receiver
    /// may.
    fn finish(&mut self) -> Result<(), Error<E>>;
}

impl<E, F: FnMut(Exception) -> Result<(), E>> Receiver<E> for F {
    fn take(&mut self, e: Exception) -> Result<(), Error<E>> {
        self(e).map_err(Error::Io)
    }

    fn finish(&mut self) -> Result<(), Error<E>> {
        Ok(())
    }
}

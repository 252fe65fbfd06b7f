// SPDX-License-Identifier: GPL-2.0-only

//! Handing over what is found while metadata is loaded, as it comes.

use super::metadata::{self, Receiver};
use crate::format::Exception;
use kernel::prelude::*;

/// Hands the chunk size and the exceptions over in the order of the list.
///
/// For who keeps them in a table that any order will do for, and that notices two with one old
/// chunk: under the C core that is [`Ordered`](super::metadata::Ordered)'s.
pub(super) struct Found<'a> {
    /// Takes the chunk size in sectors.
    pub(super) begin: &'a mut dyn FnMut(u32) -> Result,
    /// Takes an exception.
    pub(super) add: &'a mut dyn FnMut(Exception) -> Result,
}

impl Receiver<Error> for Found<'_> {
    fn chunk_size(&mut self, sectors: u32) -> Result {
        (self.begin)(sectors)
    }

    fn take(&mut self, e: Exception) -> Result<(), metadata::Error<Error>> {
        (self.add)(e).map_err(metadata::Error::Io)
    }

    fn finish(&mut self) -> Result<(), metadata::Error<Error>> {
        Ok(())
    }
}

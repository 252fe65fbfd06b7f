// SPDX-License-Identifier: GPL-2.0-only

//! The caller's table as the reader of metadata sees it.

use super::metadata::{
    self,
    Receiver, //
};
use crate::dm::exception_store::ExceptionTable;
use crate::format::Exception;
use kernel::prelude::*;

/// Inserts what is found into a table, as it comes.
pub(super) struct TableReceiver<'a, T>(pub(super) &'a mut T);

impl<T: ExceptionTable> Receiver<Error> for TableReceiver<'_, T> {
    fn chunk_size(&mut self, sectors: u32) -> Result {
        self.0.begin(sectors)
    }

    fn take(&mut self, e: Exception) -> Result<(), metadata::Error<Error>> {
        self.0.insert(e).map_err(metadata::Error::Io)
    }

    fn finish(&mut self) -> Result<(), metadata::Error<Error>> {
        Ok(())
    }
}

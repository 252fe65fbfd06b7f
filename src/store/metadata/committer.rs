// SPDX-License-Identifier: GPL-2.0-only

//! When to write records, and what to tell those who wait for them.

use super::{disk::Error, Disk, RecordList};
use crate::format::Exception;
use core::ops::DerefMut;

/// Gathers exceptions and writes their records together.
///
/// While copies are under way, the exceptions that are done already wait for them, so that one
/// flush serves all. Who waits is the caller's to remember: what is returned holds for everybody
/// since the last outcome.
pub struct Committer<B> {
    list: RecordList<B>,
    valid: bool,
}

impl<B: DerefMut<Target = [u8]>> Committer<B> {
    /// Adds to `list`, whose snapshot is valid.
    pub fn new(list: RecordList<B>) -> Self {
        Self { list, valid: true }
    }

    /// The list of records.
    pub fn list(&mut self) -> &mut RecordList<B> {
        &mut self.list
    }

    /// Adds an exception that was copied, unless `copied` is false.
    ///
    /// Returns the outcome for this exception and all that wait with it: true if their records are
    /// on stable storage, false if they never will be. `None` if they go on waiting, which
    /// happens only if `may_wait`.
    ///
    /// Once anything went wrong, every outcome is false. What went wrong is given to `report`, once.
    pub fn commit<D: Disk<Buffer = B>>(
        &mut self,
        disk: &D,
        exception: Exception,
        copied: bool,
        may_wait: bool,
        mut report: impl FnMut(Error<D::Error>),
    ) -> Option<bool> {
        self.valid =
            self.valid && copied && self.list.push(disk, exception).map_err(&mut report).is_ok();
        if self.valid && may_wait && !self.list.must_write() {
            return None;
        }
        self.valid = self.valid && self.list.write_out(disk).map_err(&mut report).is_ok();
        Some(self.valid)
    }
}

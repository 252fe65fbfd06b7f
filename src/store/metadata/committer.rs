// SPDX-License-Identifier: GPL-2.0-only

//! When to write records, and what became of the commits.

use super::{
    disk::Error,
    Disk,
    RecordList, //
};
use crate::format::Exception;
use core::ops::DerefMut;

/// Gathers exceptions and writes their records together.
///
/// Writing records costs a flush and a write, however many there are. So the first exception that
/// is done waits for those whose copies are under way at that moment, and one flush serves all. It
/// does not wait for copies that begin later, as the C store does: under steady load there are
/// always some, and it would wait for ever.
///
/// The caller keeps the completions: an outcome is that of all commits since the last outcome.
pub struct Committer<B> {
    list: RecordList<B>,
    valid: bool,
    /// How many commits are to come before the records are written; 0 if no commit waits.
    awaited: u64,
}

impl<B: DerefMut<Target = [u8]>> Committer<B> {
    /// Adds to `list`, whose snapshot is valid.
    pub fn new(list: RecordList<B>) -> Self {
        Self {
            list,
            valid: true,
            awaited: 0,
        }
    }

    /// The list of records.
    pub fn list(&mut self) -> &mut RecordList<B> {
        &mut self.list
    }

    /// Adds an exception that was copied, unless `copied` is false, to stable storage if `stable`. `pending`
    /// is the number of those that are still to come, which come in the order in which they were begun; 0 if
    /// they are not to be waited for.
    ///
    /// Returns the outcome for this exception and all that wait with it: true if their records are
    /// on stable storage, false if they never will be. `None` if they go on waiting.
    ///
    /// Once anything went wrong, every outcome is false. What went wrong is given to `report`,
    /// once.
    pub fn commit<D: Disk<Buffer = B>>(
        &mut self,
        disk: &D,
        exception: Exception,
        copied: bool,
        stable: bool,
        pending: u64,
        mut report: impl FnMut(Error<D::Error>),
    ) -> Option<bool> {
        let mut push = || self.list.push(disk, exception, stable);
        self.valid = self.valid && copied && push().map_err(&mut report).is_ok();
        let awaited = match self.awaited {
            0 => pending,
            more => pending.min(more - 1),
        };
        if self.valid && awaited > 0 && !self.list.must_write() {
            self.awaited = awaited;
            return None;
        }
        self.awaited = 0;
        self.valid = self.valid && self.list.write_out(disk).map_err(&mut report).is_ok();
        Some(self.valid)
    }
}

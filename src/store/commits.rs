// SPDX-License-Identifier: GPL-2.0-only

//! The records, and the completions that wait for them to be written.

use super::{
    cow::{
        Committer,
        Cow, //
    },
    metadata::Rounds,
    report,
    DM_MSG_PREFIX, //
};
use crate::dm::{
    exception_store::{
        Completion,
        Copied, //
    },
    message::dm_err, //
};
use crate::format::Exception;
use kernel::prelude::*;

/// How many exceptions may wait to be written together, at most.
///
/// Each keeps writes to the origin waiting, so that more would only make those wait longer.
const MAX_WAITING: usize = 1024;

/// The records, and the completions that wait for them to be written.
pub(super) struct Commits<D> {
    pub(super) committer: Committer,
    /// Each set has all the room that it may need, so that a commit needs no memory. That can be more than
    /// there is in one piece.
    waiting: Rounds<KVVec<D>>,
}

impl<D: Completion> Commits<D> {
    /// Adds to the records of `committer`, of which `per_area` fit an area. May sleep.
    pub(super) fn new(committer: Committer, per_area: u32) -> Result<Self> {
        let capacity = MAX_WAITING.min(per_area as usize);
        let set = || KVVec::with_capacity(capacity, GFP_KERNEL);
        Ok(Self {
            committer,
            waiting: Rounds::new(set()?, set()?),
        })
    }

    /// Adds an exception that was copied or not. `pending` is the number of those that are still to
    /// come.
    ///
    /// Returns the outcome if there is one: for this exception, and for all that waited for it.
    pub(super) fn commit(
        &mut self,
        cow: &Cow<'_>,
        exception: Exception,
        copied: Copied,
        pending: u64,
        done: D,
    ) -> Option<Outcome<D>> {
        let (alone, full) = match self.waiting.gathering() {
            Some(set) => {
                let refused = set.push_within_capacity(done).err();
                (refused.map(|e| e.0), set.len() == set.capacity())
            }
            // After a handover a second thread can commit while the first still runs completions:
            // this one cannot wait then.
            None => (Some(done), true),
        };
        let is_copied = copied != Copied::No;
        let pending = if full { 0 } else { pending };
        let success = self.committer.commit(
            cow,
            exception,
            is_copied,
            copied.is_stable(),
            pending,
            |e| {
                let e = report(cow.device, e);
                dm_err!("{}: cannot write records: {:?}", cow.device, e);
            },
        )?;
        Some(Outcome {
            success,
            records: self.committer.list().records(),
            due: self.waiting.take(),
            alone,
        })
    }

    /// Takes back what [`Outcome::complete`] returned.
    pub(super) fn put_back(&mut self, set: Option<KVVec<D>>) {
        if let Some(set) = set {
            self.waiting.put_back(set);
        }
    }
}

/// What became of some commits.
#[must_use]
pub(super) struct Outcome<D> {
    /// Whether the records are on stable storage; if not, they never will be.
    pub(super) success: bool,
    /// Records in the list now.
    pub(super) records: u64,
    /// The completions to run.
    due: Option<KVVec<D>>,
    /// This commit's completion, if no set had room for it.
    alone: Option<D>,
}

impl<D: Completion> Outcome<D> {
    /// How many commits there are.
    pub(super) fn commits(&self) -> u64 {
        // CAST: Lossless, a `usize` has at most 64 bits.
        (self.due.as_ref().map_or(0, KVVec::len) + usize::from(self.alone.is_some())) as u64
    }

    /// Runs the completions; returns their set, emptied. To be called with no lock held.
    pub(super) fn complete(mut self) -> Option<KVVec<D>> {
        for done in self.due.iter_mut().flat_map(KVVec::drain_all) {
            done.complete(self.success);
        }
        if let Some(done) = self.alone {
            done.complete(self.success);
        }
        self.due
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! Exceptions on their way to dm-snapshot, brought into an order that suits it.

use super::disk::Error;
use crate::format::{Exception, Fault, List, NoMemory};

/// Exceptions handed over at once, at most: 4 MiB of them.
const CAPACITY: usize = 1 << 18;

/// Groups that they are sorted into.
const GROUPS: usize = 1024;

/// Gathers exceptions and hands them over roughly in descending order of their old chunks.
///
/// dm-snapshot keeps exceptions in a hash table by old chunk. In the order of the list, which is
/// that of the writes, nearly every insertion misses the CPU's caches a few times, and a million of
/// them take longer than reading a million records. Neighbours handed over together share buckets,
/// which are in the caches then; descending, because a bucket is searched from its low end.
///
/// That ends with the first new chunk that is below one before it. Exceptions whose chunks follow
/// each other on both sides are one run to dm-snapshot, and a merge, which takes them from the
/// list's end, may take them from an end of their run only. While new chunks ascend, a run stands
/// together in the list, so any order of insertion will do; from there on only the list's will.
///
/// Memory is 16 bytes an exception, for [`CAPACITY`] of them at most. Exceptions that there is no
/// memory for are handed over earlier.
pub(super) struct Batch<L> {
    /// `(old chunk, new chunk)` of each.
    exceptions: L,
    /// `(next, end)` of each group while the exceptions are sorted: where its next goes, and where
    /// it ends.
    groups: L,
    /// The last new chunk.
    last_new: u64,
    /// Whether new chunks ascended so far.
    ascending: bool,
}

impl<L: List<(u64, u64)>> Batch<L> {
    pub(super) fn new() -> Result<Self, NoMemory> {
        let mut groups = L::EMPTY;
        for _ in 0..GROUPS {
            groups.try_push((0, 0))?;
        }
        Ok(Self {
            exceptions: L::EMPTY,
            groups,
            last_new: 0,
            ascending: true,
        })
    }

    /// Takes `e`, and may hand over what was gathered to `add`.
    pub(super) fn push<E>(
        &mut self,
        e: Exception,
        add: &mut impl FnMut(Exception) -> Result<(), E>,
    ) -> Result<(), Error<E>> {
        if self.ascending && e.new <= self.last_new {
            self.ascending = false;
            self.finish(add)?;
        }
        if !self.ascending {
            return add(e).map_err(Error::Io);
        }
        self.last_new = e.new;
        let e = (e.old, e.new);
        let full = self.exceptions.as_mut_slice().len() == CAPACITY;
        if full || self.exceptions.try_push(e).is_err() {
            self.finish(add)?;
            self.exceptions
                .try_push(e)
                .map_err(|e| Error::Fault(Fault::from(e)))?;
        }
        Ok(())
    }

    /// Hands over what was gathered to `add`.
    pub(super) fn finish<E>(
        &mut self,
        add: &mut impl FnMut(Exception) -> Result<(), E>,
    ) -> Result<(), Error<E>> {
        let exceptions = self.exceptions.as_mut_slice();
        sort(exceptions, self.groups.as_mut_slice());
        for &(old, new) in exceptions.iter() {
            add(Exception { old, new }).map_err(Error::Io)?;
        }
        self.exceptions.clear();
        Ok(())
    }
}

/// Sorts `values` into [`GROUPS`] ranges of their first numbers, the highest range first.
///
/// In place and in linear time, whatever the values.
fn sort(values: &mut [(u64, u64)], groups: &mut [(u64, u64)]) {
    let lowest = values.iter().map(|(old, _)| *old).min().unwrap_or(0);
    let highest = values.iter().map(|(old, _)| *old).max().unwrap_or(0);
    let bits = u64::BITS - (highest - lowest).leading_zeros();
    let shift = bits.saturating_sub(GROUPS.ilog2());
    // CAST: Less than the number of groups.
    let group_of = |(old, _): (u64, u64)| ((highest - old) >> shift) as usize;

    groups.fill((0, 0));
    for value in values.iter() {
        groups[group_of(*value)].1 += 1;
    }
    let mut end = 0;
    for group in groups.iter_mut() {
        *group = (end, end + group.1);
        end = group.1;
    }
    for group in 0..groups.len() {
        while groups[group].0 < groups[group].1 {
            // CAST: An index.
            let here = groups[group].0 as usize;
            let right = group_of(values[here]);
            values.swap(here, groups[right].0 as usize);
            groups[right].0 += 1;
        }
    }
}

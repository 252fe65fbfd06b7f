// SPDX-License-Identifier: GPL-2.0-only

//! Merging a snapshot into its origin, many exceptions at a time.
//!
//! A merge takes the last records of the list as a [`Batch`], and the next ones before them while it
//! is busy with the first. [`Merge::next`] says what is to be done; whoever does it says what became
//! of it. A chunk of a batch is
//!
//! - *copying*: it is copied to the origin, while reads and writes go on to the COW device. A write
//!   makes it dirty: it is copied once more when it is sealed.
//! - *sealed*: writes wait, reads go on to the COW device. Writes that are under way end, what is
//!   dirty is copied again, the origin is flushed, and then the records are cleared.
//! - *merged*: it is not in the table any more. Everything goes to the origin.
//!
//! The COW device is whole at any moment: a record is cleared only when the origin has what it stands
//! for on stable storage, and what can be overwritten on the origin was not written by anybody since.
//! Batches are sealed one after the other, so that only the end of the list is ever cleared.

use super::{
    table::Table,
    Bios,
    Epochs,
    Types, //
};
use crate::memory::Vec;
use core::mem::take;

/// How much a merge does at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Records of the first batch: it stands for what a merge that is stopped again and again gets
    /// done. Each may be twice as large as the one before.
    pub first: u32,
    /// Records of a batch.
    pub records: u32,
    /// Sectors of a batch, unless one chunk has more.
    pub sectors: u64,
    /// Sectors that are copied as one, unless one chunk has more: less than 65536.
    pub copy: u64,
    /// Copies under way.
    pub depth: u32,
    /// Copies for which other snapshots are asked ahead.
    pub ahead: usize,
}

impl Limits {
    /// Those of the kernel.
    pub const USUAL: Self = Self {
        first: 256,
        records: 4096,
        sectors: 16 << 11,
        copy: 1 << 11,
        depth: 64,
        ahead: 256,
    };
}

/// Exceptions of a batch whose chunks are consecutive on both devices, and are copied at once.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// The first chunk of the origin.
    pub old: u64,
    /// The first chunk of the COW device.
    pub new: u64,
    /// How many, at least 1.
    chunks: u16,
    /// The chunks that were written since they may have been copied: from the first of them to
    /// before the second. None if they are equal.
    dirty: (u16, u16),
    /// Whether room was reserved in the table.
    reserved: bool,
}

impl Run {
    /// A run of one exception.
    pub const fn new(old: u64, new: u64) -> Self {
        Self {
            old,
            new,
            chunks: 1,
            dirty: (0, 0),
            reserved: false,
        }
    }

    /// How many chunks there are.
    pub fn chunks(&self) -> u64 {
        self.chunks.into()
    }

    fn end(&self) -> u64 {
        self.old + self.chunks()
    }

    /// Chunks from `first` to `last`, of which some are in here, are written.
    fn mark(&mut self, first: u64, last: u64) {
        let from = first.saturating_sub(self.old).min(self.chunks());
        let to = (last + 1).saturating_sub(self.old).min(self.chunks());
        // CAST: At most `chunks`.
        let (from, to) = (from as u16, to as u16);
        self.dirty = match self.dirty {
            (a, b) if a == b => (from, to),
            (a, b) => (a.min(from), b.max(to)),
        };
    }
}

/// Records that were read, in the order in which their chunks are copied.
pub struct Taken {
    /// In the order of the origin.
    runs: Vec<Run>,
    records: u32,
}

impl Taken {
    /// `runs` has one exception each, of a snapshot with chunks of `1 << shift` sectors; `copy` is
    /// what [`Step::Take`] said. Takes its time: no lock is to be held.
    pub fn new(mut runs: Vec<Run>, shift: u32, copy: u64) -> Self {
        // CAST: At most what was asked for.
        let records = runs.len() as u32;
        join(&mut runs, shift, copy);
        Self { runs, records }
    }

    /// No records.
    pub const fn none() -> Self {
        Self {
            runs: Vec::new(),
            records: 0,
        }
    }
}

/// What is to be done next. Each has its answer, without which it is the last of its kind.
pub enum Step<T: Types> {
    /// Read records: not the last `skip`, but at most `max` before them, from the end of the list on.
    /// Then [`Merge::taken`]; others may be done meanwhile.
    Take {
        /// How many to skip.
        skip: u64,
        /// How many at most, at least 1.
        max: u32,
        /// For [`Taken::new`].
        copy: u64,
    },
    /// See that the table has this run, and make room for its removal; then [`Merge::reserved`].
    Reserve(BatchId, Run),
    /// See that sectors of the origin, within one span, may be overwritten, as
    /// [`Shard::cover`](super::Shard::cover) says; then [`Merge::covered`], [`Merge::waits`] or
    /// [`Merge::refused`].
    Cover {
        /// The first sector.
        start: u64,
        /// The sector after the last.
        end: u64,
    },
    /// Copy from the COW device to the origin; when that is over, [`Merge::copied`].
    Copy(MergeCopy),
    /// Flush the origin; then [`Merge::flushed`]. Others may be done meanwhile.
    Flush,
    /// Clear so many records at the end of the list, durably; then [`Merge::cleared`]. Others may be
    /// done meanwhile.
    Clear(u32),
    /// Remove a run from the table; the flag is whether room was reserved. Then [`Merge::removed`].
    Remove(BatchId, Run, bool),
    /// Give up what was reserved for a run; then [`Merge::released`].
    Release(BatchId, Run),
    /// These writes need not wait any more. They go through
    /// [`Shard::write_merging`](super::Shard::write_merging) again.
    Again(T::Bios),
    /// These writes fail: nobody knows where what they write would be found.
    Lose(T::Bios),
    /// There is nothing to do before something has happened: an answer came,
    /// [`Epochs::end`] said so, or the copies for other snapshots went on ([`Merge::look_again`]).
    Wait,
    /// The merge is over.
    Over(Outcome),
}

/// What became of a merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is merged.
    Merged,
    /// It was stopped.
    Stopped,
    /// Something failed.
    Failed,
}

/// What is to be copied.
#[derive(Clone, Copy, Debug)]
pub struct MergeCopy {
    /// For [`Merge::copied`].
    pub batch: BatchId,
    /// The first sector of the COW device.
    pub cow: u64,
    /// The first sector of the origin.
    pub origin: u64,
    /// How many sectors.
    pub sectors: u64,
}

/// Which batch something is done for: what is answered to may be another one's turn meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchId(u64);

/// What is to become of a write to the COW device.
pub(super) enum Verdict<'a, B> {
    /// It may go there.
    Cow,
    /// It waits with these.
    Waits(&'a mut B),
    /// It fails.
    Lost,
}

/// What a batch goes through.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Room in the table is made for the run with this number, and those after it.
    Reserving(usize),
    /// Writes must end that began when nobody marked what they write: those of this epoch.
    Draining(u64),
    /// Chunks are copied.
    Copying,
    /// Sealed. Writes must end that began before: those of this epoch.
    Sealing(u64),
    /// What is dirty is copied again.
    CopyingAgain,
    /// The origin is to be flushed, or is being flushed.
    Flushing,
    /// The records are to be cleared, or are being cleared.
    Clearing,
    /// They are cleared; the table loses the run with this number, and those after it.
    Removing(usize),
    /// Nothing comes of it; room is given up for the run with this number, and those after it.
    Leaving(usize),
    /// Nobody knows whether the records are cleared.
    Lost,
}

/// The last records of the list, or those before the last batch.
struct Batch<T: Types> {
    id: BatchId,
    /// In the order of the origin.
    runs: Vec<Run>,
    records: u32,
    phase: Phase,
    /// Writes that wait, while it is sealed.
    bios: T::Bios,
    /// The next run to copy.
    next: usize,
    /// Whether it may overwrite the origin, as is known just now.
    covered: bool,
    /// Whether other snapshots need something before.
    blocked: bool,
    /// The next run, and its sector, that other snapshots are to be asked for.
    ahead: (usize, u64),
    /// Copies under way.
    under_way: u32,
    /// Whether it must not be cleared: a copy failed, or what is behind it in the list is still there.
    broken: bool,
}

impl<T: Types> Batch<T> {
    fn is_sealed(&self) -> bool {
        match self.phase {
            Phase::Sealing(_)
            | Phase::CopyingAgain
            | Phase::Flushing
            | Phase::Clearing
            | Phase::Removing(_) => true,
            Phase::Reserving(_)
            | Phase::Draining(_)
            | Phase::Copying
            | Phase::Leaving(_)
            | Phase::Lost => false,
        }
    }
}

/// What is done that takes long, one at a time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slow {
    Idle,
    Taking,
    Flushing,
    Clearing,
}

/// What was merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergeCounts {
    /// How often records were cleared.
    pub batches: u64,
    /// Those records.
    pub exceptions: u64,
}

/// The merge of a snapshot.
pub struct Merge<T: Types> {
    counts: MergeCounts,
    limits: Limits,
    /// Binary logarithm of the sectors of a chunk.
    shift: u32,
    /// Sectors of the origin that are the snapshot's.
    end: u64,
    /// Two batches: the one at the end of the list, and the one before it.
    batches: [Option<Batch<T>>; 2],
    /// Records of the next batch, at most.
    most: u32,
    slow: Slow,
    /// Copies under way.
    under_way: u32,
    /// Who was asked for last: which batch, and whether for the next run of it or ahead.
    asked: (usize, bool),
    /// For the next batch.
    next_id: u64,
    /// Whether there are no records but those of the batches.
    all_taken: bool,
    stopping: bool,
    failed: bool,
}

impl<T: Types> Merge<T> {
    /// A merge that has not begun.
    pub fn new(limits: Limits) -> Self {
        Self {
            counts: MergeCounts::default(),
            limits,
            shift: 0,
            end: 0,
            batches: [const { None }; 2],
            most: 0,
            slow: Slow::Idle,
            under_way: 0,
            asked: (0, false),
            next_id: 0,
            all_taken: false,
            stopping: false,
            failed: false,
        }
    }

    /// It begins, or goes on after it was over: for chunks of `1 << shift` sectors, and the first
    /// `end` sectors of the origin.
    pub fn begin(&mut self, shift: u32, end: u64) {
        self.shift = shift;
        self.end = end;
        self.most = self.limits.first;
        self.all_taken = false;
        self.stopping = false;
        self.failed = self.is_lost();
    }

    /// What was merged.
    pub fn counts(&self) -> MergeCounts {
        self.counts
    }

    /// Begins to count anew.
    pub fn forget_counts(&mut self) {
        self.counts = MergeCounts::default();
    }

    /// It is to end soon: what is sealed is merged, nothing else.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Copies for other snapshots went on.
    pub fn look_again(&mut self) {
        for batch in self.batches.iter_mut().flatten() {
            batch.blocked = false;
        }
    }

    /// Whether nobody knows which records there are: then merging cannot go on until all is loaded
    /// anew.
    pub fn is_lost(&self) -> bool {
        let mut batches = self.batches.iter().flatten();
        batches.any(|batch| batch.phase == Phase::Lost)
    }

    /// Whether nothing new is to be begun.
    fn is_ending(&self) -> bool {
        self.stopping || self.failed
    }

    // --- Writes

    /// How many chunks from `first` on, at least 1, have the same part in the merge.
    pub(super) fn alike(&self, first: u64) -> u64 {
        let mut chunks = u64::MAX;
        for batch in self.batches.iter().flatten() {
            let index = batch.runs.partition_point(|run| run.end() <= first);
            if let Some(run) = batch.runs.get(index) {
                let until = if run.old > first { run.old } else { run.end() };
                chunks = chunks.min(until - first);
            }
        }
        chunks
    }

    /// A write comes to chunks from `first` to `last`, which are on the COW device.
    pub(super) fn write(&mut self, first: u64, last: u64) -> Verdict<'_, T::Bios> {
        let mut waits = None;
        for (number, batch) in self.batches.iter_mut().enumerate() {
            let Some(batch) = batch else { continue };
            let sealed = batch.is_sealed();
            let index = batch.runs.partition_point(|run| run.end() <= first);
            let runs = batch.runs.get_mut(index..).unwrap_or_default();
            for run in runs.iter_mut().take_while(|run| run.old <= last) {
                if batch.phase == Phase::Lost {
                    return Verdict::Lost;
                }
                if sealed {
                    waits = Some(number);
                } else {
                    run.mark(first, last);
                }
            }
        }
        let waits = waits.and_then(|number| self.batches.get_mut(number)?.as_mut());
        match waits {
            Some(batch) => Verdict::Waits(&mut batch.bios),
            None => Verdict::Cow,
        }
    }

    // --- What is to be done

    /// What is to be done next. `writes` counts the writes that went to the COW device; the lock that
    /// protects it is held.
    pub fn next(&mut self, writes: &Epochs) -> Step<T> {
        writes.advance();
        for number in 0..self.batches.len() {
            if let Some(step) = self.next_of(number, writes) {
                return step;
            }
        }
        if self.slow != Slow::Idle {
            return Step::Wait;
        }
        let last_is_free = self.batches.last().is_some_and(Option::is_none);
        if last_is_free && !self.is_ending() && !self.all_taken {
            self.slow = Slow::Taking;
            let batches = self.batches.iter().flatten();
            return Step::Take {
                skip: batches.map(|batch| u64::from(batch.records)).sum(),
                max: self.most_records(),
                copy: self.limits.copy,
            };
        }
        let mut batches = self.batches.iter().flatten();
        if batches.any(|batch| batch.phase != Phase::Lost) {
            return Step::Wait;
        }
        Step::Over(match () {
            () if self.failed => Outcome::Failed,
            () if self.all_taken => Outcome::Merged,
            () => Outcome::Stopped,
        })
    }

    fn most_records(&self) -> u32 {
        let fit = (self.limits.sectors >> self.shift).max(1);
        // CAST: At most the first of the two.
        u64::from(self.most).min(fit) as u32
    }

    /// What a batch has to do next, if it need not wait.
    fn next_of(&mut self, number: usize, writes: &Epochs) -> Option<Step<T>> {
        let (ending, limits, shift, end) = (self.is_ending(), self.limits, self.shift, self.end);
        let slow_is_free = self.slow == Slow::Idle;
        let full = self.under_way >= limits.depth;
        let is_last = number == 0;
        let batch = self.batches.get_mut(number)?.as_mut()?;
        loop {
            match batch.phase {
                Phase::Reserving(_) | Phase::Draining(_) if ending => {
                    batch.phase = Phase::Leaving(0);
                }
                Phase::Reserving(at) => match batch.runs.get(at) {
                    Some(run) => return Some(Step::Reserve(batch.id, *run)),
                    None => batch.phase = Phase::Draining(writes.close()),
                },
                Phase::Draining(epoch) => {
                    if !writes.is_over(epoch) {
                        return None;
                    }
                    batch.phase = Phase::Copying;
                }
                Phase::Copying => {
                    let all_begun = batch.next >= batch.runs.len();
                    if batch.broken || ending && !(is_last && all_begun) {
                        if batch.under_way > 0 {
                            return None;
                        }
                        batch.phase = Phase::Leaving(0);
                        continue;
                    }
                    let Some(run) = batch.runs.get(batch.next) else {
                        if batch.under_way > 0 || !is_last {
                            return None;
                        }
                        batch.phase = Phase::Sealing(writes.close());
                        continue;
                    };
                    let start = run.old << shift;
                    let until = (run.end() << shift).min(end);
                    if start >= until {
                        // Behind the end there is nothing to copy.
                        batch.next += 1;
                    } else if batch.covered {
                        if full {
                            return None;
                        }
                        let copy = MergeCopy {
                            batch: batch.id,
                            cow: run.new << shift,
                            origin: start,
                            sectors: until - start,
                        };
                        batch.covered = false;
                        batch.next += 1;
                        batch.under_way += 1;
                        self.under_way += 1;
                        return Some(Step::Copy(copy));
                    } else if !batch.blocked {
                        if full {
                            return None;
                        }
                        self.asked = (number, true);
                        return Some(Step::Cover { start, end: until });
                    } else {
                        self.asked = (number, false);
                        return batch.ask_ahead(shift, end, limits.ahead);
                    }
                }
                Phase::Sealing(_) | Phase::CopyingAgain if batch.broken => {
                    if batch.under_way > 0 {
                        return None;
                    }
                    batch.phase = Phase::Leaving(0);
                }
                Phase::Sealing(epoch) => {
                    if !writes.is_over(epoch) {
                        return None;
                    }
                    batch.next = 0;
                    batch.phase = Phase::CopyingAgain;
                }
                Phase::CopyingAgain => {
                    if full {
                        return None;
                    }
                    let Some(run) = batch.runs.get_mut(batch.next) else {
                        if batch.under_way > 0 {
                            return None;
                        }
                        batch.phase = Phase::Flushing;
                        continue;
                    };
                    batch.next += 1;
                    let (from, to) = take(&mut run.dirty);
                    let start = (run.old + u64::from(from)) << shift;
                    let until = ((run.old + u64::from(to)) << shift).min(end);
                    if start < until {
                        batch.under_way += 1;
                        self.under_way += 1;
                        return Some(Step::Copy(MergeCopy {
                            batch: batch.id,
                            cow: (run.new + u64::from(from)) << shift,
                            origin: start,
                            sectors: until - start,
                        }));
                    }
                }
                Phase::Flushing => {
                    if !slow_is_free {
                        return None;
                    }
                    self.slow = Slow::Flushing;
                    return Some(Step::Flush);
                }
                Phase::Clearing => {
                    if !slow_is_free {
                        return None;
                    }
                    self.slow = Slow::Clearing;
                    return Some(Step::Clear(batch.records));
                }
                Phase::Removing(at) => {
                    if let Some(run) = batch.runs.get(at) {
                        return Some(Step::Remove(batch.id, *run, run.reserved));
                    }
                    self.most = self.most.saturating_mul(2).min(limits.records);
                    return self.leave(number, true);
                }
                Phase::Leaving(at) => {
                    let rest = batch.runs.get(at..).unwrap_or_default();
                    let Some(next) = rest.iter().position(|run| run.reserved) else {
                        return self.leave(number, false);
                    };
                    batch.phase = Phase::Leaving(at + next);
                    let run = batch.runs.get(at + next)?;
                    return Some(Step::Release(batch.id, *run));
                }
                Phase::Lost => {
                    let bios = take(&mut batch.bios);
                    return (!bios.is_empty()).then_some(Step::Lose(bios));
                }
            }
        }
    }

    /// A batch is gone. If it was not merged it is still at the end of the list.
    fn leave(&mut self, number: usize, merged: bool) -> Option<Step<T>> {
        let batch = self.batches.get_mut(number)?.take()?;
        self.all_taken &= merged;
        if number == 0 {
            self.batches.rotate_left(1);
            if let Some(Some(other)) = self.batches.first_mut() {
                other.broken |= !merged;
            }
        }
        // There are none if it was not sealed: then go on with the other batch.
        Some(Step::Again(batch.bios))
    }

    // --- What was done

    /// Records were read, from the end of the list on, or could not be. If there are none at all, the
    /// list has none but those that were skipped.
    pub fn taken(&mut self, taken: Option<Taken>) {
        self.slow = Slow::Idle;
        let Some(Taken { runs, records }) = taken else {
            self.failed = true;
            return;
        };
        if self.is_ending() {
            return;
        }
        if runs.is_empty() {
            self.all_taken = true;
            return;
        }
        let id = BatchId(self.next_id);
        self.next_id += 1;
        let free = self.batches.iter_mut().find(|batch| batch.is_none());
        if let Some(free) = free {
            *free = Some(Batch {
                id,
                runs,
                records,
                phase: Phase::Reserving(0),
                bios: T::Bios::default(),
                next: 0,
                covered: false,
                blocked: false,
                ahead: (0, 0),
                under_way: 0,
                broken: false,
            });
        }
    }

    /// Calls `change` with the first batch for which it returns something.
    fn change<R>(&mut self, change: impl FnMut(&mut Batch<T>) -> Option<R>) -> Option<R> {
        self.batches.iter_mut().flatten().find_map(change)
    }

    /// The batch with this number.
    fn batch(&mut self, id: BatchId) -> Option<&mut Batch<T>> {
        self.batches
            .iter_mut()
            .flatten()
            .find(|batch| batch.id == id)
    }

    /// Room was made for the run, if that is necessary: then it is `Some(true)`. `None` if the table
    /// says otherwise.
    pub fn reserved(&mut self, id: BatchId, reserved: Option<bool>) {
        let Some(reserved) = reserved else {
            self.failed = true;
            return;
        };
        if let Some(batch) = self.batch(id) {
            if let Phase::Reserving(at) = &mut batch.phase {
                if let Some(run) = batch.runs.get_mut(*at) {
                    run.reserved = reserved;
                }
                *at += 1;
            }
        }
    }

    /// The sectors may be overwritten.
    pub fn covered(&mut self) {
        let (number, is_next) = self.asked;
        if let Some(Some(batch)) = self.batches.get_mut(number) {
            if is_next {
                batch.covered = true;
            } else {
                batch.ahead = (batch.ahead.0 + 1, 0);
            }
        }
    }

    /// They may not. Copies are under way for the first of them, up to sector `until`.
    pub fn waits(&mut self, until: u64) {
        let (number, is_next) = self.asked;
        if let Some(Some(batch)) = self.batches.get_mut(number) {
            if !is_next {
                batch.ahead.1 = until;
                return;
            }
            batch.blocked = true;
            if batch.ahead.0 <= batch.next {
                batch.ahead = (batch.next, until);
            }
        }
    }

    /// They never may.
    pub fn refused(&mut self) {
        self.failed = true;
    }

    /// A copy is over. Returns whether it is time to ask what is next: copies are begun many at a time,
    /// which costs less than one by one.
    pub fn copied(&mut self, id: BatchId, success: bool) -> bool {
        self.under_way = self.under_way.saturating_sub(1);
        self.failed |= !success;
        let of_batch = self.batch(id).map(|batch| {
            batch.under_way = batch.under_way.saturating_sub(1);
            batch.broken |= !success;
            batch.under_way
        });
        of_batch == Some(0) || self.under_way <= self.limits.depth / 2
    }

    /// The origin was flushed, or could not be.
    pub fn flushed(&mut self, success: bool) {
        self.slow = Slow::Idle;
        self.failed |= !success;
        let next = if success {
            Phase::Clearing
        } else {
            Phase::Leaving(0)
        };
        self.change(|batch| {
            let flushed = batch.phase == Phase::Flushing;
            flushed.then(|| batch.phase = next)
        });
    }

    /// The records were cleared; or nobody knows whether they are.
    pub fn cleared(&mut self, success: bool) {
        self.slow = Slow::Idle;
        self.failed |= !success;
        let next = if success {
            Phase::Removing(0)
        } else {
            Phase::Lost
        };
        let records = self.change(|batch| {
            let cleared = batch.phase == Phase::Clearing;
            cleared.then(|| {
                batch.phase = next;
                batch.records
            })
        });
        if success {
            self.counts.batches += 1;
            self.counts.exceptions += records.map_or(0, u64::from);
        }
    }

    /// A run was removed from the table, or was not there: then nobody knows what the table is worth.
    pub fn removed(&mut self, id: BatchId, was_there: bool) {
        self.failed |= !was_there;
        if let Some(batch) = self.batch(id) {
            match &mut batch.phase {
                Phase::Removing(_) if !was_there => batch.phase = Phase::Lost,
                Phase::Removing(at) => *at += 1,
                _ => {}
            }
        }
    }

    /// What was reserved for a run was given up.
    pub fn released(&mut self, id: BatchId) {
        if let Some(batch) = self.batch(id) {
            if let Phase::Leaving(at) = &mut batch.phase {
                *at += 1;
            }
        }
    }
}

impl<T: Types> Batch<T> {
    /// The next sectors that other snapshots are to be asked for before it is their turn.
    fn ask_ahead(&mut self, shift: u32, end: u64, most: usize) -> Option<Step<T>> {
        loop {
            let (at, sector) = self.ahead;
            if at >= self.next + most {
                return None;
            }
            let run = self.runs.get(at)?;
            let start = (run.old << shift).max(sector);
            let until = (run.end() << shift).min(end);
            if start < until {
                return Some(Step::Cover { start, end: until });
            }
            self.ahead = (at + 1, 0);
        }
    }
}

/// Sorts runs of one exception each by their chunks of the origin, and joins those that can be copied
/// as one: at most `most` sectors, within one region of the table.
fn join(runs: &mut Vec<Run>, shift: u32, most: u64) {
    sort(runs);
    let most = (most >> shift).clamp(1, u16::MAX.into());
    let region = |old: u64| old >> Table::region_shift(shift);
    let mut joined = 0;
    for at in 1..runs.len() {
        let Some(next) = runs.get(at).copied() else {
            break;
        };
        let Some(run) = runs.get_mut(joined) else {
            break;
        };
        let follows = run.end() == next.old && run.new + run.chunks() == next.new;
        if follows && run.chunks() < most && region(run.old) == region(next.old) {
            run.chunks += 1;
        } else {
            joined += 1;
            if let Some(place) = runs.get_mut(joined) {
                *place = next;
            }
        }
    }
    runs.truncate(joined + 1);
}

/// Sorts by the chunks of the origin, in place: a heap is made of all, and taken apart from its top.
fn sort(runs: &mut [Run]) {
    for root in (0..runs.len() / 2).rev() {
        sink(runs, root);
    }
    for end in (1..runs.len()).rev() {
        runs.swap(0, end);
        sink(runs.get_mut(..end).unwrap_or_default(), 0);
    }
}

/// Makes a heap of what is at and below `root`, where only that may be in the wrong place.
fn sink(heap: &mut [Run], mut root: usize) {
    let old = |heap: &[Run], at: usize| heap.get(at).map(|run| run.old);
    loop {
        let left = 2 * root + 1;
        // What is not there is less than anything.
        let larger = left + usize::from(old(heap, left) < old(heap, left + 1));
        if old(heap, larger) <= old(heap, root) {
            return;
        }
        heap.swap(root, larger);
        root = larger;
    }
}

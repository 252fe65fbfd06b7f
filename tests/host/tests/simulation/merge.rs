// SPDX-License-Identifier: GPL-2.0-only

//! Merging a snapshot into its origin, as the core says.

use crate::disk::Content;
use crate::io::{Disks, Kind, Then};
use crate::rng::Rng;
use crate::snapshot::{Job, Simulated};
use crate::task::Task;
use crate::world::World;
use host_tests::memory::{Vec as Array, When};
use host_tests::snapshot::core::{
    self, shard_of, BatchId, Cover, Epochs, Limits, MergeCopy, Outcome, Run, Spare, Step, Taken,
};

/// A merge.
pub struct Merge {
    /// The snapshot.
    pub number: usize,
    /// Whether it is stopped, or is to stop.
    pub paused: bool,
    pub core: core::Merge<Simulated>,
    /// Writes that went to the COW device.
    pub writes: Epochs,
    state: State,
    /// What was copied: which sectors of the origin.
    begun: Vec<(BatchId, u64, u64)>,
}

/// What is to be done next.
enum State {
    /// The core is to be told to begin.
    Begin,
    /// The core is to be asked.
    Ask,
    /// Nothing, before something has happened.
    Wait,
    /// Room is to be made for this run.
    Reserve(BatchId, Run),
    /// The core is to be told what became of what it asked for. Meanwhile others may tell it something.
    Answer(Answer),
    /// Other snapshots need these sectors; memory for so many copies is needed first.
    Cover(u64, u64, Spare<Simulated>, usize),
    /// Nothing any more.
    Over(Outcome),
}

/// What became of what the core asked for.
type Answer = Box<dyn FnOnce(&mut core::Merge<Simulated>)>;

impl State {
    fn answer(answer: impl FnOnce(&mut core::Merge<Simulated>) + 'static) -> Self {
        Self::Answer(Box::new(answer))
    }
}

impl std::fmt::Debug for Merge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match &self.state {
            State::Begin => "begins".into(),
            State::Ask => "goes on".into(),
            State::Wait => "waits".into(),
            State::Reserve(_, run) => format!("reserves {run:?}"),
            State::Answer(_) => "answers".into(),
            State::Cover(from, to, ..) => format!("covers {from}..{to}"),
            State::Over(outcome) => format!("is over: {outcome:?}"),
        };
        write!(f, "of {} paused {} {state}", self.number, self.paused)
    }
}

impl Merge {
    /// A merge that is about to begin.
    pub fn new(number: usize, rng: &mut Rng) -> Self {
        let first = rng.between(1, 4) as u32;
        let limits = Limits {
            first,
            records: first.max(rng.between(1, 16) as u32),
            sectors: rng.between(1, 128),
            copy: rng.between(1, 32),
            depth: rng.between(1, 5) as u32,
            ahead: rng.between(1, 4) as usize,
        };
        Self {
            number,
            paused: false,
            core: core::Merge::new(limits),
            writes: Epochs::new(),
            state: State::Begin,
            begun: Vec::new(),
        }
    }

    /// Whether it can make a step.
    pub fn is_ready(&self) -> bool {
        match self.state {
            State::Begin => !self.paused,
            State::Ask | State::Reserve(..) | State::Answer(_) | State::Cover(..) => true,
            State::Wait | State::Over(_) => false,
        }
    }

    /// Whether nobody knows what is merged.
    pub fn is_given_up(&self) -> bool {
        self.core.is_lost()
    }

    /// Whether all is merged.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Over(Outcome::Merged))
    }

    /// It is to stop.
    pub fn pause(&mut self) {
        self.paused = true;
        self.core.stop();
        self.wake();
    }

    /// It may go on, which it does once it has stopped.
    pub fn resume(&mut self) {
        self.paused = false;
        if matches!(self.state, State::Over(Outcome::Failed)) {
            self.state = State::Begin;
        }
    }

    fn wake(&mut self) {
        if matches!(self.state, State::Wait) {
            self.state = State::Ask;
        }
    }
}

impl World {
    /// Something has happened that the merge may wait for.
    pub fn wake_merge(&mut self) {
        if let Some(merge) = &mut self.merge {
            merge.core.look_again();
            merge.wake();
        }
    }

    /// The merge makes a step.
    pub fn merge_on(&mut self) {
        let Some(merge) = &mut self.merge else { return };
        let number = merge.number;
        let state = std::mem::replace(&mut merge.state, State::Ask);
        let next = match state {
            State::Begin => {
                let handle = self.member(number).handle.clone();
                let size = handle.sectors.min(self.layout.end());
                if let Some(merge) = &mut self.merge {
                    merge.core.begin(handle.shift, size);
                    merge.begun.clear();
                }
                State::Ask
            }
            State::Ask => {
                let step = merge.core.next(&merge.writes);
                self.merge_step(number, step)
            }
            State::Reserve(batch, run) => self.reserve_merged(number, batch, run),
            State::Answer(answer) => {
                answer(&mut merge.core);
                State::Ask
            }
            State::Cover(from, to, mut spare, need) if need > 0 => {
                let need = need - usize::from(spare.add(Job).is_ok());
                State::Cover(from, to, spare, need)
            }
            State::Cover(from, to, spare, _) => self.cover_merged(from, to, spare),
            other => other,
        };
        if let Some(merge) = &mut self.merge {
            merge.state = next;
        }
    }

    fn merge_step(&mut self, number: usize, step: Step<Simulated>) -> State {
        let (slot, shift) = (self.member(number).slot, self.member(number).handle.shift);
        match step {
            Step::Take { skip, max, copy } => {
                self.note(|| format!("merge: takes {max} before {skip}"));
                self.counts.merge_ahead += u64::from(skip > 0);
                let kind = Kind::Tail(skip as usize, max, copy);
                self.send(Disks::Cow(number), 0, kind, Then::MergeTaken);
            }
            Step::Reserve(batch, run) => return State::Reserve(batch, run),
            Step::Cover { start, end } => return State::Cover(start, end, Spare::new(), 0),
            Step::Copy(copy) => {
                self.note(|| format!("merge: {copy:?}"));
                let (start, end) = (copy.origin, copy.origin + copy.sectors);
                if let Some(merge) = &mut self.merge {
                    let again = |(id, from, to): &(BatchId, u64, u64)| {
                        *id == copy.batch && *from < end && start < *to
                    };
                    self.counts.copied_again += u64::from(merge.begun.iter().any(again));
                    merge.begun.push((copy.batch, start, end));
                }
                self.tasks.push(Task::MergeCopy(copy));
            }
            Step::Flush => {
                self.note(|| "merge: flushes".into());
                self.send_flush(Disks::Origin, Then::MergeFlushed);
            }
            Step::Clear(count) => {
                self.note(|| format!("merge: clears {count}"));
                let kind = Kind::Clear(count as usize);
                self.send(Disks::Cow(number), 0, kind, Then::MergeCleared);
            }
            Step::Remove(batch, run, reserved) => {
                self.note(|| format!("merge: removes {run:?}"));
                let shard = &mut self.part(run.old << shift).shard;
                let there = shard.merged(slot, &run, reserved);
                assert!(there, "{run:?} was merged and not in the table");
                self.counts.merged_runs += 1;
                return State::answer(move |core| core.removed(batch, there));
            }
            Step::Release(batch, run) => {
                let shard = &mut self.part(run.old << shift).shard;
                shard.release_merged(slot, &run);
                self.counts.merge_releases += 1;
                return State::answer(move |core| core.released(batch));
            }
            Step::Again(bios) => {
                // In one go, as far as the merge is concerned.
                for bio in bios.0 {
                    self.perform(Task::WriteMerging {
                        bio,
                        may_cut: false,
                    });
                }
            }
            Step::Lose(bios) => {
                for bio in bios.0 {
                    self.end_write(bio, false);
                }
            }
            Step::Wait => return State::Wait,
            Step::Over(outcome) => {
                self.note(|| format!("merge: {outcome:?}"));
                self.counts.merge_stops += u64::from(outcome == Outcome::Stopped);
                // An administrator tries it again, or does not.
                let again = match outcome {
                    Outcome::Merged => false,
                    Outcome::Stopped => true,
                    Outcome::Failed => self.rng.chance(700) && !self.merge_core().is_lost(),
                };
                return if again {
                    State::Begin
                } else {
                    State::Over(outcome)
                };
            }
        }
        State::Ask
    }

    /// The core's part of the merge.
    fn merge_core(&mut self) -> &mut core::Merge<Simulated> {
        &mut self.merge.as_mut().expect("a merge is on").core
    }

    fn reserve_merged(&mut self, number: usize, batch: BatchId, run: Run) -> State {
        let (slot, shift) = (self.member(number).slot, self.member(number).handle.shift);
        let shard = &mut self.part(run.old << shift).shard;
        match shard.reserve_merged(slot, &run) {
            // It is tried again.
            Err(_) => State::Reserve(batch, run),
            Ok(reserved) => {
                assert!(reserved.is_some(), "{run:?} is not in the table");
                self.counts.merge_splits += u64::from(reserved == Some(true));
                State::answer(move |core| core.reserved(batch, reserved))
            }
        }
    }

    fn cover_merged(&mut self, from: u64, to: u64, mut spare: Spare<Simulated>) -> State {
        let shard = shard_of(from);
        let result = self.numbered(shard).shard.cover(from, to, &mut spare);
        while let Some(start) = spare.started() {
            self.tasks.push(Task::StartCopy(shard, start));
        }
        match result {
            Cover::Covered => State::answer(|core| core.covered()),
            Cover::Waits(until) => {
                self.counts.merge_covers += 1;
                State::answer(move |core| core.waits(until))
            }
            Cover::NoSpare(need) => State::Cover(from, to, spare, need),
            Cover::NotNow => State::Cover(from, to, Spare::new(), 0),
            Cover::Full(snapshot) if snapshot.refuses() => {
                self.counts.refusals += 1;
                State::answer(|core| core.refused())
            }
            Cover::Full(snapshot) => {
                self.counts.overflows += 1;
                self.invalidate(snapshot.number, None);
                State::Cover(from, to, Spare::new(), 0)
            }
        }
    }

    // --- Requests that are over

    /// The end of the list was read, without the last `skip` records.
    pub fn merge_taken(&mut self, skip: usize, max: u32, copy: u64, failed: bool) {
        let Some(number) = self.merging() else { return };
        let list = &self.member(number).cow.list;
        let left = list.len() - skip;
        let tail: Vec<_> = list[..left]
            .iter()
            .rev()
            .take(max as usize)
            .copied()
            .collect();
        // There may be a reason to read less, but not nothing.
        let less = self.rng.between(1, tail.len().max(1) as u64) as usize;
        let tail = if self.rng.chance(300) {
            &tail[..less.min(tail.len())]
        } else {
            &tail
        };
        let mut runs = Array::new();
        while runs.reserve(tail.len(), When::Sleep).is_err() {}
        for (old, new) in tail {
            assert!(runs.push(Run::new(*old, *new)).is_ok());
        }
        self.counts.merge_failures += u64::from(failed);
        let shift = self.member(number).handle.shift;
        let taken = (!failed).then(|| Taken::new(runs, shift, copy));
        self.merge_core().taken(taken);
        self.wake_merge();
    }

    /// What is to be merged is read from the COW device.
    pub fn merge_copy(&mut self, copy: MergeCopy) {
        let Some(number) = self.merging() else { return };
        let kind = Kind::Read(vec![None; copy.sectors as usize]);
        self.send(
            Disks::Cow(number),
            copy.cow as usize,
            kind,
            Then::MergeRead(copy),
        );
    }

    /// It was read.
    pub fn merge_read(&mut self, copy: MergeCopy, data: Vec<Content>, failed: bool) {
        if failed {
            self.merge_written(copy, true);
            return;
        }
        self.check_overwrite(copy.origin, copy.sectors);
        let first = self.layout.index(copy.origin);
        let data = data.into_iter().map(Some).collect();
        let then = Then::MergeWritten(copy);
        self.send(Disks::Origin, first, Kind::Write(data, false), then);
    }

    /// It was written to the origin.
    pub fn merge_written(&mut self, copy: MergeCopy, failed: bool) {
        self.counts.merge_failures += u64::from(failed);
        if self.merge_core().copied(copy.batch, !failed) {
            self.wake_merge();
        }
    }

    /// The origin was flushed for the merge.
    pub fn merge_flushed(&mut self, failed: bool) {
        self.counts.merge_failures += u64::from(failed);
        self.merge_core().flushed(!failed);
        self.wake_merge();
    }

    /// Records were cleared; if that failed, perhaps some of them.
    pub fn merge_cleared(&mut self, count: usize, failed: bool) {
        let Some(number) = self.merging() else { return };
        let cleared = if failed {
            self.rng.index(count + 1)
        } else {
            count
        };
        self.counts.given_up += u64::from(failed);
        let list = &mut self.member(number).cow.list;
        list.truncate(list.len() - cleared);
        self.merge_core().cleared(!failed);
        self.wake_merge();
    }
}

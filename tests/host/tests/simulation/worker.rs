// SPDX-License-Identifier: GPL-2.0-only

//! What records a snapshot's exceptions: a worker of each snapshot, and a store as simple as can be.

use crate::io::{Disks, Kind, Then};
use crate::snapshot::State;
use crate::world::{Member, World};
use host_tests::snapshot::core::Item;
use std::collections::VecDeque;

/// Exceptions, each with its shard.
type Items = VecDeque<(usize, Item)>;

/// A worker.
#[derive(Debug, Default)]
pub struct Worker {
    /// Whether there may be something in the pipeline.
    kicked: bool,
    step: Step,
}

/// What it does.
#[derive(Debug, Default)]
enum Step {
    /// It waits to be kicked.
    #[default]
    Idle,
    /// The COW device is being flushed for the first; the second cannot be recorded.
    Flushing(Items, Items),
    /// They are being recorded.
    Recording(Items, Items),
    /// They are recorded; each is told. Then come those that could not be recorded.
    Recorded(Items, Items),
    /// The snapshot is to be declared invalid, and is not yet.
    Failing(Items),
    /// It is: each is told.
    Failed(Items),
}

impl Worker {
    /// There is something in the pipeline.
    pub fn kick(&mut self) {
        self.kicked = true;
    }

    /// Whether it has nothing to do.
    pub fn is_idle(&self) -> bool {
        !self.kicked && matches!(self.step, Step::Idle)
    }
}

impl Member {
    /// Whether the worker can make a step.
    pub fn is_ready(&self) -> bool {
        match self.worker.step {
            Step::Idle => self.worker.kicked,
            Step::Flushing(..) | Step::Recording(..) => false,
            Step::Recorded(..) | Step::Failed(_) => true,
            Step::Failing(_) => self.handle.state.get() != State::Invalidating,
        }
    }
}

impl World {
    /// A worker makes a step.
    pub fn work(&mut self, number: usize) {
        let state = self.member(number).handle.state.get();
        let worker = &mut self.member(number).worker;
        let next = match std::mem::take(&mut worker.step) {
            Step::Idle => self.take_batch(number),
            Step::Recorded(mut good, bad) => match good.pop_front() {
                Some(item) => {
                    self.recorded(number, item, true);
                    Step::Recorded(good, bad)
                }
                None if bad.is_empty() => Step::Idle,
                None => Step::Failing(bad),
            },
            Step::Failing(items) => match state {
                State::Invalid => Step::Failed(items),
                _ => {
                    self.invalidate(number, None);
                    Step::Failing(items)
                }
            },
            Step::Failed(mut items) => match items.pop_front() {
                Some(item) => {
                    self.recorded(number, item, false);
                    Step::Failed(items)
                }
                None => Step::Idle,
            },
            busy @ (Step::Flushing(..) | Step::Recording(..)) => busy,
        };
        self.member(number).worker.step = next;
    }

    fn take_batch(&mut self, number: usize) -> Step {
        let most = self.rng.between(1, 6) as usize;
        let handle = self.member(number).handle.clone();
        let mut good = Items::new();
        while good.len() < most {
            let ready = handle
                .pipeline
                .borrow()
                .ready(1, |(_, item)| !item.given_up);
            if ready == 0 && !good.is_empty() {
                // Perhaps one that was given up: it comes alone.
                break;
            }
            let next = handle.pipeline.borrow_mut().take_next();
            match next {
                Some((shard, item)) if item.given_up => {
                    self.counts.given_up_ahead += 1;
                    let chunks = item.new..item.new + item.chunks;
                    let mut handed_out = handle.handed_out.borrow_mut();
                    handed_out.retain(|chunk| !chunks.contains(chunk));
                    drop(handed_out);
                    self.recorded(number, (shard, item), true);
                    return Step::Idle;
                }
                Some(item) => good.push_back(item),
                None => {
                    self.member(number).worker.kicked = false;
                    break;
                }
            }
        }
        if good.is_empty() {
            return Step::Idle;
        }
        // The order is what counts: after one that is missing no other can be recorded.
        let bad = good.iter().position(|(_, item)| !item.copied);
        let mut bad = good.split_off(bad.unwrap_or(good.len()));
        if handle.state.get() == State::Invalid {
            good.append(&mut bad);
            return Step::Failed(good);
        }
        if good.is_empty() {
            return Step::Failing(bad);
        }
        if good.iter().all(|(_, item)| item.stable) {
            self.counts.flushes_saved += 1;
            return self.record(number, good, bad);
        }
        self.send_flush(Disks::Cow(number), Then::Worker(number));
        Step::Flushing(good, bad)
    }

    fn record(&mut self, number: usize, items: Items, bad: Items) -> Step {
        let records = items
            .iter()
            .flat_map(|(_, item)| (0..item.chunks).map(move |n| (item.old + n, item.new + n)));
        let kind = Kind::Record(records.collect());
        self.send(Disks::Cow(number), 0, kind, Then::Worker(number));
        Step::Recording(items, bad)
    }

    /// A request of the worker is over.
    pub fn worker_io(&mut self, number: usize, failed: bool) {
        let worker = &mut self.member(number).worker;
        let next = match std::mem::take(&mut worker.step) {
            Step::Flushing(mut items, mut bad) | Step::Recording(mut items, mut bad) if failed => {
                items.append(&mut bad);
                Step::Failing(items)
            }
            Step::Flushing(items, bad) => self.record(number, items, bad),
            Step::Recording(items, bad) => Step::Recorded(items, bad),
            other => panic!("a request of a worker that is {other:?} is over"),
        };
        self.member(number).worker.step = next;
    }

    /// Records get to stable storage.
    pub fn append_records(&mut self, number: usize, records: &[(u64, u64)]) {
        let member = self.member(number);
        for record in records {
            let list = &mut member.cow.list;
            let handed_out = member.handle.handed_out.borrow();
            let due = handed_out.get(list.len() - member.first_handed_out);
            assert_eq!(
                due,
                Some(&record.1),
                "{record:?} is not the next exception to record"
            );
            let twice = list.iter().any(|other| other.0 == record.0);
            assert!(!twice, "chunk {} is recorded twice", record.0);
            list.push(*record);
        }
    }

    fn recorded(&mut self, number: usize, (shard, item): (usize, Item), success: bool) {
        self.note(|| format!("recorded {item:?}: {success}"));
        self.note_recorded(number);
        let part = self.numbered(shard);
        match part.shard.recorded(item.copy, item.member, success) {
            Some(finished) => self.finished(finished),
            None => self.counts.epoch_waits += 1,
        }
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! Merging a snapshot into its origin, run by run.

use crate::disk::Content;
use crate::io::{Disks, Kind, Then};
use crate::snapshot::{Job, Simulated};
use crate::task::Task;
use crate::world::World;
use host_tests::snapshot::core::{shard_of, Cover, Spare};

/// A merge.
pub struct Merge {
    /// The snapshot.
    pub number: usize,
    /// Whether it is not to go on with another run.
    pub paused: bool,
    step: Step,
}

impl std::fmt::Debug for Merge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "of {} paused {} {}",
            self.number,
            self.paused,
            self.step.name()
        )
    }
}

/// Chunks that are merged at once.
#[derive(Clone, Copy, Debug)]
struct Run {
    old: u64,
    new: u64,
    chunks: u64,
}

enum Step {
    /// The end of the list is to be looked at.
    Pick,
    /// The other snapshots need the chunks.
    Cover(Run, Spare<Simulated>, usize),
    /// Copies are under way for them.
    Waiting(Run),
    /// Nobody else needs what is in the origin: writes are to wait.
    Seal(Run),
    /// Writes that are under way must end: those of an epoch.
    Draining(Run, u64),
    /// The same, and some have ended.
    Drained(Run, u64),
    Reading(Run),
    Writing(Run),
    Flushing(Run),
    Clearing(Run),
    /// Nobody knows whether they are cleared: this has to be loaded anew.
    GivenUp(Run),
    /// The run is merged, or was not.
    Unseal(Run, bool),
    /// All is merged.
    Done,
}

impl Step {
    fn name(&self) -> String {
        let (name, run) = match self {
            Self::Pick => ("pick", None),
            Self::Cover(run, ..) => ("cover", Some(run)),
            Self::Waiting(run) => ("waiting", Some(run)),
            Self::Seal(run) => ("seal", Some(run)),
            Self::Draining(run, _) => ("draining", Some(run)),
            Self::Drained(run, _) => ("drained", Some(run)),
            Self::Reading(run) => ("reading", Some(run)),
            Self::Writing(run) => ("writing", Some(run)),
            Self::Flushing(run) => ("flushing", Some(run)),
            Self::Clearing(run) => ("clearing", Some(run)),
            Self::GivenUp(run) => ("given up", Some(run)),
            Self::Unseal(run, _) => ("unseal", Some(run)),
            Self::Done => ("done", None),
        };
        format!("{name} {run:?}")
    }
}

impl Merge {
    /// Begins or resumes a merge.
    pub fn new(number: usize) -> Self {
        Self {
            number,
            paused: false,
            step: Step::Pick,
        }
    }

    /// Whether it can make a step.
    pub fn is_ready(&self) -> bool {
        match self.step {
            Step::Pick => !self.paused,
            Step::Cover(..) | Step::Seal(_) | Step::Drained(..) | Step::Unseal(..) => true,
            _ => false,
        }
    }

    /// Whether nobody knows what is merged.
    pub fn is_given_up(&self) -> bool {
        matches!(self.step, Step::GivenUp(_))
    }

    /// Whether all is merged.
    pub fn is_done(&self) -> bool {
        matches!(self.step, Step::Done)
    }
}

impl World {
    /// Something has happened that the merge may wait for.
    pub fn wake_merge(&mut self) {
        if let Some(merge) = &mut self.merge {
            merge.step = match std::mem::replace(&mut merge.step, Step::Done) {
                Step::Waiting(run) => Step::Cover(run, Spare::new(), 0),
                Step::Draining(run, epoch) => Step::Drained(run, epoch),
                other => other,
            };
        }
    }

    /// The merge makes a step.
    pub fn merge_on(&mut self) {
        let Some(mut merge) = self.merge.take() else {
            return;
        };
        let number = merge.number;
        let slot = self.member(number).slot;
        let shift = self.member(number).handle.shift;
        let step = std::mem::replace(&mut merge.step, Step::Done);
        self.note(|| format!("merge: {}", step.name()));
        // It is there while others may look.
        self.merge = Some(merge);
        let next = match step {
            Step::Pick => match self.last_run(number) {
                Some(run) => Step::Cover(run, Spare::new(), 0),
                None => Step::Done,
            },
            Step::Cover(run, mut spare, need) if need > 0 => {
                let need = need - usize::from(spare.add(Job).is_ok());
                Step::Cover(run, spare, need)
            }
            Step::Cover(run, mut spare, _) => {
                let (from, to) = (run.old << shift, (run.old + run.chunks) << shift);
                let shard = shard_of(from);
                let result = self.numbered(shard).shard.cover(from, to, &mut spare);
                while let Some(start) = spare.started() {
                    self.tasks.push(Task::StartCopy(shard, start));
                }
                match result {
                    Cover::Covered => Step::Seal(run),
                    Cover::Waits => Step::Waiting(run),
                    Cover::NoSpare(need) => Step::Cover(run, spare, need),
                    Cover::NoMemory => Step::Cover(run, Spare::new(), 0),
                    Cover::Full(snapshot) => {
                        self.counts.overflows += 1;
                        self.invalidate(snapshot.number, None);
                        Step::Waiting(run)
                    }
                }
            }
            Step::Seal(run) => {
                let part = self.part(run.old << shift);
                match part.shard.seal(slot, run.old, run.chunks) {
                    // It is tried again.
                    Err(_) => Step::Seal(run),
                    Ok(()) => Step::Drained(run, part.writes.close()),
                }
            }
            Step::Drained(run, epoch) => {
                if self.part(run.old << shift).writes.is_over(epoch) {
                    let count = (run.chunks << shift) as usize;
                    let first = (run.new << shift) as usize;
                    let kind = Kind::Read(vec![None; count]);
                    self.send(Disks::Cow(number), first, kind, Then::Merge);
                    Step::Reading(run)
                } else {
                    Step::Draining(run, epoch)
                }
            }
            Step::Unseal(run, merged) => {
                let shard = &mut self.part(run.old << shift).shard;
                let (bios, there) = shard.unseal(slot, merged);
                assert!(there, "{run:?} was merged and not in the table");
                for bio in bios.0 {
                    self.tasks.push(match merged {
                        true => Task::write_origin(bio, false),
                        false => Task::WriteMerging {
                            bio,
                            may_cut: false,
                        },
                    });
                }
                self.counts.merged_runs += u64::from(merged);
                Step::Pick
            }
            other => other,
        };
        if let Some(merge) = &mut self.merge {
            merge.step = next;
        }
    }

    /// The run at the end of the list: consecutive on both sides, and within a region of the table.
    fn last_run(&mut self, number: usize) -> Option<Run> {
        let list = &self.member(number).cow.list;
        let (last_old, last_new) = *list.last()?;
        let most = self.rng.between(1, 20);
        let list = &self.member(number).cow.list;
        let matches = |n: &u64| {
            let at = list.len().checked_sub(1 + *n as usize);
            let record = at.and_then(|at| list.get(at));
            record.is_some_and(|(old, new)| old + n == last_old && new + n == last_new)
        };
        let chunks = (0..most).take_while(matches).count() as u64;
        let mut run = Run {
            old: last_old + 1 - chunks,
            new: last_new + 1 - chunks,
            chunks,
        };
        let (slot, shift) = (self.member(number).slot, self.member(number).handle.shift);
        let shard = &self.part(run.old << shift).shard;
        if shard_of(run.old << shift) != shard_of(last_old << shift) {
            return Some(Run {
                old: last_old,
                new: last_new,
                chunks: 1,
            });
        }
        let start = shard.region_start(slot, last_old).max(run.old);
        run.chunks -= start - run.old;
        run.new += start - run.old;
        run.old = start;
        Some(run)
    }

    /// A request of the merge is over.
    pub fn merge_io(&mut self, data: Vec<Content>, failed: bool) {
        let Some(merge) = &mut self.merge else { return };
        let number = merge.number;
        let step = std::mem::replace(&mut merge.step, Step::Done);
        let next = match step {
            Step::Clearing(run) if failed => {
                // Whether they are cleared is not known. Nobody may write to either place until it
                // is.
                self.counts.merge_failures += 1;
                if self.rng.chance(500) {
                    self.clear(number, run.chunks);
                    Step::Clearing(run)
                } else {
                    self.give_up(number, run)
                }
            }
            Step::Reading(run) | Step::Writing(run) | Step::Flushing(run) if failed => {
                self.counts.merge_failures += 1;
                Step::Unseal(run, false)
            }
            Step::Reading(run) => {
                let handle = self.member(number).handle.clone();
                let sector = run.old << handle.shift;
                // What the last chunk has behind the end is not the snapshot's.
                let count = (handle.sectors - sector).min(data.len() as u64);
                self.check_overwrite(sector, count);
                let first = self.layout.index(sector);
                let data = data.into_iter().take(count as usize).map(Some).collect();
                self.send(Disks::Origin, first, Kind::Write(data, false), Then::Merge);
                Step::Writing(run)
            }
            Step::Writing(run) => {
                self.send_flush(Disks::Origin, Then::Merge);
                Step::Flushing(run)
            }
            Step::Flushing(run) => {
                self.clear(number, run.chunks);
                Step::Clearing(run)
            }
            Step::Clearing(run) => Step::Unseal(run, true),
            other => panic!("a request of a merge at {} is over", other.name()),
        };
        if let Some(merge) = &mut self.merge {
            merge.step = next;
        }
    }

    /// The records of a run are cleared, or not, or some are: writes to its chunks fail.
    fn give_up(&mut self, number: usize, run: Run) -> Step {
        self.counts.given_up += 1;
        let cleared = self.rng.below(run.chunks + 1) as usize;
        let member = self.member(number);
        let (slot, shift) = (member.slot, member.handle.shift);
        member.cow.list.truncate(member.cow.list.len() - cleared);
        for bio in self.part(run.old << shift).shard.give_up(slot).0 {
            self.end_write(bio, false);
        }
        Step::GivenUp(run)
    }

    fn clear(&mut self, number: usize, chunks: u64) {
        self.send(
            Disks::Cow(number),
            0,
            Kind::Clear(chunks as usize),
            Then::Merge,
        );
    }
}

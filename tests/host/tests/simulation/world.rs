// SPDX-License-Identifier: GPL-2.0-only

//! The world: an origin, its snapshots, what is under way, and the loop that decides what happens
//! next.

use crate::bio::{Bio, Device};
use crate::counts::Counts;
use crate::disk::{Content, Disk};
use crate::history::Sector;
use crate::io::{Disks, Io};
use crate::layout::Layout;
use crate::manage::Change;
use crate::merge::Merge;
use crate::plan::{Odds, Op, Plan};
use crate::rng::Rng;
use crate::snapshot::{Handle, Simulated, State};
use crate::task::Task;
use crate::trace;
use crate::worker::Worker;
use host_tests::memory::{self, Failing};
use host_tests::snapshot::core::{shard_of, Epochs, Shard, SlotId};

/// A part of the origin, as the core has it, with what the kernel keeps beside it.
pub struct Part {
    pub number: usize,
    pub shard: Shard<Simulated>,
    /// Reads of snapshots that went to the origin.
    pub reads: Epochs,
}

/// A snapshot's COW device, and what its store has written there.
pub struct Cow {
    pub disk: Disk,
    /// The records: chunks of the origin and of the COW device.
    pub list: Vec<(u64, u64)>,
    /// Whether the header says that the snapshot is valid.
    pub valid: bool,
}

/// A snapshot, as an administrator sees it.
pub struct Member {
    pub handle: Handle,
    pub slot: SlotId,
    pub cow: Cow,
    /// Whether its COW device has no volatile cache.
    pub cacheless: bool,
    /// The model of its device; empty while it is being merged, since it is the origin then.
    pub history: Vec<Sector>,
    /// Requests of users under way.
    pub busy: usize,
    pub worker: Worker,
    /// Who waits until it is invalid.
    pub until_invalid: Vec<Task>,
    /// Where `handed_out` begins in the list.
    pub first_handed_out: usize,
}

/// The world.
pub struct World {
    pub rng: Rng,
    pub now: u64,
    pub layout: Layout,
    pub odds: Odds,
    pub origin: Disk,
    /// The model of the origin.
    pub history: Vec<Sector>,
    /// Requests of users to the origin under way.
    pub busy: usize,
    pub parts: Vec<Part>,
    pub members: Vec<Option<Member>>,
    pub next_slot: u32,
    pub tasks: Vec<Task>,
    pub ios: Vec<Io>,
    pub next_io: u64,
    pub next_tag: u32,
    pub change: Option<Change>,
    pub merge: Option<Merge>,
    pub counts: Counts,
}

/// Steps in one episode, at most.
const PATIENCE: u64 = 400_000;

impl World {
    /// A world with an origin only.
    pub fn new(plan: &Plan, seed: u64) -> Self {
        let layout = plan.layout.clone();
        let first = |at: usize| Content {
            tag: 0,
            at: at as u32,
        };
        let mut world = Self {
            rng: Rng::new(seed),
            now: 1,
            origin: Disk::new((0..layout.len()).map(first)),
            history: vec![Sector::new(0); layout.len()],
            layout,
            odds: plan.odds.clone(),
            busy: 0,
            parts: Vec::new(),
            members: Vec::new(),
            next_slot: 0,
            tasks: Vec::new(),
            ios: Vec::new(),
            next_io: 1,
            next_tag: 1,
            change: None,
            merge: None,
            counts: Counts::default(),
        };
        world.make_parts();
        world
    }

    /// Makes the parts of the origin anew.
    pub fn make_parts(&mut self) {
        self.parts.clear();
        for index in 0..self.layout.len() {
            let number = shard_of(self.layout.sector(index));
            if self.parts.iter().all(|part| part.number != number) {
                self.parts.push(Part {
                    number,
                    shard: Shard::new(self.odds.ahead),
                    reads: Epochs::new(),
                });
            }
        }
    }

    /// Notes what happens.
    pub fn note(&self, what: impl FnOnce() -> String) {
        trace::note(|| format!("{:6} {}", self.now, what()));
    }

    /// The part of the origin with `sector`.
    pub fn part(&mut self, sector: u64) -> &mut Part {
        self.numbered(shard_of(sector))
    }

    /// The part with a number.
    pub fn numbered(&mut self, number: usize) -> &mut Part {
        let part = self.parts.iter_mut().find(|part| part.number == number);
        part.expect("all parts that are used exist")
    }

    /// A snapshot that exists.
    pub fn member(&mut self, number: usize) -> &mut Member {
        self.members[number].as_mut().expect("the snapshot exists")
    }

    /// The snapshots that exist.
    pub fn all(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().flatten()
    }

    /// The number of the snapshot that is being merged.
    pub fn merging(&self) -> Option<usize> {
        self.merge.as_ref().map(|merge| merge.number)
    }

    /// Runs the plan to its end, and until nothing is under way any more.
    pub fn run(&mut self, ops: &[Op]) {
        self.rearm_memory();
        let mut ops = ops.iter().copied().peekable();
        loop {
            self.now += 1;
            self.counts.events += 1;
            assert!(
                self.now < PATIENCE,
                "this goes on for ever: {}",
                self.describe()
            );
            let may_issue = ops.peek().is_some_and(|op| self.may_issue(op));
            if may_issue && self.rng.chance(self.odds.hurry) {
                if let Some(op) = ops.next() {
                    self.issue(op);
                }
                continue;
            }
            if self.step() {
                continue;
            }
            if may_issue {
                if let Some(op) = ops.next() {
                    self.issue(op);
                }
            } else if ops.peek().is_none() {
                break;
            } else {
                panic!("nothing goes on, and something waits: {}", self.describe());
            }
        }
        memory::fail(Failing::Never);
        self.check_rest();
    }

    /// Does one of the things that can be done; returns whether there was one.
    fn step(&mut self) -> bool {
        if self.try_change() {
            return true;
        }
        let workers = self.all().filter(|member| member.is_ready());
        let workers: Vec<usize> = workers.map(|member| member.handle.number).collect();
        let merge = usize::from(self.merge.as_ref().is_some_and(Merge::is_ready));
        let tasks = self.tasks.len() + workers.len() + merge;
        if tasks == 0 && self.ios.is_empty() {
            return false;
        }
        let now = self.now;
        let awake = self.ios.iter().filter(|io| io.is_awake(now)).count();
        if self.ios.is_empty() || tasks > 0 && (awake == 0 || self.rng.chance(self.odds.tasks)) {
            let mut which = self.rng.index(tasks);
            if which < self.tasks.len() {
                let task = self.tasks.swap_remove(which);
                self.perform(task);
                return true;
            }
            which -= self.tasks.len();
            match workers.get(which) {
                Some(number) => self.work(*number),
                None => self.merge_on(),
            }
        } else {
            // Where nothing else goes on, time passes until one wakes up.
            let nth = self
                .rng
                .index(if awake > 0 { awake } else { self.ios.len() });
            let which = match awake {
                0 => Some(nth),
                _ => {
                    let mut awake = self
                        .ios
                        .iter()
                        .enumerate()
                        .filter(|(_, io)| io.is_awake(now));
                    awake.nth(nth).map(|(which, _)| which)
                }
            };
            self.advance_io(which.expect("there are as many"));
        }
        true
    }

    /// For messages: what is under way.
    pub fn describe(&self) -> String {
        let busy: Vec<_> = self
            .all()
            .map(|member| {
                let (handle, worker) = (&member.handle, &member.worker);
                let out = handle.pipeline.borrow().outstanding();
                let state = handle.state.get();
                format!(
                    "snapshot {}: {state:?}, {} requests, {out} tickets, worker {worker:?}",
                    handle.number, member.busy
                )
            })
            .collect();
        format!(
            "{} requests to the origin, {} tasks, {} I/Os, change {:?}, merge {:?}; {}",
            self.busy,
            self.tasks.len(),
            self.ios.len(),
            self.change,
            self.merge,
            busy.join("; ")
        )
    }

    /// Requests of users that are under way.
    pub fn busy_mut(&mut self, device: Device) -> &mut usize {
        match device {
            Device::Origin => &mut self.busy,
            Device::Snapshot(number) => &mut self.member(number).busy,
        }
    }

    /// The model of a device.
    pub fn history_mut(&mut self, device: Device) -> &mut [Sector] {
        match device {
            Device::Origin => &mut self.history,
            Device::Snapshot(number) => &mut self.member(number).history,
        }
    }

    /// A user's request begins.
    pub fn begin(&mut self, bio: &Bio) {
        *self.busy_mut(bio.device) += 1;
        if bio.tag == 0 {
            return;
        }
        let (now, first) = (self.now, self.layout.index(bio.sector));
        for sector in &mut self.history_mut(bio.device)[first..first + bio.sectors as usize] {
            sector.issue(bio.tag, now);
        }
    }

    /// The rest of a user's request, which was cut.
    pub fn begin_rest(&mut self, rest: Option<Bio>) {
        if let Some(mut rest) = rest {
            self.counts.cuts += 1;
            rest.issued = self.now;
            *self.busy_mut(rest.device) += 1;
            self.tasks.push(Task::map(rest));
        }
    }

    /// A user's write is over.
    pub fn end_write(&mut self, bio: Bio, success: bool) {
        self.note(|| format!("write {} over: {success} {bio:?}", bio.tag));
        *self.busy_mut(bio.device) -= 1;
        if success {
            self.counts.writes += 1;
            let (now, first) = (self.now, self.layout.index(bio.sector));
            for sector in &mut self.history_mut(bio.device)[first..first + bio.sectors as usize] {
                sector.complete(bio.tag, bio.fua, now);
            }
        }
        bio.finish();
    }

    /// A user's read is over.
    pub fn end_read(&mut self, bio: Bio, data: Option<&[Content]>) {
        self.note(|| format!("read over: {bio:?} {data:?}"));
        *self.busy_mut(bio.device) -= 1;
        let first = self.layout.index(bio.sector);
        for (n, content) in data.unwrap_or_default().iter().enumerate() {
            let at = first + n;
            let sector = &self.history_mut(bio.device)[at];
            let right = content.at as usize == at && sector.may_read(content.tag, bio.issued);
            assert!(
                right,
                "{bio:?} got {content:?} for sector {} (index {at}), which had {}",
                bio.sector + n as u64,
                sector.describe()
            );
        }
        self.counts.reads += u64::from(data.is_some());
        bio.finish();
    }

    /// The disk that is meant.
    pub fn disk(&mut self, which: Disks) -> &mut Disk {
        match which {
            Disks::Origin => &mut self.origin,
            Disks::Cow(number) => &mut self.member(number).cow.disk,
        }
    }

    /// Declares a snapshot invalid. What is to be done when it is: `then`.
    pub fn invalidate(&mut self, number: usize, then: Option<Task>) {
        let state = self.member(number).handle.state.get();
        if state == State::Invalid {
            self.tasks.extend(then);
            return;
        }
        self.member(number).until_invalid.extend(then);
        if state == State::Valid {
            self.counts.invalidated += 1;
            self.note(|| format!("snapshot {number} gets invalid"));
            self.member(number).handle.state.set(State::Invalidating);
            self.write_header(number);
        }
    }
}

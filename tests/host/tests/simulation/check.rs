// SPDX-License-Identifier: GPL-2.0-only

//! What must hold.

use crate::bio::Device;
use crate::history::Sector;
use crate::io::Then;
use crate::merge::Merge;
use crate::task::Task;
use crate::world::{Member, World};
use host_tests::memory::{self, Failing};

impl World {
    /// Sectors of the origin are about to be overwritten: no snapshot may need what is there.
    pub fn check_overwrite(&self, sector: u64, sectors: u64) {
        for member in self.all() {
            let handle = &member.handle;
            if !member.cow.valid || !handle.active.get() || handle.merging.get() {
                continue;
            }
            let end = (sector + sectors).min(handle.sectors);
            for sector in sector..end {
                let old = sector >> handle.shift;
                let recorded = member.cow.list.iter().any(|record| record.0 == old);
                assert!(
                    recorded,
                    "sector {sector} is overwritten, and snapshot {} needs it",
                    handle.number
                );
            }
            self.check_readers(handle.number, sector, end);
        }
    }

    /// No read of this snapshot may be on its way to these sectors of the origin.
    fn check_readers(&self, number: usize, sector: u64, end: u64) {
        let decided = self.tasks.iter().filter_map(|task| match task {
            Task::SubmitRead {
                bio,
                epoch: Some(_),
                ..
            } => Some(bio),
            _ => None,
        });
        let sent = self.ios.iter().filter_map(|io| match &io.then {
            Then::Read(bio, Some(_)) => Some(bio),
            _ => None,
        });
        for bio in decided.chain(sent) {
            let meets = bio.sector < end && sector < bio.end();
            assert!(
                bio.device != Device::Snapshot(number) || !meets,
                "sectors {sector}..{end} are overwritten, which snapshot {number} reads: {bio:?}"
            );
        }
    }

    /// Nothing is under way any more: nobody may wait, and all must be right.
    pub fn check_rest(&mut self) {
        assert_eq!(
            self.busy,
            0,
            "requests to the origin wait for ever: {}",
            self.describe()
        );
        for member in self.all() {
            let out = member.handle.pipeline.borrow().outstanding();
            assert!(
                member.busy == 0 && out == 0 && member.until_invalid.is_empty(),
                "something waits for ever: {}",
                self.describe()
            );
            for part in &self.parts {
                assert!(
                    part.shard.is_idle(member.slot),
                    "a copy is under way for ever"
                );
            }
        }
        for part in &mut self.parts {
            let epoch = part.reads.close();
            assert!(part.reads.is_over(epoch), "an epoch does not end");
            assert!(
                part.shard.reads_ended(&part.reads).is_none(),
                "a copy was forgotten"
            );
        }
        if let Some(merge) = &self.merge {
            let epoch = merge.writes.close();
            assert!(merge.writes.is_over(epoch), "an epoch does not end");
        }
        let given_up = self.merge.as_ref().is_some_and(Merge::is_given_up);
        let known = |member: &&Member| member.handle.is_valid() && !given_up;
        for member in self.all().filter(known) {
            let in_tables: u64 = self
                .parts
                .iter()
                .map(|part| part.shard.usage(member.slot).0)
                .sum();
            assert_eq!(
                in_tables,
                member.cow.list.len() as u64,
                "exceptions are missing"
            );
        }
        self.check_disks(false);
        self.crash();
        memory::fail(Failing::Never);
    }

    /// Reads all devices as they are on the disks, after a crash or in peace. What is there is
    /// what the model knows from now on.
    pub fn check_disks(&mut self, crashed: bool) {
        let now = self.now;
        let may_be = |sector: &Sector, tag| match crashed {
            true => sector.may_survive(tag),
            false => sector.may_read(tag, now),
        };
        let find = |member: &Member, at| self.settled(member, at);
        let mut seen = Vec::new();
        let merging = self.merging();
        for member in self.all().filter(|member| member.handle.is_valid()) {
            let number = member.handle.number;
            let device = if Some(number) == merging {
                Device::Origin
            } else {
                Device::Snapshot(number)
            };
            for at in 0..self.layout.len() {
                if self.layout.sector(at) < member.handle.sectors {
                    seen.push((device, at, find(member, at)));
                }
            }
        }
        let merged = seen
            .iter()
            .filter(|(device, ..)| *device == Device::Origin)
            .count();
        for at in merged..self.layout.len() {
            seen.push((Device::Origin, at, self.origin.read(at)));
        }
        for (device, at, content) in seen {
            let sector_number = self.layout.sector(at);
            let sector = &mut self.history_mut(device)[at];
            assert!(
                content.at as usize == at && may_be(sector, content.tag),
                "sector {sector_number} (index {at}) of {device:?} is {content:?}, crashed: \
                 {crashed}; it had {}",
                sector.describe()
            );
            if crashed {
                *sector = Sector::new(content.tag);
            }
        }
    }

    /// Memory is short again, as the odds have it.
    pub fn rearm_memory(&mut self) {
        memory::fail(match self.odds.no_memory {
            0 => Failing::Never,
            one_in => Failing::Randomly {
                seed: self.rng.next(),
                one_in,
            },
        });
    }
}

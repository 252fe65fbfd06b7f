// SPDX-License-Identifier: GPL-2.0-only

//! A table and the map that it must be like.

use host_tests::memory::{self, Failing, When};
use host_tests::snapshot::core::table::{Found, InsertError, Table, MAX_NEW};
use std::collections::BTreeMap;

/// What is done to the table.
#[derive(Clone, Debug)]
pub enum Op {
    /// Reserves in the region of `old`; the allocation after `fail` others fails, if there is one.
    Reserve { old: u64, count: u8, fail: u64 },
    /// Inserts with one of the reservations, at `old` or as near to it as its region is.
    Insert {
        which: usize,
        old: u64,
        chunks: u64,
        shift: u64,
    },
    /// Inserts where nothing may be reserved.
    InsertUnreserved { old: u64, chunks: u64, shift: u64 },
    /// Gives up one of the reservations.
    Release { which: usize },
    /// Removes chunks, with a reservation if they split a run.
    Remove { old: u64, chunks: u64 },
    /// Removes each run in an extent as far as it is in there.
    RemoveAll { old: u64, chunks: u64 },
    /// Looks a chunk up.
    Find { old: u64 },
}

pub struct World {
    table: Table,
    map: BTreeMap<u64, u64>,
    /// The regions' numbers.
    reserved: Vec<u64>,
    region_shift: u32,
    taken_before: usize,
    steps: u64,
}

impl World {
    pub fn new(region_shift: u32) -> Self {
        memory::fail(Failing::Never);
        Self {
            table: Table::new(region_shift),
            map: BTreeMap::new(),
            reserved: Vec::new(),
            region_shift,
            taken_before: memory::taken(),
            steps: 0,
        }
    }

    /// Does `op`, and compares.
    pub fn step(&mut self, op: Op) {
        self.quick(op);
        self.steps += 1;
        if self.steps % 32 == 0 {
            self.check_all();
        }
    }

    /// Does `op`, and compares what it touches only.
    pub fn quick(&mut self, op: Op) {
        match op {
            Op::Reserve { old, count, fail } => self.reserve(old, count, fail),
            Op::Insert {
                which,
                old,
                chunks,
                shift,
            } => {
                let Some(which) = which.checked_rem(self.reserved.len()) else {
                    return;
                };
                let number = self.reserved[which];
                let offset = old % (1 << self.region_shift);
                let old = (number << self.region_shift) + offset;
                let chunks = chunks.min((1 << self.region_shift) - offset);
                if self.insert(old, chunks, shift) {
                    self.reserved.swap_remove(which);
                }
            }
            Op::InsertUnreserved { old, chunks, shift } => {
                let number = old >> self.region_shift;
                if !self.reserved.contains(&number) {
                    let new = self.new_chunk(old, shift);
                    let chunks = chunks.min(self.left(old));
                    let inserted = self.without_memory(|table| table.insert(old, new, chunks));
                    assert_eq!(inserted, Err(InsertError::NotReserved));
                    self.check_at(old);
                }
            }
            Op::Release { which } => {
                if let Some(which) = which.checked_rem(self.reserved.len()) {
                    let number = self.reserved.swap_remove(which);
                    let old = number << self.region_shift;
                    self.without_memory(|table| table.release(old));
                }
            }
            Op::Remove { old, chunks } => self.remove(old, chunks),
            Op::RemoveAll { old, chunks } => {
                let end = old.saturating_add(chunks);
                let mut at = old;
                while at < end {
                    let (found, step) = match self.table.find(at) {
                        Found::Run { chunks, .. } => (true, chunks),
                        Found::Gap { chunks } => (false, chunks),
                    };
                    let step = step.min(end - at);
                    if found {
                        self.remove(at, step);
                        assert!(!self.map.contains_key(&at));
                    }
                    at = at.saturating_add(step);
                }
            }
            Op::Find { old } => self.check_at(old),
        }
    }

    /// Compares everything.
    pub fn check_all(&self) {
        let mut runs: Vec<(u64, u64, u64)> = Vec::new();
        for (old, new) in &self.map {
            match runs.last_mut() {
                Some((first, first_new, chunks))
                    if first.checked_add(*chunks) == Some(*old)
                        && *first_new + *chunks == *new
                        && *first >> self.region_shift == old >> self.region_shift =>
                {
                    *chunks += 1
                }
                _ => runs.push((*old, *new, 1)),
            }
        }
        assert!(self.table.iter().eq(runs));
        assert_eq!(self.table.chunks(), self.map.len() as u64);
        assert_eq!(self.table.is_empty(), self.map.is_empty());
        self.check_memory();
    }

    /// Gives all reservations back, removes everything, and looks what is left.
    pub fn finish(mut self) {
        self.check_all();
        for number in std::mem::take(&mut self.reserved) {
            let old = number << self.region_shift;
            self.without_memory(|table| table.release(old));
        }
        self.check_all();
        while let Some((old, _, chunks)) = self.table.next_run(0) {
            assert!(self.without_memory(|table| table.remove(old, chunks)));
            for old in (0..chunks).map(|i| old + i) {
                self.map.remove(&old);
            }
        }
        self.check_all();
        assert_eq!(self.table.bytes(), 0, "something was left");
        drop(self.table);
        assert_eq!(memory::taken(), self.taken_before);
    }

    fn reserve(&mut self, old: u64, count: u8, fail: u64) {
        for _ in 0..count {
            let tried = memory::tried();
            memory::fail(Failing::After(fail));
            let reserved = self.table.reserve(old, When::Atomic);
            memory::fail(Failing::Never);
            assert_eq!(reserved.is_err(), memory::tried() - tried > fail);
            match reserved {
                Ok(()) => self.reserved.push(old >> self.region_shift),
                // Not so much as an empty region stays.
                Err(_) => self.check_memory(),
            }
            self.check_at(old);
        }
    }

    /// Inserts with a reservation. Returns whether it was used.
    fn insert(&mut self, old: u64, chunks: u64, shift: u64) -> bool {
        let new = self.new_chunk(old, shift);
        let there = (0..chunks).any(|i| self.map.contains_key(&(old + i)));
        let inserted = self.without_memory(|table| table.insert(old, new, chunks));
        if there {
            assert_eq!(inserted, Err(InsertError::AlreadyThere));
        } else {
            assert_eq!(inserted, Ok(()));
            self.map.extend((0..chunks).map(|i| (old + i, new + i)));
        }
        self.check_around(old, chunks);
        !there
    }

    fn remove(&mut self, old: u64, chunks: u64) {
        let chunks = chunks.min(self.left(old));
        let all = (0..chunks).all(|i| self.map.contains_key(&(old + i)));
        let splits = all
            && (0..chunks).all(|i| self.joined_before(old + i))
            && chunks < self.left(old)
            && self.joined_before(old + chunks);
        if all {
            assert_eq!(self.table.splits(old, chunks), splits);
        }
        let number = old >> self.region_shift;
        if splits && !self.reserved.contains(&number) {
            assert!(!self.without_memory(|table| table.remove(old, chunks)));
            self.check_around(old, chunks);
            self.table
                .reserve(old, When::Atomic)
                .expect("no allocation fails");
            self.reserved.push(number);
        }
        let removed = self.without_memory(|table| table.remove(old, chunks));
        assert_eq!(removed, all);
        if splits {
            let which = self.reserved.iter().position(|other| *other == number);
            self.reserved.swap_remove(which.expect("it was reserved"));
        }
        if all {
            for i in 0..chunks {
                self.map.remove(&(old + i));
            }
        }
        self.check_around(old, chunks);
    }

    /// Whether the chunk continues the run of the one before it.
    fn joined_before(&self, old: u64) -> bool {
        old % (1 << self.region_shift) != 0
            && match (self.map.get(&old), self.map.get(&(old - 1))) {
                (Some(new), Some(before)) => *new == before + 1,
                _ => false,
            }
    }

    /// Calls `change` while every allocation fails.
    fn without_memory<R>(&mut self, change: impl FnOnce(&mut Table) -> R) -> R {
        memory::fail(Failing::Always);
        let result = change(&mut self.table);
        memory::fail(Failing::Never);
        result
    }

    /// Neighbours with the same `shift` are consecutive on the COW.
    fn new_chunk(&self, old: u64, shift: u64) -> u64 {
        (old % (MAX_NEW >> 3)) + shift * (MAX_NEW >> 2)
    }

    /// How many chunks there are from `old` to its region's end.
    fn left(&self, old: u64) -> u64 {
        (1 << self.region_shift) - old % (1 << self.region_shift)
    }

    fn check_around(&self, old: u64, chunks: u64) {
        let last = old + (chunks - 1);
        for old in [old.saturating_sub(1), old, last, last.saturating_add(1)] {
            self.check_at(old);
        }
    }

    fn check_at(&self, old: u64) {
        let left = self.left(old);
        let expected = match self.map.get(&old) {
            Some(new) => Found::Run {
                new: *new,
                chunks: (1..left)
                    .find(|i| self.map.get(&(old + i)) != Some(&(new + i)))
                    .unwrap_or(left),
            },
            None => Found::Gap {
                chunks: self
                    .map
                    .range(old..)
                    .next()
                    .map_or(left, |(next, _)| left.min(next - old)),
            },
        };
        assert_eq!(self.table.find(old), expected, "at {old}");
    }

    fn check_memory(&self) {
        assert_eq!(self.table.bytes(), memory::taken() - self.taken_before);
    }
}

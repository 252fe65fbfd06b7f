// SPDX-License-Identifier: GPL-2.0-only

//! The exceptions of a region.

use super::{
    block::{
        Block,
        RUNS, //
    },
    run::Run,
    scratch::{
        Scratch,
        Twice, //
    },
    size::{
        kmalloc,
        of_array, //
    },
    spares::Spares,
    Found,
    InsertError, //
};
use crate::format::NoMemory;
use crate::memory::{
    Box,
    Vec,
    When, //
};

/// Where a run is: which block of the region, and where in it.
#[derive(Clone, Copy)]
struct Place {
    block: usize,
    run: usize,
}

/// The runs of a region in the order of their offsets, in blocks. No run [`joins`](Run::joins) the
/// next one.
///
/// While a list is being loaded they are in the order of the list, until [`sort`](Self::sort).
pub(super) struct Region {
    // With room for one more block for each reservation.
    blocks: Vec<Block>,
    chunks: u32,
    reserved: u32,
}

impl Region {
    pub(super) const fn new() -> Self {
        Self {
            blocks: Vec::new(),
            chunks: 0,
            reserved: 0,
        }
    }

    /// How many exceptions there are.
    pub(super) fn chunks(&self) -> u64 {
        self.chunks.into()
    }

    /// Whether it has no exceptions and none are to come.
    pub(super) fn is_unused(&self) -> bool {
        self.chunks == 0 && self.reserved == 0
    }

    /// The memory of its blocks and their directory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        of_array(&self.blocks) + self.blocks.len() * kmalloc(size_of::<[Run; RUNS]>())
    }

    /// The run or the gap from `offset` on; a gap ends at `end`, the size of the region, at most.
    pub(super) fn find(&self, offset: u64, end: u64) -> Found {
        let before = self.before(offset);
        if let Some(run) = before.and_then(|place| self.at(place)) {
            if run.end() > offset {
                let run = run.from(offset);
                return Found::Run {
                    new: run.chunk(),
                    chunks: run.chunks(),
                };
            }
        }
        let end = self.after(before).map_or(end, |(_, next)| next.offset());
        Found::Gap {
            chunks: end.saturating_sub(offset),
        }
    }

    /// What there is of the first run that ends after `offset`, from `offset` on.
    pub(super) fn next_run(&self, offset: u64) -> Option<Run> {
        let before = self.before(offset);
        match before.and_then(|place| self.at(place)) {
            Some(run) if run.end() > offset => Some(run.from(offset)),
            _ => self.after(before).map(|(_, run)| run),
        }
    }

    /// Makes room in the directory for an insertion, whose block is reserved elsewhere.
    pub(super) fn reserve(&mut self, when: When) -> Result<(), NoMemory> {
        self.blocks.reserve(self.reserved as usize + 1, when)?;
        self.reserved += 1;
        Ok(())
    }

    /// Ends a reservation. Returns false if there is none.
    pub(super) fn release(&mut self) -> bool {
        if self.reserved == 0 {
            return false;
        }
        self.reserved -= 1;
        self.tidy();
        true
    }

    /// Inserts `run`, with a reservation, which it ends if it succeeds. Else nothing changes.
    pub(super) fn insert(&mut self, run: Run, spares: &mut Spares) -> Result<(), InsertError> {
        if self.reserved == 0 {
            return Err(InsertError::NotReserved);
        }
        let before = self.before(run.offset());
        let left = before.and_then(|place| Some((place, self.at(place)?)));
        let right = self.after(before);
        if left.is_some_and(|(_, left)| left.end() > run.offset())
            || right.is_some_and(|(_, right)| run.end() > right.offset())
        {
            return Err(InsertError::AlreadyThere);
        }
        let left = left.filter(|(_, left)| left.joins(run));
        let right = right.filter(|(_, right)| run.joins(*right));
        match (left, right) {
            (Some((place, left)), Some((other, right))) => {
                self.set(place, left.and(run).and(right));
                self.remove_at(other, spares);
            }
            (Some((place, left)), None) => self.set(place, left.and(run)),
            (None, Some((place, right))) => self.set(place, run.and(right)),
            (None, None) => self.insert_after(before, run, spares)?,
        }
        self.chunks += run.chunks() as u32;
        self.release();
        spares.release();
        Ok(())
    }

    /// Whether the removal of the chunks from `offset` to before `end` makes two runs of one.
    pub(super) fn splits(&self, offset: u64, end: u64) -> bool {
        self.before(offset)
            .and_then(|place| self.at(place))
            .is_some_and(|run| run.offset() < offset && run.end() > end)
    }

    /// Removes the chunks from `offset` to before `end`, if all are there and, where a run is
    /// split, something is reserved, which ends. Returns whether it did.
    pub(super) fn remove(&mut self, offset: u64, end: u64, spares: &mut Spares) -> bool {
        if !self.has_all(offset, end) {
            return false;
        }
        if self.splits(offset, end) {
            if self.reserved == 0 || !self.split(offset, end, spares) {
                return false;
            }
            self.release();
            spares.release();
        } else {
            let mut at = offset;
            while at < end {
                let Some((place, run)) = self.before(at).and_then(|p| Some((p, self.at(p)?)))
                else {
                    break;
                };
                if run.offset() < at {
                    self.set(place, run.before(at));
                } else if run.end() > end {
                    self.set(place, run.from(end));
                } else {
                    self.remove_at(place, spares);
                }
                at = run.end();
            }
        }
        self.chunks -= end.saturating_sub(offset) as u32;
        self.tidy();
        true
    }

    /// Adds `run` after the last one, in no order; [`sort`](Self::sort) comes after it.
    pub(super) fn append(&mut self, run: Run) -> Result<(), NoMemory> {
        self.chunks += run.chunks() as u32;
        if let Some(block) = self.blocks.last_mut() {
            let runs = block.runs();
            if let Some(last) = runs.last().filter(|last| last.joins(run)) {
                let (index, longer) = (runs.len() - 1, last.and(run));
                block.set(index, longer);
                return Ok(());
            }
            if block.push(run) {
                return Ok(());
            }
        }
        self.blocks.reserve(1, When::Sleep)?;
        let memory = Box::new([Run::NONE; RUNS], When::Sleep)?;
        self.blocks
            .push(Block::new(memory, run))
            .map_err(|_| NoMemory)
    }

    /// Puts the runs that were appended in order. Fails with a chunk that was there twice.
    pub(super) fn sort(&mut self, scratch: &mut Scratch) -> Result<(), Twice> {
        scratch.clear();
        for block in self.blocks.iter() {
            for run in block.runs() {
                scratch.put(*run)?;
            }
        }
        // Runs were joined only: there are no more of them than before, and their blocks suffice.
        let mut used = 0;
        let mut blocks = self.blocks.iter_mut();
        let mut block = blocks.next();
        if let Some(block) = &mut block {
            block.clear();
            used = 1;
        }
        scratch.for_each(|run| {
            if block.as_mut().is_some_and(|block| block.push(run)) {
                return;
            }
            block = blocks.next();
            if let Some(block) = &mut block {
                block.clear();
                block.push(run);
                used += 1;
            }
        });
        self.blocks.truncate(used);
        if self.blocks.capacity() >= 2 * used {
            self.blocks.shrink(When::Sleep);
        }
        Ok(())
    }

    /// The last run that starts at `offset` or before it.
    fn before(&self, offset: u64) -> Option<Place> {
        let block = self
            .blocks
            .partition_point(|block| block.first() <= offset)
            .checked_sub(1)?;
        let run = self
            .blocks
            .get(block)?
            .runs()
            .partition_point(|run| run.offset() <= offset)
            .checked_sub(1)?;
        Some(Place { block, run })
    }

    fn at(&self, place: Place) -> Option<Run> {
        self.blocks.get(place.block)?.runs().get(place.run).copied()
    }

    /// The run after `place`, the first one if that is none.
    fn after(&self, place: Option<Place>) -> Option<(Place, Run)> {
        let next = place.map_or(Place { block: 0, run: 0 }, |place| Place {
            run: place.run + 1,
            ..place
        });
        if let Some(run) = self.at(next) {
            return Some((next, run));
        }
        let next = Place {
            block: next.block + 1,
            run: 0,
        };
        Some((next, self.at(next)?))
    }

    fn set(&mut self, place: Place, run: Run) {
        if let Some(block) = self.blocks.get_mut(place.block) {
            block.set(place.run, run);
        }
    }

    /// Removes a run, and the block if it was its last. Blocks that have become small are joined.
    fn remove_at(&mut self, place: Place, spares: &mut Spares) {
        let Some(block) = self.blocks.get_mut(place.block) else {
            return;
        };
        block.remove(place.run);
        if block.runs().is_empty() {
            self.drop_block(place.block, spares);
        } else if !self.absorb_next(place.block, spares) && place.block > 0 {
            self.absorb_next(place.block - 1, spares);
        }
    }

    /// Joins a block with the next one if both together are small. Returns whether it did.
    fn absorb_next(&mut self, index: usize, spares: &mut Spares) -> bool {
        let Some([block, next, ..]) = self.blocks.get_mut(index..) else {
            return false;
        };
        let absorbed = block.absorb(next);
        if absorbed {
            self.drop_block(index + 1, spares);
        }
        absorbed
    }

    fn drop_block(&mut self, index: usize, spares: &mut Spares) {
        if let Some(block) = self.blocks.remove(index) {
            spares.give(block.into_memory());
        }
    }

    /// Inserts a run after the one at `before`, as the first if that is none. Takes one block from
    /// `spares` at most. If there is none, or no room in the directory, nothing changes.
    fn insert_after(
        &mut self,
        before: Option<Place>,
        run: Run,
        spares: &mut Spares,
    ) -> Result<(), InsertError> {
        let at = before.map_or(Place { block: 0, run: 0 }, |place| Place {
            run: place.run + 1,
            ..place
        });
        let end = self.blocks.len();
        if let Some(block) = self.blocks.get_mut(at.block) {
            if block.insert(at.run, run) {
                return Ok(());
            }
        }
        let next = at.block + 1;
        if at.run == RUNS && next < end {
            if let Some(block) = self.blocks.get_mut(next) {
                if block.insert(0, run) {
                    return Ok(());
                }
            }
        }
        if end == self.blocks.capacity() {
            return Err(InsertError::NotReserved);
        }
        let memory = spares.take().ok_or(InsertError::NotReserved)?;
        // There is room in the directory for either.
        let _ = match self.blocks.get_mut(at.block) {
            // What comes in ascending order fills block after block.
            Some(_) if at.run == RUNS && next == end => {
                self.blocks.insert(next, Block::new(memory, run))
            }
            Some(block) => {
                let mut upper = block.split(memory);
                match at.run.checked_sub(block.runs().len()) {
                    Some(index) if index > 0 => upper.insert(index, run),
                    _ => block.insert(at.run, run),
                };
                self.blocks.insert(next, upper)
            }
            None => self.blocks.insert(end, Block::new(memory, run)),
        };
        Ok(())
    }

    /// Makes two runs of one, without the chunks from `offset` to before `end`. Returns whether it
    /// did.
    fn split(&mut self, offset: u64, end: u64, spares: &mut Spares) -> bool {
        let Some((place, run)) = self.before(offset).and_then(|p| Some((p, self.at(p)?))) else {
            return false;
        };
        let inserted = self.insert_after(Some(place), run.from(end), spares);
        // The run is the same, wherever the block's split has put it.
        if let (Ok(()), Some(place)) = (inserted, self.before(run.offset())) {
            self.set(place, run.before(offset));
        }
        inserted.is_ok()
    }

    /// Whether all chunks from `offset` to before `end` are there.
    fn has_all(&self, offset: u64, end: u64) -> bool {
        let mut place = self.before(offset);
        let mut run = place.and_then(|place| self.at(place));
        let mut at = offset;
        loop {
            match run {
                Some(run) if run.offset() <= at && run.end() > at => at = run.end(),
                _ => return false,
            }
            if at >= end {
                return true;
            }
            let next = self.after(place);
            place = next.map(|(place, _)| place);
            run = next.map(|(_, run)| run);
        }
    }

    /// Frees what many reservations at once have left of the directory.
    fn tidy(&mut self) {
        if self.reserved == 0 && self.blocks.capacity() > 2 * self.blocks.len() + 8 {
            self.blocks.shrink(When::Atomic);
        }
    }
}

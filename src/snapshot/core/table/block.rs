// SPDX-License-Identifier: GPL-2.0-only

//! A block of runs, as large as an allocation can be without waste.

use super::run::Run;
use crate::memory::Box;

/// How many runs a block can have: 256 bytes of them, which is what `kmalloc` takes for them.
pub(super) const RUNS: usize = 32;

/// The memory of a block.
pub(super) type Memory = Box<[Run; RUNS]>;

/// Up to [`RUNS`] runs, never none but while the region is being sorted.
///
/// This is the entry in the region's directory: the runs themselves are in memory of their own.
pub(super) struct Block {
    memory: Memory,
    // The offset of the first run: so that a search for a block needs the directory only.
    first: u16,
    len: u8,
}

impl Block {
    /// A block of `run` alone, in `memory`.
    pub(super) fn new(memory: Memory, run: Run) -> Self {
        let mut block = Self {
            memory,
            first: 0,
            len: 0,
        };
        block.insert(0, run);
        block
    }

    /// The offset of the first run.
    pub(super) fn first(&self) -> u64 {
        self.first.into()
    }

    /// The runs.
    pub(super) fn runs(&self) -> &[Run] {
        self.memory.get(..self.len.into()).unwrap_or_default()
    }

    /// Puts `run` in the place of the one at `index`.
    pub(super) fn set(&mut self, index: usize, run: Run) {
        if let Some(place) = self.memory.get_mut(index) {
            *place = run;
        }
        self.note_first();
    }

    /// Inserts `run` before the one at `index`. Returns false if the block is full.
    pub(super) fn insert(&mut self, index: usize, run: Run) -> bool {
        let end = usize::from(self.len) + 1;
        let Some(tail) = self.memory.get_mut(index..end) else {
            return false;
        };
        tail.rotate_right(1);
        self.len += 1;
        self.set(index, run);
        true
    }

    /// Adds `run` at the end. Returns false if the block is full.
    pub(super) fn push(&mut self, run: Run) -> bool {
        self.insert(self.len.into(), run)
    }

    /// Removes the run at `index`.
    pub(super) fn remove(&mut self, index: usize) {
        let end = self.len.into();
        if let Some(tail) = self.memory.get_mut(index..end) {
            if !tail.is_empty() {
                tail.rotate_left(1);
                self.len -= 1;
            }
        }
        self.note_first();
    }

    /// Removes all runs.
    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    /// Moves the upper half to a new block, in `memory`.
    pub(super) fn split(&mut self, memory: Memory) -> Self {
        let half = self.len / 2;
        let mut upper = Self {
            memory,
            first: 0,
            len: 0,
        };
        for run in self.runs().iter().skip(half.into()) {
            upper.push(*run);
        }
        self.len = half;
        upper
    }

    /// Adds the runs of `next`, the block after this one, if they fill three quarters of one block
    /// at most, so that one more run does not split it again. Returns whether it did.
    pub(super) fn absorb(&mut self, next: &Self) -> bool {
        if usize::from(self.len) + usize::from(next.len) > RUNS * 3 / 4 {
            return false;
        }
        next.runs().iter().all(|run| self.push(*run))
    }

    /// The memory, for another block.
    pub(super) fn into_memory(self) -> Memory {
        self.memory
    }

    fn note_first(&mut self) {
        if let Some(run) = self.memory.first() {
            // An offset has 12 bits.
            self.first = run.offset() as u16;
        }
    }
}

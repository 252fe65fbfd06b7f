// SPDX-License-Identifier: GPL-2.0-only

//! Blocks that insertions to come can rely on.

use super::{
    block::{
        Memory,
        RUNS, //
    },
    run::Run,
    size::{
        kmalloc,
        of_array, //
    }, //
};
use crate::format::NoMemory;
use crate::memory::{
    Box,
    Vec,
    When, //
};

/// How many blocks are kept that nobody has reserved, so that one copy after the other need not
/// allocate and free one each time.
const KEPT: usize = 4;

/// The empty blocks of a table: at least one for each reservation.
pub(super) struct Spares {
    blocks: Vec<Memory>,
    reserved: usize,
}

impl Spares {
    pub(super) const fn new() -> Self {
        Self {
            blocks: Vec::new(),
            reserved: 0,
        }
    }

    /// Reserves a block. A failure changes nothing.
    pub(super) fn reserve(&mut self, when: When) -> Result<(), NoMemory> {
        if self.blocks.len() <= self.reserved {
            self.blocks.reserve(1, when)?;
            let block = Box::new([Run::NONE; RUNS], when)?;
            self.blocks.push(block).map_err(|_| NoMemory)?;
        }
        self.reserved += 1;
        Ok(())
    }

    /// Ends a reservation, whether its block was [taken](Self::take) or not.
    pub(super) fn release(&mut self) {
        self.reserved = self.reserved.saturating_sub(1);
        self.blocks.truncate(self.reserved + KEPT);
        if self.reserved == 0 && self.blocks.capacity() > 16 * KEPT {
            self.blocks.shrink(When::Atomic);
        }
    }

    /// Takes a block; there is one for each reservation that was not ended yet.
    pub(super) fn take(&mut self) -> Option<Memory> {
        self.blocks.pop()
    }

    /// Gives a block back that is needed no more.
    pub(super) fn give(&mut self, block: Memory) {
        if self.blocks.len() < self.reserved + KEPT {
            // Without room for it, it is freed.
            drop(self.blocks.push(block));
        }
    }

    /// Frees all blocks, if none is reserved.
    pub(super) fn tidy(&mut self) {
        if self.reserved == 0 {
            self.blocks = Vec::new();
        }
    }

    /// The memory taken, in bytes.
    pub(super) fn bytes(&self) -> usize {
        of_array(&self.blocks) + self.blocks.len() * kmalloc(size_of::<[Run; RUNS]>())
    }
}

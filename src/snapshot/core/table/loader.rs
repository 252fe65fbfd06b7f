// SPDX-License-Identifier: GPL-2.0-only

//! Tables from the list of a COW.

use super::{
    scratch::Scratch,
    Table,
    MAX_NEW,
    SHARDS, //
};
use crate::format::NoMemory;
use crate::memory::{
    Vec,
    When, //
};
use core::mem::replace;

/// Why a list cannot be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// There is no memory left.
    NoMemory,
    /// A chunk of the COW is [`MAX_NEW`] or beyond.
    NewTooLarge {
        /// That chunk.
        new: u64,
    },
    /// Two records have one chunk of the origin.
    OldTwice {
        /// That chunk.
        old: u64,
        /// Where the earlier of them says that it is, and the later.
        new: [u64; 2],
    },
}

impl From<NoMemory> for LoadError {
    fn from(_: NoMemory) -> Self {
        Self::NoMemory
    }
}

/// Fills the tables of a snapshot when it is activated. May sleep.
///
/// Exceptions come in the order of the list, and go into their regions as they come; at the end
/// each region is sorted by itself, in the memory that it has. So the time is linear whatever the
/// list (and logarithmic in the number of regions), and the memory is never more than some
/// 330 bytes a region and 8 an exception, and what arrays have in reserve.
pub struct Loader {
    tables: Tables,
    scratch: Scratch,
}

impl Loader {
    /// Starts with empty tables. A chunk is 2^`chunk_shift` sectors, at most 2^21.
    pub fn new(chunk_shift: u32) -> Result<Self, NoMemory> {
        let tables = Tables::new(chunk_shift)?;
        let scratch = Scratch::new(1 << Table::region_shift(chunk_shift))?;
        Ok(Self { tables, scratch })
    }

    /// Adds an exception. After a failure, the loader is good for nothing but to be dropped.
    pub fn add(&mut self, old: u64, new: u64) -> Result<(), LoadError> {
        if new >= MAX_NEW {
            return Err(LoadError::NewTooLarge { new });
        }
        let shard = shard(old, self.tables.chunk_shift);
        let table = self.tables.tables.get_mut(shard).ok_or(NoMemory)?;
        table.append(old, new, &mut self.scratch)
    }

    /// Sorts what was added.
    pub fn finish(mut self) -> Result<Tables, LoadError> {
        for table in self.tables.tables.iter_mut() {
            table.sort(&mut self.scratch)?;
        }
        Ok(self.tables)
    }
}

/// The tables of a snapshot, one a lock shard.
pub struct Tables {
    tables: Vec<Table>,
    chunk_shift: u32,
}

impl Tables {
    /// Empty tables. A chunk is 2^`chunk_shift` sectors, at most 2^21.
    pub fn new(chunk_shift: u32) -> Result<Self, NoMemory> {
        let mut tables = Vec::new();
        tables.reserve(SHARDS, When::Sleep)?;
        for _ in 0..SHARDS {
            let table = Table::new(Table::region_shift(chunk_shift));
            tables.push(table).map_err(|_| NoMemory)?;
        }
        Ok(Self {
            tables,
            chunk_shift,
        })
    }

    /// Takes the table of a shard out, and leaves an empty one.
    pub fn take(&mut self, shard: usize) -> Table {
        let empty = Table::new(Table::region_shift(self.chunk_shift));
        match self.tables.get_mut(shard) {
            Some(table) => replace(table, empty),
            None => empty,
        }
    }
}

/// The lock shard that a chunk of the origin belongs to. A chunk is 2^`chunk_shift` sectors, at
/// most 2^21.
pub fn shard(old: u64, chunk_shift: u32) -> usize {
    let span = old >> super::SPAN_SHIFT.saturating_sub(chunk_shift);
    span as usize % SHARDS
}

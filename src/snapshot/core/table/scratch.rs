// SPDX-License-Identifier: GPL-2.0-only

//! Memory to sort the runs of a region in.

use super::run::Run;
use crate::format::NoMemory;
use crate::memory::{
    Vec,
    When, //
};

/// A chunk of a region that two runs have.
pub(super) struct Twice {
    /// Which, from the region's first on.
    pub(super) offset: u64,
    /// Where the earlier run and the later have it.
    pub(super) new: [u64; 2],
}

/// A place for each chunk of a region, and a bit that tells whether it is there.
pub(super) struct Scratch {
    new: Vec<u64>,
    present: Vec<u64>,
}

impl Scratch {
    /// For regions of `chunks` chunks.
    pub(super) fn new(chunks: u64) -> Result<Self, NoMemory> {
        let zeroes = |count: u64| {
            let mut words = Vec::new();
            words.reserve(count as usize, When::Sleep)?;
            for _ in 0..count {
                words.push(0).map_err(|_| NoMemory)?;
            }
            Ok(words)
        };
        Ok(Self {
            new: zeroes(chunks)?,
            present: zeroes(chunks.div_ceil(64))?,
        })
    }

    /// Removes all chunks.
    pub(super) fn clear(&mut self) {
        self.present.fill(0);
    }

    /// Puts the chunks of `run` in their places. Fails with one that is there already.
    pub(super) fn put(&mut self, run: Run) -> Result<(), Twice> {
        for (offset, new) in (run.offset()..run.end()).zip(run.chunk()..) {
            let bit = 1 << (offset % 64);
            let (Some(word), Some(place)) = (
                self.present.get_mut(offset as usize / 64),
                self.new.get_mut(offset as usize),
            ) else {
                // There is a place for each chunk of a region.
                continue;
            };
            if *word & bit != 0 {
                let new = [*place, new];
                return Err(Twice { offset, new });
            }
            *word |= bit;
            *place = new;
        }
        Ok(())
    }

    /// Calls `visit` with all runs, in order, none of which [`joins`](Run::joins) the next.
    pub(super) fn for_each(&self, mut visit: impl FnMut(Run)) {
        let mut run: Option<Run> = None;
        for (word, start) in self.present.iter().zip((0..).step_by(64)) {
            let mut left = *word;
            while left != 0 {
                let offset = start + u64::from(left.trailing_zeros());
                left &= left - 1;
                let new = self.new.get(offset as usize).copied().unwrap_or_default();
                let chunk = Run::new(offset, new, 1);
                run = match run {
                    Some(run) if run.joins(chunk) => Some(run.and(chunk)),
                    other => {
                        other.map(&mut visit);
                        Some(chunk)
                    }
                };
            }
        }
        run.map(visit);
    }
}

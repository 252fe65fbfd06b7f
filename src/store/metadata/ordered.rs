// SPDX-License-Identifier: GPL-2.0-only

//! Exceptions on their way to dm-snapshot's table, brought into an order that suits it.

use super::{
    disk::Error,
    Receiver, //
};
use crate::format::{
    Exception,
    Fault,
    List,
    NoMemory,
    Pairs,
    Platform, //
};
use core::mem::take;

/// dm-snapshot keeps so many neighbouring old chunks in the same bucket, as a binary logarithm
/// (`DM_CHUNK_CONSECUTIVE_BITS`).
const BLOCK_BITS: u32 = 8;

/// Gathers all exceptions and hands them over in descending order of their old chunks.
///
/// dm-snapshot keeps exceptions in a hash table by old chunk, in blocks of 2^[`BLOCK_BITS`]
/// neighbours, and looks through a bucket from its low end for the place of a new one. In
/// descending order that is the first place. In any other order an insertion misses the CPU's
/// caches a few times, and where somebody chose old chunks of one bucket it walks all that is
/// there: hours for a million.
///
/// Where new chunks do not ascend, as kernels before 3.13 left them, only the blocks are handed
/// over in descending order. Within a block the order is the list's, and an insertion looks at the
/// block's exceptions at most. The reason is merging: dm-snapshot keeps exceptions of a block whose
/// chunks follow each other on both sides as one run, and can take one only from an end of its run,
/// while a merge takes them from the list's end. While new chunks ascend, the exceptions of a run
/// are neighbours in the list, and any order will do.
///
/// Exceptions that share an old chunk are a fault: of each chunk there is one copy.
///
/// Exceptions that are a run to dm-snapshot are kept as one here. Memory is that of [`Pairs`], 16
/// bytes a run, and is given back page by page while dm-snapshot allocates 32 bytes for each run, so
/// that no more is in use at any time than afterwards.
pub struct Ordered<P: Platform, R> {
    receiver: R,
    /// What [`Run::packed`] makes of each run.
    runs: Pairs<P>,
    /// The run that the next exception may continue.
    last: Option<Run>,
    /// Whether new chunks ascended so far.
    ascending: bool,
}

impl<P: Platform, R> Ordered<P, R> {
    /// Hands over to `receiver`.
    pub fn new(receiver: R) -> Self {
        Self {
            receiver,
            runs: Pairs::new(),
            last: None,
            ascending: true,
        }
    }

    fn end_run(&mut self) -> Result<(), NoMemory> {
        match self.last.take() {
            Some(run) => {
                let (old, new) = run.packed();
                self.runs.try_push(old, new)
            }
            None => Ok(()),
        }
    }
}

/// Exceptions of one block whose chunks follow each other on both sides, and in the list.
#[derive(Clone, Copy)]
struct Run {
    old: u64,
    new: u64,
    /// How many: 1 to 2^[`BLOCK_BITS`].
    length: u64,
}

impl Run {
    /// A chunk's number is below 2^56: [`Geometry::MAX_CHUNKS`](crate::format::Geometry).
    const NUMBER_BITS: u32 = 56;

    /// Takes `e` in, if it continues the run within the block.
    fn take(&mut self, e: Exception) -> bool {
        let continues = e.old == self.old.wrapping_add(self.length)
            && e.new == self.new + self.length
            && e.old >> BLOCK_BITS == self.old >> BLOCK_BITS;
        self.length += u64::from(continues);
        continues
    }

    /// The first old chunk, and the first new chunk with the length above it.
    fn packed(self) -> (u64, u64) {
        (
            self.old,
            self.new | ((self.length - 1) << Self::NUMBER_BITS),
        )
    }

    fn unpacked((old, packed): (u64, u64)) -> Self {
        Self {
            old,
            new: packed & ((1 << Self::NUMBER_BITS) - 1),
            length: (packed >> Self::NUMBER_BITS) + 1,
        }
    }

    /// The exception at `index`.
    fn at(self, index: u64) -> Exception {
        Exception {
            old: self.old + index,
            new: self.new + index,
        }
    }
}

impl<P: Platform, E, R: Receiver<E>> Receiver<E> for Ordered<P, R> {
    fn chunk_size(&mut self, sectors: u32) -> Result<(), E> {
        self.receiver.chunk_size(sectors)
    }

    fn take(&mut self, e: Exception) -> Result<(), Error<E>> {
        if let Some(run) = &mut self.last {
            if run.take(e) {
                return Ok(());
            }
            self.ascending &= e.new >= run.new + run.length;
        }
        self.end_run().map_err(fault)?;
        self.last = Some(Run {
            old: e.old,
            new: e.new,
            length: 1,
        });
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Error<E>> {
        self.end_run().map_err(fault)?;
        let mut runs = take(&mut self.runs);
        let ignored = if self.ascending { 0 } else { BLOCK_BITS };
        runs.sort(|old| !(old >> ignored)).map_err(fault)?;
        let mut block = Block::<P>::new().map_err(fault)?;
        for page in runs.into_pages() {
            if !P::may_go_on() {
                return Err(fault(Fault::Interrupted));
            }
            for run in page.as_slice().iter().copied().map(Run::unpacked) {
                for index in 0..run.length {
                    // In a list that ascends, an exception comes after those with higher old chunks.
                    let e = run.at(match self.ascending {
                        true => run.length - 1 - index,
                        false => index,
                    });
                    block.put(e).map_err(fault)?;
                    self.receiver.take(e)?;
                }
            }
        }
        self.receiver.finish()
    }
}

fn fault<E>(fault: impl Into<Fault>) -> Error<E> {
    Error::Fault(fault.into())
}

/// The exceptions of a block of old chunks, after those of other blocks.
struct Block<P: Platform> {
    /// `(old chunk, new chunk)` of the last one in each place of a block; 0 for a new chunk that
    /// none was.
    last: P::List<(u64, u64)>,
}

impl<P: Platform> Block<P> {
    fn new() -> Result<Self, NoMemory> {
        let mut last = P::List::with_capacity(1 << BLOCK_BITS)?;
        for _ in 0..1 << BLOCK_BITS {
            last.try_push((0, 0))?;
        }
        Ok(Self { last })
    }

    /// Puts `e` in its place. The block must not change and change back.
    fn put(&mut self, e: Exception) -> Result<(), Fault> {
        // CAST: Less than the chunks of a block.
        let place = e.old as usize & ((1 << BLOCK_BITS) - 1);
        let last = &mut self.last.as_mut_slice()[place];
        if last.0 == e.old && last.1 != 0 {
            return Err(Fault::OldUsedTwice {
                old: e.old,
                new: [last.1, e.new],
            });
        }
        *last = (e.old, e.new);
        Ok(())
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! Exceptions on their way to dm-snapshot's table, brought into an order that suits it.

use super::{disk::Error, Receiver};
use crate::format::{Exception, Fault, List, NoMemory, Pairs, Platform};
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
/// over in descending order, and within a block the order is the list's: an insertion then looks
/// at the block's exceptions at most. For exceptions whose chunks follow each other on both sides
/// are one run to dm-snapshot, and a merge, which takes them from the list's end, may take them
/// from an end of their run only. While new chunks ascend, a run stands together in the list and
/// any order will do. A run never reaches over a block's end.
///
/// Exceptions that share an old chunk are a fault: of each chunk there is one copy.
///
/// Memory is that of [`Pairs`], 16 bytes an exception. It is given back page by page while
/// dm-snapshot allocates 32 bytes for each, so that no more is in use at any time than afterwards.
pub struct Ordered<P: Platform, R> {
    receiver: R,
    /// `(old chunk, new chunk)` of each.
    exceptions: Pairs<P>,
    /// The last new chunk.
    last_new: u64,
    /// Whether new chunks ascended so far.
    ascending: bool,
}

impl<P: Platform, R> Ordered<P, R> {
    /// Hands over to `receiver`.
    pub fn new(receiver: R) -> Self {
        Self {
            receiver,
            exceptions: Pairs::new(),
            last_new: 0,
            ascending: true,
        }
    }
}

impl<P: Platform, E, R: Receiver<E>> Receiver<E> for Ordered<P, R> {
    fn chunk_size(&mut self, sectors: u32) -> Result<(), E> {
        self.receiver.chunk_size(sectors)
    }

    fn take(&mut self, e: Exception) -> Result<(), Error<E>> {
        self.ascending &= e.new > self.last_new;
        self.last_new = e.new;
        self.exceptions.try_push(e.old, e.new).map_err(fault)
    }

    fn finish(&mut self) -> Result<(), Error<E>> {
        let mut exceptions = take(&mut self.exceptions);
        let ignored = if self.ascending { 0 } else { BLOCK_BITS };
        exceptions.sort(|old| !(old >> ignored)).map_err(fault)?;
        let mut block = Block::<P>::new().map_err(fault)?;
        for page in exceptions.into_pages() {
            if !P::may_go_on() {
                return Err(fault(Fault::Interrupted));
            }
            for &(old, new) in page.as_slice() {
                let e = Exception { old, new };
                block.put(e).map_err(fault)?;
                self.receiver.take(e)?;
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

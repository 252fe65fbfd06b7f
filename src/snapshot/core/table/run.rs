// SPDX-License-Identifier: GPL-2.0-only

//! A run of exceptions.

/// As many bits as an offset in a region has, and a length.
pub(super) const OFFSET_BITS: u32 = 12;

/// One more than the largest chunk of a COW that a run can point to.
pub const MAX_NEW: u64 = 1 << NEW_BITS;

const NEW_BITS: u32 = 64 - 2 * OFFSET_BITS;
const OFFSET_MASK: u64 = (1 << OFFSET_BITS) - 1;

/// Exceptions whose chunks are consecutive on the origin and on the COW.
///
/// In one word: from the top, the offset in the region, in chunks; the length less one; the first
/// chunk of the COW. So runs compare as their offsets do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Run(u64);

impl Run {
    /// What stands where no run is.
    pub(super) const NONE: Self = Self(0);

    /// The run of `chunks` chunks from `offset` on, which are at `new` and after it on the COW.
    ///
    /// `offset + chunks` is at most the size of a region, `chunks` at least 1, and
    /// `new + chunks` at most [`MAX_NEW`].
    pub(super) fn new(offset: u64, new: u64, chunks: u64) -> Self {
        let offset = (offset & OFFSET_MASK) << (NEW_BITS + OFFSET_BITS);
        let length = (chunks.wrapping_sub(1) & OFFSET_MASK) << NEW_BITS;
        Self(offset | length | (new & (MAX_NEW - 1)))
    }

    /// The first chunk, in the region.
    pub(super) fn offset(self) -> u64 {
        self.0 >> (NEW_BITS + OFFSET_BITS)
    }

    /// How many chunks there are.
    pub(super) fn chunks(self) -> u64 {
        ((self.0 >> NEW_BITS) & OFFSET_MASK) + 1
    }

    /// The chunk after the last one, in the region.
    pub(super) fn end(self) -> u64 {
        self.offset() + self.chunks()
    }

    /// Where the first chunk is on the COW.
    pub(super) fn chunk(self) -> u64 {
        self.0 & (MAX_NEW - 1)
    }

    /// Whether `next` goes on where this run ends, on the origin and on the COW.
    pub(super) fn joins(self, next: Self) -> bool {
        self.end() == next.offset() && self.chunk() + self.chunks() == next.chunk()
    }

    /// This run and `next`, which it [`joins`](Self::joins), as one.
    pub(super) fn and(self, next: Self) -> Self {
        Self::new(self.offset(), self.chunk(), self.chunks() + next.chunks())
    }

    /// The part before `offset`, which is within the run and not its first chunk.
    pub(super) fn before(self, offset: u64) -> Self {
        Self::new(
            self.offset(),
            self.chunk(),
            offset.saturating_sub(self.offset()),
        )
    }

    /// The part from `offset` on, which is within the run.
    pub(super) fn from(self, offset: u64) -> Self {
        Self::new(
            offset,
            self.chunk() + offset.saturating_sub(self.offset()),
            self.end().saturating_sub(offset),
        )
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! A long list of pairs of numbers that is sorted in linear time.

use super::{
    Fault,
    List,
    NoMemory,
    Platform, //
};
use core::iter::from_fn;
use core::mem::replace;

/// Pairs in a page: 4 KiB of them, a piece that the kernel has while larger ones are rare.
const PAGE: usize = 256;

/// Bits of a number that a pass of [`Pairs::sort`] looks at, at most.
const MAX_BITS: u32 = 10;

type Page<P> = <P as Platform>::List<(u64, u64)>;
type Pages<P> = <P as Platform>::List<Page<P>>;

/// A list of pairs of numbers, in the order in which they were pushed until it is sorted.
///
/// # What it costs
///
/// Memory is 16 bytes a pair, in pages of 4 KiB, and a hundredth of that for finding the pages;
/// nothing is copied when the list grows. Sorting takes another 2^[`MAX_BITS`] pages at most, and
/// 16 where the list is short. It goes over the list once for every [`MAX_BITS`] bits in which the
/// numbers differ, so seven times at most, whatever they are; over one of less than 2^[`MAX_BITS`]
/// pages more often, up to 16 times.
pub struct Pairs<P: Platform> {
    /// None is empty; any but the last may be partly filled only after a sort.
    pages: Pages<P>,
}

impl<P: Platform> Pairs<P> {
    /// A list with nothing in it.
    pub const fn new() -> Self {
        Self {
            pages: Pages::<P>::EMPTY,
        }
    }

    /// Puts a pair at the end. May sleep.
    pub fn try_push(&mut self, first: u64, second: u64) -> Result<(), NoMemory> {
        if let Some(page) = self.pages.as_mut_slice().last_mut() {
            if page.as_slice().len() < PAGE {
                return page.try_push((first, second));
            }
        }
        let mut page = Page::<P>::with_capacity(PAGE)?;
        page.try_push((first, second))?;
        self.pages.try_push(page)
    }

    /// All pairs, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let pages = self.pages.as_slice().iter();
        pages.flat_map(|page| page.as_slice().iter().copied())
    }

    /// All pairs, in order, a page at a time: whoever drops a page gives its memory back.
    pub fn into_pages(self) -> impl Iterator<Item = P::List<(u64, u64)>> {
        let mut pages = self.pages;
        let mut next = 0;
        from_fn(move || {
            let page = pages.as_mut_slice().get_mut(next)?;
            next += 1;
            Some(replace(page, Page::<P>::EMPTY))
        })
    }

    /// Sorts the pairs by what `key` makes of their first numbers, ascending. Pairs whose keys are
    /// equal stay in order.
    ///
    /// Fails with [`Fault::NoMemory`], or with [`Fault::Interrupted`] where [`Platform::may_go_on`]
    /// says no; the list is not to be used any more then. May sleep.
    pub fn sort(&mut self, key: impl Fn(u64) -> u64) -> Result<(), Fault> {
        // The bits in which any two keys differ.
        let mut bits = 0;
        if let Some((first, _)) = self.iter().next() {
            let first = key(first);
            for page in self.pages.as_slice() {
                go_on::<P>()?;
                for (number, _) in page.as_slice() {
                    bits |= key(*number) ^ first;
                }
            }
        }
        // A short list is not spread over more pages than it has.
        let pages = self.pages.as_slice().len();
        let width = pages.max(1).ilog2().clamp(4, MAX_BITS);
        let mut shift = 0;
        while bits.checked_shr(shift).unwrap_or(0) != 0 {
            shift += (bits >> shift).trailing_zeros();
            // CAST: Less than the number of groups.
            self.distribute(1 << width, |number| {
                (key(number) >> shift) as usize & ((1 << width) - 1)
            })?;
            shift += width;
        }
        Ok(())
    }

    /// Brings the pairs of group 0 to the front, then those of group 1, and so on.
    fn distribute(&mut self, count: usize, group_of: impl Fn(u64) -> usize) -> Result<(), Fault> {
        let mut groups = P::List::<Group<P>>::with_capacity(count)?;
        for _ in 0..count {
            groups.try_push(Group::new())?;
        }
        let to = groups.as_mut_slice();
        // Pages whose pairs went to their groups.
        let mut spare = Pages::<P>::EMPTY;
        for page in self.pages.as_mut_slice() {
            go_on::<P>()?;
            let mut from = replace(page, Page::<P>::EMPTY);
            for &pair in from.as_slice() {
                let group = &mut to[group_of(pair.0)];
                if group.room == 0 {
                    group.begin(match spare.pop() {
                        Some(page) => page,
                        None => Page::<P>::with_capacity(PAGE)?,
                    })?;
                }
                group.open.try_push(pair)?;
                group.room -= 1;
            }
            from.clear();
            spare.try_push(from)?;
        }
        self.pages.clear();
        for group in to {
            for page in group.full.as_mut_slice() {
                self.pages.try_push(replace(page, Page::<P>::EMPTY))?;
            }
            let open = replace(&mut group.open, Page::<P>::EMPTY);
            if !open.as_slice().is_empty() {
                self.pages.try_push(open)?;
            }
        }
        Ok(())
    }
}

impl<P: Platform> Default for Pairs<P> {
    fn default() -> Self {
        Self::new()
    }
}

/// Pairs on their way to the same place.
struct Group<P: Platform> {
    full: Pages<P>,
    /// The page that is being filled, after those that are.
    open: Page<P>,
    /// How many pairs `open` has room for.
    room: usize,
}

impl<P: Platform> Group<P> {
    const fn new() -> Self {
        Self {
            full: Pages::<P>::EMPTY,
            open: Page::<P>::EMPTY,
            room: 0,
        }
    }

    /// Goes on with `page`, which is empty.
    fn begin(&mut self, page: Page<P>) -> Result<(), NoMemory> {
        let full = replace(&mut self.open, page);
        self.room = PAGE;
        if full.as_slice().is_empty() {
            return Ok(());
        }
        self.full.try_push(full)
    }
}

/// Fails where whoever waits was told to die.
pub(super) fn go_on<P: Platform>() -> Result<(), Fault> {
    if P::may_go_on() {
        Ok(())
    } else {
        Err(Fault::Interrupted)
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! Finds chunks named by more than one record.

use crate::cow::{Cow, Userspace};
use crate::error::Result;
use crate::format::{Fault, Geometry, Pairs};
use std::collections::HashMap;

/// Says of many numbers that each is there once, or that it does not know.
///
/// # What it costs
///
/// A bit for each number, in pages that exist where a number was given: the chunks of a disk lie
/// close together, so this is enough for nearly every snapshot. It takes 32 MiB at most, and gives
/// up where numbers are too far apart for that.
#[derive(Default)]
pub struct Distinct {
    pages: HashMap<u64, Box<Page>>,
    doubtful: bool,
}

type Page = [u64; Distinct::PAGE_BITS as usize / 64];

impl Distinct {
    /// Bits in a page.
    const PAGE_BITS: u64 = 1 << 15;
    /// The largest number of pages in memory.
    const MAX_PAGES: usize = 7 << 10;

    /// Takes a number.
    pub fn give(&mut self, number: u64) {
        if self.doubtful {
            return;
        }
        let page = number / Self::PAGE_BITS;
        if self.pages.len() >= Self::MAX_PAGES && !self.pages.contains_key(&page) {
            self.doubtful = true;
            return;
        }
        let page = self
            .pages
            .entry(page)
            .or_insert_with(|| Box::new([0; Self::PAGE_BITS as usize / 64]));
        let bit = number % Self::PAGE_BITS;
        let (word, mask) = (&mut page[bit as usize / 64], 1 << (bit % 64));
        self.doubtful = *word & mask != 0;
        *word |= mask;
    }

    /// Whether every number was given once only, for certain.
    pub fn is_certain(&self) -> bool {
        !self.doubtful
    }
}

/// Finds the numbers that are given more than once, and says whose they are.
///
/// Takes 16 bytes a number, and time in proportion to how many there are, whatever they are.
#[derive(Default)]
pub struct Repeats(Pairs<Userspace>);

impl Repeats {
    /// Takes a number, and whose it is.
    pub fn give(&mut self, number: u64, owner: u64) -> std::result::Result<(), Fault> {
        Ok(self.0.try_push(number, owner)?)
    }

    /// Calls `tell` with each number that was given before, the lowest first, whose it was first and
    /// whose it is.
    pub fn finish(mut self, mut tell: impl FnMut(u64, u64, u64)) -> std::result::Result<(), Fault> {
        self.0.sort(|number| number)?;
        let mut first: Option<(u64, u64)> = None;
        for (number, owner) in self.0.iter() {
            match first {
                Some((repeated, first)) if repeated == number => tell(number, first, owner),
                _ => first = Some((number, owner)),
            }
        }
        Ok(())
    }
}

/// Walks the list of `cow` and calls `tell` with each old chunk that was used before, the lowest
/// first, the new chunk of its first record and that of this one.
pub fn old_used_twice(
    cow: &Cow,
    geometry: &Geometry,
    tell: impl FnMut(u64, u64, u64),
) -> Result<()> {
    let mut old_chunks = Repeats::default();
    let told = |fault| cow.fault(fault);
    cow.records(*geometry, |_, e| {
        old_chunks.give(e.old, e.new).map_err(told)
    })?;
    old_chunks.finish(tell).map_err(told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn finds_what_a_map_finds(
            numbers in prop::collection::vec(0_u64..300, 0..200),
            step in prop::sample::select(vec![1, Distinct::PAGE_BITS, u64::MAX / 300])
        ) {
            let numbers: Vec<u64> = numbers.into_iter().map(|n| n * step).collect();
            let mut distinct = Distinct::default();
            let mut repeats = Repeats::default();
            let mut first = HashMap::new();
            let mut expected = Vec::new();
            for (owner, number) in (0..).zip(numbers) {
                distinct.give(number);
                repeats.give(number, owner).unwrap();
                let first = *first.entry(number).or_insert(owner);
                if first != owner {
                    expected.push((number, first, owner));
                }
            }
            expected.sort_unstable();
            let mut told = Vec::new();
            repeats.finish(|number, first, again| told.push((number, first, again))).unwrap();
            prop_assert_eq!(told, expected.clone());
            prop_assert_eq!(distinct.is_certain(), expected.is_empty());
        }
    }

    #[test]
    fn what_does_not_fit_is_not_certain() {
        let far = |n: u64| n * Distinct::PAGE_BITS;
        let mut distinct = Distinct::default();
        (0..Distinct::MAX_PAGES as u64)
            .map(far)
            .for_each(|n| distinct.give(n));
        assert!(distinct.is_certain());
        distinct.give(far(Distinct::MAX_PAGES as u64));
        assert!(!distinct.is_certain());
    }
}

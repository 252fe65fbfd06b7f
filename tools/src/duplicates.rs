// SPDX-License-Identifier: GPL-2.0-only

//! Finds chunks named by more than one record, in bounded memory.

use std::collections::{BTreeSet, HashMap};

/// Finds numbers that were given more than once.
///
/// # What it costs
///
/// A bit for each number, in pages that exist where a number was given: the chunks of a disk lie
/// close together, so this is enough for nearly every snapshot. Numbers too far apart to fit
/// [`Duplicates::MAX_PAGES`] make it stop; [`Duplicates::passes`] then says how many more times
/// the numbers must be given, of which each pass looks at a share that fits
/// [`Duplicates::MAX_NUMBERS`]. Either way it takes 32 MiB at most.
pub struct Duplicates {
    state: State,
    /// How many numbers were given in the first pass.
    given: u64,
    /// How many were given before.
    repeated: u64,
    /// The lowest of these.
    found: BTreeSet<u64>,
}

enum State {
    /// The first pass.
    Pages(HashMap<u64, Box<Page>>),
    /// The first pass went without success.
    TooMany,
    /// A later pass, which looks at the numbers of one share.
    Share {
        share: u64,
        shares: u64,
        numbers: Vec<u64>,
    },
}

type Page = [u64; Duplicates::PAGE_BITS as usize / 64];

impl Duplicates {
    /// Bits in a page.
    const PAGE_BITS: u64 = 1 << 15;
    /// The largest number of pages in memory.
    pub const MAX_PAGES: usize = 7 << 10;
    /// The largest number of numbers that one share is expected to have.
    pub const MAX_NUMBERS: u64 = 3 << 20;
    /// How many different duplicates are told.
    pub const MAX_FOUND: usize = 1000;

    /// Nothing was given yet.
    pub fn new() -> Self {
        Self {
            state: State::Pages(HashMap::new()),
            given: 0,
            repeated: 0,
            found: BTreeSet::new(),
        }
    }

    /// Takes a number.
    pub fn give(&mut self, number: u64) {
        match &mut self.state {
            State::Pages(pages) => {
                self.given += 1;
                let page = number / Self::PAGE_BITS;
                if pages.len() >= Self::MAX_PAGES && !pages.contains_key(&page) {
                    self.state = State::TooMany;
                    return;
                }
                let page = pages
                    .entry(page)
                    .or_insert_with(|| Box::new([0; Self::PAGE_BITS as usize / 64]));
                let bit = number % Self::PAGE_BITS;
                let (word, mask) = (&mut page[bit as usize / 64], 1 << (bit % 64));
                let repeated = *word & mask != 0;
                *word |= mask;
                if repeated {
                    self.repeat(number);
                }
            }
            State::TooMany => self.given += 1,
            State::Share {
                share,
                shares,
                numbers,
            } => {
                if Self::spread(number) % *shares == *share {
                    numbers.push(number);
                }
            }
        }
    }

    /// How many times all numbers must be given again, each time after [`Duplicates::begin`].
    pub fn passes(&self) -> u64 {
        match self.state {
            State::Pages(_) => 0,
            _ => self.given.div_ceil(Self::MAX_NUMBERS),
        }
    }

    /// Begins pass `pass` of [`Duplicates::passes`], counted from 0.
    pub fn begin(&mut self, pass: u64) {
        if pass == 0 {
            self.repeated = 0;
            self.found.clear();
        }
        let shares = self.passes();
        self.end_share();
        let numbers = match &mut self.state {
            State::Share { numbers, .. } => std::mem::take(numbers),
            _ => Vec::new(),
        };
        self.state = State::Share {
            share: pass,
            shares,
            numbers,
        };
    }

    /// How many numbers had been given before, and the lowest [`Duplicates::MAX_FOUND`] of them.
    pub fn finish(mut self) -> (u64, BTreeSet<u64>) {
        self.end_share();
        (self.repeated, self.found)
    }

    fn end_share(&mut self) {
        let State::Share { numbers, .. } = &mut self.state else {
            return;
        };
        let mut numbers = std::mem::take(numbers);
        numbers.sort_unstable();
        for pair in numbers.windows(2).filter(|pair| pair[0] == pair[1]) {
            self.repeat(pair[0]);
        }
        numbers.clear();
        if let State::Share { numbers: empty, .. } = &mut self.state {
            *empty = numbers;
        }
    }

    fn repeat(&mut self, number: u64) {
        self.repeated += 1;
        self.found.insert(number);
        if self.found.len() > Self::MAX_FOUND {
            self.found.pop_last();
        }
    }

    /// Mixes the bits of `number`, so that shares come out even.
    fn spread(number: u64) -> u64 {
        let mut x = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x ^= x >> 32;
        x.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 16
    }
}

impl Default for Duplicates {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn find(numbers: &[u64]) -> (u64, BTreeSet<u64>) {
        let mut duplicates = Duplicates::new();
        numbers.iter().for_each(|n| duplicates.give(*n));
        for pass in 0..duplicates.passes() {
            duplicates.begin(pass);
            numbers.iter().for_each(|n| duplicates.give(*n));
        }
        duplicates.finish()
    }

    proptest! {
        #[test]
        fn finds_what_a_set_finds(
            numbers in prop::collection::vec(0_u64..300, 0..200),
            step in prop::sample::select(vec![1, Duplicates::PAGE_BITS, u64::MAX / 300])
        ) {
            let numbers: Vec<u64> = numbers.into_iter().map(|n| n * step).collect();
            let mut set = BTreeSet::new();
            let repeated: Vec<u64> = numbers.iter().copied().filter(|n| !set.insert(*n)).collect();
            prop_assert_eq!(
                find(&numbers),
                (repeated.len() as u64, repeated.into_iter().collect())
            );
        }
    }

    #[test]
    fn passes_over_what_does_not_fit() {
        let far = |n: u64| n * Duplicates::PAGE_BITS;
        let mut numbers: Vec<u64> = (0..10_000).map(far).collect();
        numbers.extend([far(1), far(9_999), far(1)]);
        assert_eq!(find(&numbers), (3, BTreeSet::from([far(1), far(9_999)])));
    }
}

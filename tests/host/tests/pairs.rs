// SPDX-License-Identifier: GPL-2.0-only

//! The sort of long lists against the standard library's.

use host_tests::format::{Fault, List, Pairs, Platform};
use host_tests::platform::{allow_steps, steps_left, Host, Small, Stopped};
use proptest::prelude::*;

fn pairs<P: Platform>(numbers: &[u64]) -> Pairs<P> {
    let mut pairs = Pairs::new();
    for (at, number) in (0..).zip(numbers) {
        pairs.try_push(*number, at).unwrap();
    }
    pairs
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Pairs of equal keys stay in order, and what is pushed after a sort comes after it.
    #[test]
    fn sorts_as_a_stable_sort_does(
        numbers in prop::collection::vec(any::<u64>(), 0..3000),
        more in prop::collection::vec(any::<u64>(), 0..600),
        mask in prop_oneof![Just(u64::MAX), Just(0xff), Just(0), Just(0xff00_0000_0ff0_0000)],
        shift in 0_u32..30,
        descending: bool,
    ) {
        let key = |number: u64| if descending { !(number >> shift) } else { number >> shift };
        let numbers: Vec<u64> = numbers.iter().map(|number| number & mask).collect();
        let mut expected: Vec<(u64, u64)> = numbers.iter().copied().zip(0..).collect();
        let mut sorted = pairs::<Host>(&numbers);
        for more in [&more[..], &[]] {
            expected.sort_by_key(|(number, _)| key(*number));
            sorted.sort(key).unwrap();
            for (at, number) in (10_000..).zip(more) {
                expected.push((*number, at));
                sorted.try_push(*number, at).unwrap();
            }
            prop_assert_eq!(sorted.iter().collect::<Vec<_>>(), &expected[..]);
        }
        let pages = sorted.into_pages();
        prop_assert_eq!(pages.flat_map(|page| page.as_slice().to_vec()).collect::<Vec<_>>(), expected);
    }
}

/// How often a sort of so many numbers asks whether to go on, which it does once a page.
fn steps(count: u64, number: impl Fn(u64) -> u64) -> u64 {
    allow_steps(u64::MAX);
    let numbers: Vec<u64> = (0..count).map(number).collect();
    pairs::<Stopped>(&numbers).sort(|number| number).unwrap();
    u64::MAX - steps_left()
}

#[test]
fn work_grows_with_the_length_only() {
    for number in [
        |n| n,
        |n: u64| !n,
        |n: u64| n << 45,
        |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15),
    ] {
        let short = steps(300_000, number);
        let long = steps(600_000, number);
        // the longer may differ in one more bit
        assert!(
            long <= short * 2 + short && long < 600_000 / 256 * 10,
            "{short}, {long}"
        );
    }
}

#[test]
fn is_interrupted_at_any_step() {
    let numbers: Vec<u64> = (0..20_000_u64)
        .map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .collect();
    allow_steps(u64::MAX);
    pairs::<Stopped>(&numbers).sort(|number| number).unwrap();
    for steps in 0..u64::MAX - steps_left() {
        allow_steps(steps);
        let sorted = pairs::<Stopped>(&numbers).sort(|number| number);
        assert_eq!(sorted, Err(Fault::Interrupted), "after {steps} steps");
    }
}

#[test]
fn memory_that_runs_out_is_a_fault() {
    // 300 pages: there is room for them in a list, but not for what becomes of them
    let mut pairs = Pairs::<Small<299>>::new();
    let pushed = (0..300 * 256).try_for_each(|n: u64| pairs.try_push(n % 7, n));
    assert!(pushed.is_err());
    let mut pairs = Pairs::<Small<300>>::new();
    (0..300 * 256).for_each(|n: u64| pairs.try_push(n % 7, n).unwrap());
    assert_eq!(pairs.sort(|n| n), Err(Fault::NoMemory));
}

// SPDX-License-Identifier: GPL-2.0-only

//! When userspace is told that a COW device becomes full, and how slowly the last of it is handed out.

use host_tests::snapshot::core::{Fill, Pace};

fn fill(allocated: u64) -> Fill {
    Fill {
        allocated,
        total: 10_000,
        chunk: 8,
    }
}

#[test]
fn userspace_is_told_from_the_middle_on() {
    assert_eq!(fill(0).step(), 0);
    assert_eq!(fill(4_999).step(), 0);
    assert_eq!(fill(5_000).step(), 10);
    assert_eq!(fill(5_499).step(), 10);
    assert_eq!(fill(5_500).step(), 11);
    assert_eq!(fill(10_000).step(), 20);
}

#[test]
fn the_last_step_is_not_begun_by_the_way() {
    assert_eq!(fill(0).chunks_before_last(), 9_500_u64.div_ceil(8));
    assert_eq!(fill(9_492).chunks_before_last(), 1);
    assert_eq!(fill(9_499).chunks_before_last(), 1);
    assert_eq!(fill(9_500).chunks_before_last(), 0);
    assert_eq!(fill(10_001).chunks_before_last(), 0);
    // A chunk is more than a step.
    let few = |allocated| Fill {
        allocated,
        total: 70,
        chunk: 10,
    };
    assert_eq!(few(50).chunks_before_last(), 1);
    assert_eq!(few(60).chunks_before_last(), 0);
}

#[test]
fn what_is_huge_is_reckoned_with() {
    let fill = Fill {
        allocated: u64::MAX - 8,
        total: u64::MAX,
        chunk: 8,
    };
    assert_eq!(fill.chunks_before_last(), 0);
    assert!(fill.pause(u32::MAX) > 0);
    assert!(Pace::default().after(u64::MAX, u64::MAX).allows(u64::MAX));
}

/// Fills the last step as fast as it goes; returns how many nanoseconds that took.
fn fill_up(seconds: u32) -> u64 {
    let (mut allocated, mut now, mut pace) = (9_500, 0, Pace::default());
    while allocated + 8 <= 10_000 {
        while !pace.allows(now) {
            now += 5_000_000;
        }
        allocated += 8;
        pace = pace.after(now, fill(allocated).pause(seconds));
    }
    now
}

#[test]
fn the_last_of_it_lasts_as_long_as_it_should() {
    for seconds in [1, 10, 1000] {
        let lasted = fill_up(seconds);
        assert!(lasted > u64::from(seconds) * 1_000_000_000, "{lasted}");
    }
    assert_eq!(fill_up(0), 0);
}

#[test]
fn who_cannot_wait_leaves_no_debt() {
    let mut pace = Pace::default();
    for _ in 0..100 {
        pace = pace.after(7, 1_000_000_000);
    }
    assert!(!pace.allows(900_000_000));
    assert!(pace.allows(1_000_000_007));
}

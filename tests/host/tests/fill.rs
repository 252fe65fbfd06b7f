// SPDX-License-Identifier: GPL-2.0-only

//! When userspace is told that a COW device becomes full, and how slowly the last of it is handed out.

use host_tests::snapshot::core::Fill;

fn fill(allocated: u64) -> Fill {
    Fill {
        allocated,
        total: 10_000,
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
fn only_the_last_of_it_is_slow() {
    assert_eq!(fill(9_500).pause(8, 10), 0);
    assert_eq!(fill(9_501).pause(8, 0), 0);
    let last = fill(9_501).pause(8, 10);
    assert_eq!(last, 10_000_000 * 8 / 507 * 1000);
    assert!(fill(9_901).pause(8, 10) > last);
}

#[test]
fn the_last_of_it_lasts_as_long_as_it_should() {
    let (mut allocated, mut nanoseconds) = (9_500, 0);
    while allocated < 10_000 {
        allocated += 1;
        nanoseconds += fill(allocated).pause(1, 10);
    }
    assert!(nanoseconds > 10_000_000_000, "{nanoseconds}");
}

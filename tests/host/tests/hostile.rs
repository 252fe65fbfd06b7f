// SPDX-License-Identifier: GPL-2.0-only

//! Lists that were made to cost as much as a list can: what they take grows with their length only.

use host_tests::format::{ChunkSize, Exception, Fault, Geometry, RecordCheck};
use host_tests::platform::Host;
use std::time::Duration;

/// What this thread has had of a processor, whatever else runs on the machine.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds = stat.split(' ').next().unwrap();
    Duration::from_nanos(nanoseconds.parse().unwrap())
}

/// The numbers from 0 below `1 << bits` in an order without a pattern.
fn shuffled(bits: u32) -> impl Iterator<Item = u64> {
    let mask = (1 << bits) - 1;
    // An odd factor and a shift that are undone by others: every number comes once.
    (0..=mask).map(move |n: u64| {
        let n = n.wrapping_mul(0x9e37_79b1) & mask;
        ((n ^ (n >> (bits / 2))).wrapping_mul(0x85eb_ca6b)) & mask
    })
}

/// Checks new chunks in the given order; returns what that took.
fn check_new(chunks: impl Iterator<Item = u64>) -> (Result<(), Fault>, Duration) {
    let chunk = ChunkSize::new(1 << 21).unwrap();
    let geometry = Geometry::new(chunk, 1 << 50, 0).unwrap();
    let before = cpu_time();
    let mut check = RecordCheck::<Host>::new(geometry);
    for (record, new) in (0..).zip(chunks) {
        check.check(record, Exception { old: 0, new }).unwrap();
    }
    let result = check.finish();
    (result, cpu_time() - before)
}

/// A second for 16.8 million records where the machine has nothing else to do.
const ENOUGH: Duration = Duration::from_millis(2500);

#[test]
fn new_chunks_in_random_order() {
    let (result, took) = check_new(shuffled(24).map(|n| n + 2));
    assert_eq!(result, Ok(()));
    assert!(took < ENOUGH, "{took:?}");
}

#[test]
fn new_chunks_in_descending_order() {
    let (result, took) = check_new((2..(1 << 24) + 2).rev());
    assert_eq!(result, Ok(()));
    assert!(took < ENOUGH, "{took:?}");
}

#[test]
fn one_new_chunk_in_all_records() {
    let chunks = std::iter::once(1 << 24).chain((0..1 << 24).map(|_| 77));
    let (result, took) = check_new(chunks);
    assert!(matches!(result, Err(Fault::NewUsedTwice(place, 77)) if place.index == 2));
    assert!(took < ENOUGH, "{took:?}");
}

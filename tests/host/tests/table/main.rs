// SPDX-License-Identifier: GPL-2.0-only

//! Drives the table of a snapshot's exceptions against a map that nobody doubts, with allocations
//! that fail; and loads lists, well-meant and hostile ones.

mod load;
mod model;
mod size;

use model::{Op, World};
use proptest::prelude::*;

/// Chunks of the origin near each other, so that runs meet.
fn near() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => 0..700u64,
        2 => 4000..4200u64,
        1 => 0..20_000u64,
        1 => u64::MAX - 300..=u64::MAX,
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => (near(), any::<u8>(), 0..6u64)
            .prop_map(|(old, count, fail)| Op::Reserve { old, count: count % 6 + 1, fail }),
        1 => (near(), 0..6u64).prop_map(|(old, fail)| Op::Reserve { old, count: 200, fail }),
        24 => (any::<usize>(), near(), 1..4u64, 0..3u64)
            .prop_map(|(which, old, chunks, shift)| Op::Insert { which, old, chunks, shift }),
        4 => any::<usize>().prop_map(|which| Op::Release { which }),
        4 => (near(), 1..4u64).prop_map(|(old, chunks)| Op::Remove { old, chunks }),
        2 => (near(), 1..400u64).prop_map(|(old, chunks)| Op::RemoveAll { old, chunks }),
        1 => (near(), 1..4u64, 0..3u64)
            .prop_map(|(old, chunks, shift)| Op::InsertUnreserved { old, chunks, shift }),
        2 => near().prop_map(|old| Op::Find { old }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// The table is as the map, in small and large regions, whatever allocations fail.
    #[test]
    fn is_a_map(
        region_shift in prop_oneof![Just(12u32), Just(9), Just(3), Just(0)],
        ops in proptest::collection::vec(op(), 1..1500),
    ) {
        let mut world = World::new(region_shift);
        for op in ops {
            world.step(op);
        }
        world.finish();
    }
}

/// Regions in any order, and so many that the tree has several levels, come and go.
#[test]
fn many_regions() {
    for order in 0..3u64 {
        let mut world = World::new(1);
        let count = 20_000u64;
        let old = |i: u64| match order {
            0 => i * 5,
            1 => (count - i) * 5,
            _ => i.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        };
        for i in 0..count {
            world.quick(Op::Reserve {
                old: old(i),
                count: 1,
                fail: i % 7,
            });
            world.quick(Op::Insert {
                which: 0,
                old: old(i),
                chunks: 1,
                shift: 0,
            });
        }
        world.check_all();
        for i in (0..count).filter(|i| i % 3 != 0) {
            world.quick(Op::Remove {
                old: old(i * 7 % count),
                chunks: 1,
            });
        }
        world.check_all();
        world.finish();
    }
}

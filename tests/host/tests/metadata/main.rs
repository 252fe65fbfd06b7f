// SPDX-License-Identifier: GPL-2.0-only

//! Drives the store's metadata against a simulated disk that reorders, loses, tears and fails
//! writes, and that the C store may have in between.
//!
//! A script of operations is run; before and amid any of them the power may go. Then every
//! exception that was acknowledged must be in what is loaded, nothing that was never committed may
//! be, and the data that a record points to must be there.

mod disk;
mod hostile;
mod large;
mod order;
mod run;
mod table;

use proptest::prelude::*;
use run::{Op, Setup, World};

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        40 => (1..40u8, any::<bool>()).prop_map(|(n, all)| Op::Copy { n, all }),
        1 => Just(Op::CopyFails),
        12 => any::<u64>().prop_map(|seed| Op::PowerCut { seed, now: false }),
        5 => any::<u64>().prop_map(|seed| Op::PowerCut { seed, now: true }),
        5 => Just(Op::Reload),
        8 => (1..60u8, any::<u64>()).prop_map(|(n, seed)| Op::CStore { n, seed }),
        8 => (1..20u8).prop_map(|n| Op::Merge { n }),
        8 => (1..200u16, 0..100u8).prop_map(|(most, skip)| Op::MergeBatch { most, skip }),
        3 => (0..30u8).prop_map(|after| Op::FailIo { after }),
        1 => Just(Op::Drop),
        1 => (1..200u16).prop_map(|chunks| Op::Extend { chunks }),
    ]
}

fn setup() -> impl Strategy<Value = Setup> {
    (
        prop_oneof![Just(1u32), Just(2), Just(8), Just(256)],
        prop_oneof![Just(512u32), Just(4096), Just(1 << 20)],
        40..3000u64,
    )
        .prop_map(|(chunk_sectors, physical_block, cow_chunks)| Setup {
            chunk_sectors,
            physical_block,
            cow_chunks,
        })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever happens, what was acknowledged is there, and nothing else is.
    #[test]
    fn acknowledged_exceptions_survive(
        setup in setup(),
        ops in proptest::collection::vec(op(), 1..800),
    ) {
        let mut world = World::new(setup);
        for op in ops {
            world.step(op);
        }
        world.step(Op::Reload);
    }
}

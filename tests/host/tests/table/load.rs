// SPDX-License-Identifier: GPL-2.0-only

//! Loading lists.

use host_tests::memory::{self, Failing};
use host_tests::snapshot::core::table::{shard, LoadError, Loader, Table, Tables, MAX_NEW, SHARDS};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

fn load(chunk_shift: u32, list: impl IntoIterator<Item = (u64, u64)>) -> Result<Tables, LoadError> {
    let mut loader = Loader::new(chunk_shift)?;
    for (old, new) in list {
        loader.add(old, new)?;
    }
    loader.finish()
}

/// Every exception that is in a table, each of which is in the table of its shard.
fn all(mut tables: Tables, chunk_shift: u32) -> BTreeMap<u64, u64> {
    let mut map = BTreeMap::new();
    for index in 0..SHARDS {
        let table = tables.take(index);
        let mut chunks = 0;
        let mut end: Option<(u64, u64)> = None;
        for (old, new, length) in table.iter() {
            if let Some((end, end_new)) = end {
                // What could be joined is, but across regions.
                let region = 1 << Table::region_shift(chunk_shift);
                assert!(end < old || end == old && (end_new != new || old % region == 0));
            }
            for i in 0..length {
                assert_eq!(shard(old + i, chunk_shift), index);
                map.insert(old + i, new + i);
            }
            chunks += length;
            end = old.checked_add(length).map(|old| (old, new + length));
        }
        assert_eq!(table.chunks(), chunks);
        assert!(tables.take(index).is_empty());
    }
    map
}

/// Chunks of the origin: few regions with many, and many with few.
fn old() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..3000u64,
        2 => 0..100_000u64,
        1 => any::<u64>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 150,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// What is loaded is what was in the list; a chunk that is in there twice is reported; and
    /// wherever memory runs out, there is an error and nothing is left.
    #[test]
    fn is_the_list(
        chunk_shift in 0..=21u32,
        list in proptest::collection::vec((old(), 0..5u64), 0..3000),
        twice in any::<bool>(),
        fail in 0..3000u64,
    ) {
        let taken = memory::taken();
        let list: Vec<(u64, u64)> = list.into_iter().map(|(old, n)| (old, old / 2 + n)).collect();
        let mut map = BTreeMap::new();
        let mut double = Vec::new();
        let list: Vec<_> = list
            .into_iter()
            .map(|(old, new)| (old, new % MAX_NEW))
            .filter(|(old, new)| {
                let first = !map.contains_key(old);
                if first {
                    map.insert(*old, *new);
                } else {
                    double.push(*old);
                }
                first || twice
            })
            .collect();
        match load(chunk_shift, list.iter().copied()) {
            Ok(tables) => {
                prop_assert!(!twice || double.is_empty());
                prop_assert_eq!(all(tables, chunk_shift), map);
            }
            Err(LoadError::OldTwice { old, new }) => {
                prop_assert!(twice && double.contains(&old));
                let all: Vec<_> = list.iter().filter(|e| e.0 == old).map(|e| e.1).collect();
                prop_assert_eq!(&all[..2], &new);
            }
            Err(other) => prop_assert!(false, "{other:?}"),
        }

        let tried = memory::tried();
        memory::fail(Failing::After(fail));
        let loaded = load(chunk_shift, list).err();
        memory::fail(Failing::Never);
        if memory::tried() - tried <= fail {
            prop_assert!(loaded.is_none() || twice);
        }
        prop_assert_eq!(memory::taken(), taken);
    }
}

/// Each single allocation of a load fails once.
#[test]
fn no_memory() {
    let list = || (0..6000u64).map(|i| (i * 2_654_435_761 % 300_000, i));
    let tried = memory::tried();
    drop(load(0, list()).map_err(|e| panic!("{e:?}")));
    let allocations = memory::tried() - tried;
    let mut failed = 0;
    for n in 0..allocations {
        memory::fail(Failing::After(n));
        match load(0, list()) {
            Err(error) => {
                assert_eq!(error, LoadError::NoMemory);
                failed += 1;
            }
            // Only shrinking an array may fail without harm.
            Ok(tables) => assert_eq!(all(tables, 0).len(), 6000),
        }
        memory::fail(Failing::Never);
    }
    assert!(failed > allocations / 2, "{failed} of {allocations}");
    assert_eq!(memory::taken(), 0);
}

/// What cannot be in a table is refused.
#[test]
fn out_of_range() {
    let mut loader = Loader::new(3).unwrap();
    assert_eq!(loader.add(7, MAX_NEW - 1), Ok(()));
    assert_eq!(
        loader.add(8, MAX_NEW),
        Err(LoadError::NewTooLarge { new: MAX_NEW })
    );
    assert_eq!(
        all(loader.finish().unwrap_or_else(|e| panic!("{e:?}")), 3),
        BTreeMap::from([(7, MAX_NEW - 1)])
    );
}

/// How long this thread was running so far, whatever else the machine does.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("procfs is mounted");
    let nanoseconds = stat.split_whitespace().next().and_then(|n| n.parse().ok());
    Duration::from_nanos(nanoseconds.expect("schedstat starts with a number"))
}

/// Lists made to be slow are not, compared with random ones of the same length.
#[test]
fn hostile_lists_are_linear() {
    const RECORDS: u64 = 500_000;
    let scattered = |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 1;
    let time = |list: &dyn Fn(u64) -> u64, records: u64| {
        let start = cpu_time();
        let result = load(3, (0..records).map(|i| (list(i), i))).map(|_| ());
        (cpu_time() - start, result)
    };
    let one_shard = |i: u64| (i % 64 + ((i / 64) << 12)) << 12;
    assert!((0..RECORDS).all(|i| shard(one_shard(i), 3) == 0));

    let (few, _) = time(&|i| one_shard(scattered(i) % (RECORDS / 8)), RECORDS / 16);
    // One chunk over and over: it is found long before the end.
    let (elapsed, result) = time(&|_| 4711, RECORDS);
    let (old, new) = (4711, [0, 1]);
    assert_eq!(result, Err(LoadError::OldTwice { old, new }));
    assert!(elapsed < few + Duration::from_millis(100), "{elapsed:?}");
    // Regions with one chunk each: upwards, downwards, at random; all in one shard too.
    let lists: [(&str, &dyn Fn(u64) -> u64); 5] = [
        ("up", &|i| i << 12),
        ("down", &|i| (RECORDS - i) << 12),
        ("random", &scattered),
        ("one shard up", &one_shard),
        ("one shard down", &|i| one_shard(RECORDS - i)),
    ];
    for (name, list) in lists {
        let (small, result) = time(list, RECORDS / 16);
        assert_eq!(result, Ok(()));
        let (large, result) = time(list, RECORDS);
        assert_eq!(result, Ok(()));
        eprintln!("{name}: {small:?} for a sixteenth, {large:?} for all");
        // 16 times as long if linear, 256 if quadratic.
        let limit = small.max(Duration::from_millis(5)) * 64;
        assert!(large < limit, "{name}: {small:?}, {large:?}");
    }
}

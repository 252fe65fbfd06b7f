// SPDX-License-Identifier: GPL-2.0-only

//! Whatever the order of the list, dm-snapshot can merge what it was handed over.

use crate::disk::SimDisk;
use crate::large::{image, COW_SECTORS, ORIGIN_SECTORS};
use host_tests::format::{ChunkSize, Exception, Geometry};
use host_tests::platform::Host;
use host_tests::store::metadata::{load, DeviceInfo};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Exceptions whose chunks follow each other on both sides.
struct Run {
    old: u64,
    new: u64,
    count: u64,
}

/// dm-snapshot's table of exceptions: `dm_insert_exception()` and
/// `__remove_single_exception_chunk()` of `drivers/md/dm-snap.c`.
#[derive(Default)]
struct Table {
    buckets: BTreeMap<u64, Vec<Run>>,
}

impl Table {
    fn bucket(&mut self, old: u64) -> &mut Vec<Run> {
        self.buckets.entry(old >> 8).or_default()
    }

    fn insert(&mut self, e: Exception) {
        let bucket = self.bucket(e.old);
        for (place, run) in bucket.iter_mut().enumerate() {
            if (e.old, e.new) == (run.old + run.count, run.new + run.count) {
                run.count += 1;
                return;
            }
            if (e.old + 1, e.new + 1) == (run.old, run.new) {
                *run = Run {
                    old: e.old,
                    new: e.new,
                    count: run.count + 1,
                };
                return;
            }
            if e.old < run.old {
                bucket.insert(place, Run::from(e));
                return;
            }
        }
        bucket.push(Run::from(e));
    }

    /// Whether dm-snapshot would: an exception within a run cannot be removed.
    fn remove(&mut self, old: u64) -> bool {
        let bucket = self.bucket(old);
        let within = |run: &Run| (run.old..run.old + run.count).contains(&old);
        let Some(place) = bucket.iter().position(within) else {
            return false;
        };
        let run = &mut bucket[place];
        if run.count == 1 {
            bucket.remove(place);
        } else if old == run.old {
            *run = Run {
                old: run.old + 1,
                new: run.new + 1,
                count: run.count - 1,
            };
        } else if old == run.old + run.count - 1 {
            run.count -= 1;
        } else {
            return false;
        }
        true
    }
}

impl From<Exception> for Run {
    fn from(e: Exception) -> Self {
        Self {
            old: e.old,
            new: e.new,
            count: 1,
        }
    }
}

/// A list of ascending chunks, in which neighbours then change places.
fn list() -> impl Strategy<Value = Vec<Exception>> {
    let swaps = proptest::collection::vec((any::<prop::sample::Index>(), 1..6usize), 0..40);
    (2..700usize, swaps).prop_map(|(records, swaps)| {
        let chunk = ChunkSize::new(8).unwrap();
        let geometry = Geometry::new(chunk, COW_SECTORS, ORIGIN_SECTORS).unwrap();
        let mut new = Geometry::FIRST_DATA_CHUNK;
        let mut list: Vec<_> = (1000..)
            .take(records)
            .map(|old| {
                let e = Exception { old, new };
                new = geometry.skip_metadata(new + 1);
                e
            })
            .collect();
        for (place, distance) in swaps {
            let place = place.index(records);
            list.swap(place, (place + distance) % records);
        }
        list
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A merge goes from the end of the list to its beginning.
    #[test]
    fn any_list_can_be_merged_from_its_end(list in list()) {
        let chunk = ChunkSize::new(8).unwrap();
        let geometry = Geometry::new(chunk, COW_SECTORS, ORIGIN_SECTORS).unwrap();
        let disk = SimDisk::holding(image(&geometry, &list), COW_SECTORS);
        let info = |sectors| DeviceInfo { sectors, logical_block: 512, physical_block: 512 };
        let mut table = Table::default();
        let add = |e| {
            table.insert(e);
            Ok(())
        };
        let loaded = load::<_, Host>(&disk, info(COW_SECTORS), info(ORIGIN_SECTORS), 0, add);
        prop_assert!(loaded.is_ok());
        for e in list.iter().rev() {
            prop_assert!(table.remove(e.old), "{e:?} is within a run");
        }
    }
}

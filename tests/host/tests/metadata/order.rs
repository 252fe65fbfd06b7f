// SPDX-License-Identifier: GPL-2.0-only

//! Whatever the order of the list, dm-snapshot can merge what it was handed over.

use crate::disk::SimDisk;
use crate::large::{image, COW_SECTORS, ORIGIN_SECTORS};
use crate::table::Table;
use host_tests::format::{ChunkSize, Exception, Geometry};
use host_tests::platform::Host;
use host_tests::store::metadata::{load, DeviceInfo, Ordered};
use proptest::prelude::*;

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
    fn any_list_can_be_merged_from_its_end(list in list(), to_head: bool) {
        let chunk = ChunkSize::new(8).unwrap();
        let geometry = Geometry::new(chunk, COW_SECTORS, ORIGIN_SECTORS).unwrap();
        let disk = SimDisk::holding(image(&geometry, &list), COW_SECTORS);
        let info = |sectors| DeviceInfo { sectors, logical_block: 512, physical_block: 512 };
        let mut table = Table::new(to_head);
        let add = |e| {
            table.insert(e);
            Ok(())
        };
        let (cow, origin) = (info(COW_SECTORS), info(ORIGIN_SECTORS));
        let mut ordered = Ordered::<Host, _>::new(add);
        let loaded = load::<_, Host>(&disk, cow, origin, 0, &mut ordered);
        prop_assert!(loaded.is_ok());
        for e in list.iter().rev() {
            prop_assert!(table.remove(e.old), "{e:?} is within a run");
        }
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! A long list.

use crate::disk::{Image, SimDisk};
use host_tests::format::{ChunkSize, Exception, Geometry, Header};
use host_tests::platform::{Host, Small};
use host_tests::store::metadata::{load, DeviceInfo, Loaded, Ordered};

const RECORDS: u64 = 600_000;
const CHUNK_SECTORS: u32 = 8;
pub const COW_SECTORS: u64 = 1 << 23;
pub const ORIGIN_SECTORS: u64 = 1 << 40;

/// The list, of random old chunks, the extremes among them.
fn list(geometry: &Geometry) -> Vec<Exception> {
    let mut new = Geometry::FIRST_DATA_CHUNK;
    (0..RECORDS)
        .map(|n| {
            let e = Exception {
                old: match n {
                    0 => 0,
                    1 => geometry.origin_chunks() - 1,
                    // An odd factor: no two are equal.
                    _ => n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % geometry.origin_chunks(),
                },
                new,
            };
            new = geometry.skip_metadata(new + 1);
            e
        })
        .collect()
}

pub fn image(geometry: &Geometry, list: &[Exception]) -> Image {
    let mut image = Image::default();
    let header = Header {
        valid: true,
        chunk_sectors: CHUNK_SECTORS,
    };
    let mut sector = [0; 512];
    sector[..Header::BYTES].copy_from_slice(&header.to_bytes());
    image.put(0, sector);
    let per_area = geometry.exceptions_per_area() as usize;
    // the list ends in an area of zeroes where it fills the one before
    let areas = list.chunks(per_area).chain([&[][..]]);
    for (area, records) in (0..).zip(areas) {
        let chunk = geometry.area_chunk(area).unwrap();
        let mut bytes: Vec<u8> = records.iter().flat_map(|e| e.to_bytes()).collect();
        bytes.resize(per_area * Exception::BYTES, 0);
        let first = geometry.chunks(chunk, 1).sector;
        for (at, data) in (first..).zip(bytes.chunks_exact(512)) {
            image.put(at, data.try_into().unwrap());
        }
    }
    image
}

#[test]
fn every_exception_is_handed_over_in_descending_order() {
    let chunk = ChunkSize::new(CHUNK_SECTORS).unwrap();
    let geometry = Geometry::new(chunk, COW_SECTORS, ORIGIN_SECTORS).unwrap();
    let list = list(&geometry);
    let disk = SimDisk::holding(image(&geometry, &list), COW_SECTORS);
    let info = |sectors| DeviceInfo {
        sectors,
        logical_block: 512,
        physical_block: 4096,
    };
    let mut found = Vec::new();
    let add = |e| {
        found.push(e);
        Ok(())
    };
    let (cow, origin) = (info(COW_SECTORS), info(ORIGIN_SECTORS));
    let mut ordered = Ordered::<Host, _>::new(add);
    let loaded = load::<_, Host>(&disk, cow, origin, 0, &mut ordered);
    assert!(matches!(loaded, Ok(Loaded::Valid { list, .. }) if list.records() == RECORDS));

    assert!(found.windows(2).all(|pair| pair[0].old > pair[1].old));

    let sorted = |mut list: Vec<Exception>| {
        list.sort_unstable_by_key(|e| e.new);
        list
    };
    assert_eq!(sorted(found), list);
}

/// What sequential writes leave is kept as runs, so that loading it takes no more memory than
/// dm-snapshot's table of it: here no list may have more than 512 entries.
#[test]
fn long_runs_take_little_memory() {
    let chunk = ChunkSize::new(CHUNK_SECTORS).unwrap();
    let geometry = Geometry::new(chunk, COW_SECTORS, ORIGIN_SECTORS).unwrap();
    let mut new = Geometry::FIRST_DATA_CHUNK;
    let list: Vec<_> = (1000..)
        .take(RECORDS as usize)
        .map(|old| {
            let e = Exception { old, new };
            new = geometry.skip_metadata(new + 1);
            e
        })
        .collect();
    let disk = SimDisk::holding(image(&geometry, &list), COW_SECTORS);
    let info = |sectors| DeviceInfo {
        sectors,
        logical_block: 512,
        physical_block: 4096,
    };
    let mut found = Vec::new();
    let mut ordered = Ordered::<Small<512>, _>::new(|e| {
        found.push(e);
        Ok(())
    });
    let (cow, origin) = (info(COW_SECTORS), info(ORIGIN_SECTORS));
    let loaded = load::<_, Small<512>>(&disk, cow, origin, 0, &mut ordered);
    assert!(
        matches!(loaded, Ok(Loaded::Valid { .. })),
        "{:?}",
        loaded.err()
    );
    found.reverse();
    assert_eq!(found, list);
}

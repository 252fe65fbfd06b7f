// SPDX-License-Identifier: GPL-2.0-only

//! A list too long to be handed over at once.

use crate::disk::{Image, Random, SimDisk};
use host_tests::format::{ChunkSize, Exception, Geometry, Header};
use host_tests::platform::Host;
use host_tests::store::metadata::{load, DeviceInfo, Loaded};

const RECORDS: u64 = 600_000;
const CHUNK_SECTORS: u32 = 8;
pub const COW_SECTORS: u64 = 1 << 23;
pub const ORIGIN_SECTORS: u64 = 1 << 40;

/// The list, of random old chunks, the extremes among them.
fn list(geometry: &Geometry) -> Vec<Exception> {
    let mut random = Random(7);
    let mut new = Geometry::FIRST_DATA_CHUNK;
    (0..RECORDS)
        .map(|n| {
            let e = Exception {
                old: match n {
                    0 => 0,
                    1 => geometry.origin_chunks() - 1,
                    _ => random.next() % geometry.origin_chunks(),
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
fn every_exception_is_handed_over_and_neighbours_together() {
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
    let loaded = load::<_, Host>(&disk, info(COW_SECTORS), info(ORIGIN_SECTORS), 0, add);
    assert!(matches!(loaded, Ok(Loaded::Valid { list, .. }) if list.records() == RECORDS));

    let far =
        |pair: &&[Exception]| pair[0].old.abs_diff(pair[1].old) > geometry.origin_chunks() / 256;
    let jumps = found.windows(2).filter(far).count();
    assert!(jumps < 10, "{jumps} jumps: in the order of the list");

    let sorted = |mut list: Vec<Exception>| {
        list.sort_unstable_by_key(|e| e.new);
        list
    };
    assert_eq!(sorted(found), list);
}

// SPDX-License-Identifier: GPL-2.0-only

//! The on-disk format against the plainest models of it.

use host_tests::format::{
    check_alone, ChunkSize, ChunkSizeFault, CowState, DeviceSize, Exception, Fault, Geometry,
    Header, RecordCheck, Walk, WalkError, Walked, SECTOR_BYTES,
};
use host_tests::platform::{Host, Small};
use proptest::prelude::*;
use std::collections::HashSet;

fn geometry(shift: u32, cow_chunks: u64, origin_chunks: u64) -> Geometry {
    let chunk = ChunkSize::new(1 << shift).unwrap();
    Geometry::new(chunk, cow_chunks << shift, origin_chunks << shift).unwrap()
}

/// Feeds the areas in `image` to a walk.
fn walk(geometry: Geometry, image: &[u8]) -> (Vec<Exception>, Result<Walked, Fault>) {
    let mut walk = Walk::<Host>::new(geometry);
    let mut seen = Vec::new();
    while let Some(extent) = walk
        .next_window()
        .and_then(|window| geometry.window(window))
    {
        let at = (extent.sector * u64::from(SECTOR_BYTES)) as usize;
        let bytes = &image[at..at + (extent.sectors * u64::from(SECTOR_BYTES)) as usize];
        let fed = walk.feed(bytes, |e| {
            seen.push(e);
            Ok::<_, ()>(())
        });
        match fed {
            Ok(()) => {}
            Err(WalkError::Fault(fault)) => return (seen, Err(fault)),
            Err(WalkError::Visit(())) => unreachable!(),
        }
    }
    (seen, walk.finish())
}

/// What a walk must find, read byte by byte.
fn naive(geometry: &Geometry, image: &[u8], chunk: usize) -> Result<Vec<Exception>, ()> {
    let epa = chunk / 16;
    let origin = geometry.origin_chunks();
    let mut seen = Vec::new();
    let mut used = HashSet::new();
    for area in 0.. {
        let start = (1 + area * (epa + 1)) * chunk;
        if start + chunk > image.len() / chunk * chunk {
            return Err(());
        }
        for record in image[start..start + chunk].chunks(16) {
            let old = u64::from_le_bytes(record[..8].try_into().unwrap());
            let new = u64::from_le_bytes(record[8..].try_into().unwrap());
            if new == 0 {
                return Ok(seen);
            }
            let beyond = new >= (image.len() / chunk) as u64 || old >= origin;
            let metadata = (new - 1) % (epa as u64 + 1) == 0;
            if beyond || metadata || !used.insert(new) {
                return Err(());
            }
            seen.push(Exception { old, new });
        }
    }
    unreachable!()
}

proptest! {
    #[test]
    fn records_survive_the_disk(old: u64, new: u64) {
        let e = Exception { old, new };
        let bytes = e.to_bytes();
        prop_assert_eq!(Exception::read(&bytes), e);
        prop_assert_eq!(&bytes[..8], old.to_le_bytes());
        prop_assert_eq!(&bytes[8..], new.to_le_bytes());
        prop_assert_eq!(e.is_empty(), new == 0);
    }

    #[test]
    fn headers_survive_the_disk(valid: bool, chunk_sectors: u32) {
        let header = Header { valid, chunk_sectors };
        prop_assert_eq!(Header::read(&header.to_bytes()), Ok(Some(header)));
    }

    #[test]
    fn any_header_is_read_or_refused(bytes: [u8; 16]) {
        let magic = u32::from_le_bytes(bytes[..4].try_into().unwrap());
        match Header::read(&bytes) {
            Ok(None) => prop_assert_eq!(magic, 0),
            Ok(Some(_)) => prop_assert_eq!((magic, bytes[8]), (Header::MAGIC, 1)),
            Err(fault) => prop_assert!(!fault.to_string().is_empty()),
        }
    }

    #[test]
    fn a_chunk_size_is_a_power_of_two(sectors: u32, shift in 0_u32..32) {
        for sectors in [sectors, 1 << shift] {
            let fits = sectors.is_power_of_two() && sectors <= 1 << 21;
            match ChunkSize::new(sectors) {
                Ok(size) => {
                    prop_assert!(fits);
                    prop_assert_eq!(u64::from(size.bytes()), u64::from(sectors) * 512);
                    prop_assert_eq!(1 << size.shift(), sectors);
                }
                Err(_) => prop_assert!(!fits),
            }
        }
    }

    #[test]
    fn a_chunk_is_whole_blocks(shift in 0_u32..12, cow in 9_u32..16, origin in 9_u32..16) {
        let fault = ChunkSize::for_devices(1 << shift, 1 << cow, 1 << origin).err();
        let expected = if shift + 9 < cow {
            Some(ChunkSizeFault::NotCowBlocks(1 << cow))
        } else if shift + 9 < origin {
            Some(ChunkSizeFault::NotOriginBlocks(1 << origin))
        } else {
            None
        };
        prop_assert_eq!(fault, expected);
    }

    /// A header overrides the table, the table overrides the default, and a dropped snapshot is
    /// not laid out.
    #[test]
    fn a_state_is_decided(
        header in prop::option::of((any::<bool>(), 0_u32..6)),
        table in 0_u32..6,
        block in 9_u32..17,
        cow_sectors in 0_u64..300,
    ) {
        let sizes = [0, 1, 8, 33, 64, 1 << 22];
        let table = sizes[table as usize];
        let header = header.map(|(valid, size)| Header { valid, chunk_sectors: sizes[size as usize] });
        let size = |sectors, block: u32| DeviceSize { sectors, logical_block: 1 << block };
        let state = CowState::new(header, size(cow_sectors, block), size(1 << 20, 9), table);
        let block_sectors = 1 << (block - 9);
        let sectors = match header {
            Some(header) => header.chunk_sectors,
            None if table == 0 => 32.max(block_sectors),
            None => table,
        };
        let fits = [1, 8, 32, 64, 128].contains(&sectors) && sectors % block_sectors == 0;
        let too_small = cow_sectors / u64::from(sectors.max(1)) < 2;
        match state {
            Ok(CowState::New(geometry)) => {
                prop_assert!(header.is_none() && fits && !too_small);
                prop_assert_eq!(geometry.chunk_size().sectors(), sectors);
            }
            Ok(CowState::Valid(geometry)) => {
                prop_assert!(header.unwrap().valid && fits && !too_small);
                prop_assert_eq!(geometry.chunk_size().sectors(), sectors);
            }
            Ok(CowState::Invalid(chunk)) => {
                prop_assert!(!header.unwrap().valid && fits);
                prop_assert_eq!(chunk.sectors(), sectors);
            }
            Err(Fault::ChunkSize(refused, _)) => prop_assert!(header.is_some() && !fits && refused == sectors),
            Err(Fault::TableChunkSize(refused, _)) => prop_assert!(header.is_none() && !fits && refused == sectors),
            Err(fault) => {
                prop_assert!(matches!(fault, Fault::CowTooSmall { .. }), "{}", fault);
                prop_assert!(fits && too_small && header.is_none_or(|header| header.valid));
            }
        }
    }

    /// Every chunk of a device is the header's, an area's or data, and the numbers that lead there
    /// lead back.
    #[test]
    fn chunks_are_told_apart(shift in 0_u32..5, cow_chunks in 2_u64..2000) {
        let geometry = geometry(shift, cow_chunks, 1);
        let epa = 32_u64 << shift;
        let mut areas = 0;
        for chunk in 0..cow_chunks {
            let is_area = chunk > 0 && (chunk - 1) % (epa + 1) == 0;
            prop_assert_eq!(geometry.is_metadata(chunk), chunk == 0 || is_area);
            prop_assert_eq!(geometry.skip_metadata(chunk), chunk + u64::from(chunk == 0 || is_area));
            prop_assert_eq!(geometry.area_at(chunk), is_area.then_some(areas));
            if is_area {
                prop_assert_eq!(geometry.area_chunk(areas), Some(chunk));
                areas += 1;
            }
        }
        prop_assert_eq!(geometry.areas(), areas);
        prop_assert_eq!(geometry.area_chunk(areas), None);
    }

    #[test]
    fn a_record_has_one_place(shift in 0_u32..14, record in 0_u64..1 << 40) {
        let geometry = geometry(shift, 1 << 50, 1);
        let epa = 32_u64 << shift;
        let place = geometry.place(record);
        prop_assert_eq!(place.area * epa + u64::from(place.index), record);
        let chunk = 1 + place.area * (epa + 1);
        prop_assert_eq!(place.byte, (chunk << shift) * 512 + u64::from(place.index) * 16);
        let per_window = u64::from(geometry.records_per_window());
        let extent = geometry.window(record / per_window).unwrap();
        prop_assert_eq!(extent.sector * 512 + record % per_window * 16, place.byte);
        prop_assert!(u64::from(geometry.window_bytes()) == extent.sectors * 512);
    }

    #[test]
    fn no_number_is_too_large(chunk in 0_u32..22, cow: u64, origin: u64, record: u64) {
        let chunk = ChunkSize::new(1 << chunk).unwrap();
        if let Ok(geometry) = Geometry::new(chunk, cow, origin) {
            let _ = (geometry.place(record), geometry.window(record), geometry.area_chunk(record));
            let _ = geometry.resized(record, record).areas();
            let e = Exception { old: origin, new: cow };
            let _ = check_alone(&geometry, record, e).map_err(|fault| fault.to_string());
        } else {
            prop_assert!(cow < 2 * u64::from(chunk.sectors()));
        }
    }

    /// Against a set: exactly the lists without a duplicate pass, in whatever order they come.
    #[test]
    fn duplicates_are_found(list in prop::collection::vec(0_u64..400, 0..60)) {
        let geometry = geometry(0, 350, 10);
        let mut check = RecordCheck::<Host>::new(geometry);
        let mut used = HashSet::new();
        let mut twice = false;
        for (record, new) in (0..).zip(list) {
            let fine = new != 0 && new < 350 && (new - 1) % 33 != 0;
            let checked = check.check(record, Exception { old: 3, new });
            prop_assert_eq!(checked.is_ok(), fine);
            twice |= fine && !used.insert(new);
        }
        let highest = used.iter().max().map_or(2, |new| new + 1);
        prop_assert_eq!(check.next_new(), highest + u64::from((highest - 1) % 33 == 0));
        prop_assert_eq!(check.finish().is_err(), twice);
    }

    /// A record that is the next passes without being looked at alone: it would have passed there.
    #[test]
    fn the_fast_path_skips_nothing(
        shift in 0_u32..2,
        cow_chunks in 2_u64..200,
        origin_chunks in prop_oneof![1_u64..200, Just(0)],
        steps in prop::collection::vec((0_u32..12, 0_u64..210), 0..150),
    ) {
        let geometry = geometry(shift, cow_chunks, origin_chunks);
        let mut check = RecordCheck::<Host>::new(geometry);
        let mut used = HashSet::new();
        let mut next = 2;
        let mut twice = false;
        for (record, (kind, number)) in (0..).zip(steps) {
            let e = match kind {
                0 => Exception { old: 0, new: number },
                1 => Exception { old: number, new: next },
                2 => Exception { old: 0, new: next + 1 },
                3 => Exception { old: 0, new: next - 1 },
                _ => Exception { old: 0, new: next },
            };
            let alone = check_alone(&geometry, record, e);
            prop_assert_eq!(check.check(record, e), alone);
            if alone.is_ok() {
                twice |= !used.insert(e.new);
                next = next.max(geometry.skip_metadata(e.new + 1));
            }
            prop_assert_eq!(check.next_new(), next);
        }
        prop_assert_eq!(check.finish().is_err(), twice);
    }

    #[test]
    fn no_memory_is_a_fault(list in prop::collection::vec(2_u64..30, 0..20)) {
        let geometry = geometry(0, 350, 10);
        let mut check = RecordCheck::<Small<0>>::new(geometry);
        let ascends = list.iter().enumerate().all(|(at, new)| *new == at as u64 + 2);
        let checked: Result<Vec<()>, Fault> = (0..)
            .zip(&list)
            .map(|(record, new)| check.check(record, Exception { old: 3, new: *new }))
            .collect();
        let expected = if ascends { Ok(()) } else { Err(Fault::NoMemory) };
        prop_assert_eq!(checked.map(|_| ()), expected);
    }

    /// A walk finds what a reader finds that knows nothing of windows.
    #[test]
    fn a_walk_reads_the_list(
        shift in 0_u32..3,
        records in 0_usize..200,
        cow_chunks in 2_u64..300,
        damage in prop::collection::vec((any::<prop::sample::Index>(), 0_u64..310, 0_u64..60), 0..3)
    ) {
        let chunk = 512_usize << shift;
        let epa = chunk as u64 / 16;
        let geometry = geometry(shift, cow_chunks, 50);
        let mut image = vec![0; cow_chunks as usize * chunk];
        let data = (2_u64..).filter(|chunk| (chunk - 1) % (epa + 1) != 0);
        let mut list: Vec<Exception> = data
            .take(records)
            .zip(0..)
            .map(|(new, old)| Exception { old: old % 50, new })
            .collect();
        for (at, new, old) in damage {
            if !list.is_empty() {
                let at = at.index(list.len());
                list[at] = Exception { old, new };
            }
        }
        for (record, e) in (0..).zip(list) {
            let at = geometry.place(record).byte as usize;
            if at + 16 <= image.len() {
                image[at..at + 16].copy_from_slice(&e.to_bytes());
            }
        }
        let (seen, walked) = walk(geometry, &image);
        match naive(&geometry, &image, chunk) {
            Ok(expected) => {
                prop_assert_eq!(walked.map(|walked| walked.records), Ok(expected.len() as u64));
                prop_assert_eq!(seen, expected);
            }
            Err(()) => prop_assert!(walked.is_err()),
        }
    }

    #[test]
    fn hostile_areas_do_no_harm(
        shift in 0_u32..3,
        sparse in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..200),
        mut image in prop::collection::vec(any::<u8>(), 1024..40_000),
        dense: bool
    ) {
        if !dense {
            image.fill(0);
        }
        for (at, byte) in sparse {
            let at = at.index(image.len());
            image[at] = byte;
        }
        let chunk = ChunkSize::new(1 << shift).unwrap();
        let sectors = image.len() as u64 / 512;
        if let Ok(geometry) = Geometry::new(chunk, sectors, u64::MAX) {
            let walked = walk(geometry, &image).1.map(|walked| walked.records);
            let expected = naive(&geometry, &image, 512 << shift);
            prop_assert_eq!(walked.ok(), expected.ok().map(|list| list.len() as u64));
        }
    }
}

#[test]
fn what_follows_the_end_is_stale_in_its_area_only() {
    let geometry = geometry(0, 80, 50);
    let mut image = vec![0; 80 * 512];
    let e = Exception { old: 1, new: 2 };
    image[512..528].copy_from_slice(&e.to_bytes());
    // The next area may hold anything.
    image[34 * 512] = 1;
    let walked = walk(geometry, &image).1.unwrap();
    assert_eq!(
        (walked.records, walked.next_new, walked.stale),
        (1, 3, false)
    );
    image[1023] = 1;
    assert!(walk(geometry, &image).1.unwrap().stale);
}

#[test]
fn the_last_chunk_may_lack_its_area() {
    // Chunk 34 would be area 1: with 34 chunks, filling area 0 would leave no place for the end.
    assert!(!geometry(0, 34, 1).can_hold_data(33, 34));
    assert!(geometry(0, 35, 1).can_hold_data(33, 35));
    assert!(geometry(0, 34, 1).can_hold_data(32, 34));
}

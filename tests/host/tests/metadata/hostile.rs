// SPDX-License-Identifier: GPL-2.0-only

//! Lists that were made to cost dm-snapshot's table as much as a list can.

use crate::disk::SimDisk;
use crate::large::{image, COW_SECTORS};
use crate::table::Table;
use host_tests::format::{ChunkSize, Exception, Fault, Geometry};
use host_tests::platform::{allow_steps, steps_left, Host, Stopped};
use host_tests::store::metadata::{load, DeviceInfo, Error, Ordered};

const RECORDS: u64 = 300_000;
const CHUNK_SECTORS: u32 = 8;

/// A number that has nothing to do with `n`, and is another for each.
fn scatter(n: u64) -> u64 {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_right(29)
}

/// `RECORDS` chunks of a COW device, ascending.
fn data_chunks(geometry: &Geometry) -> Vec<u64> {
    let data = (2..).filter(|chunk| !geometry.is_metadata(*chunk));
    data.take(RECORDS as usize).collect()
}

/// Loads a list whose old chunks are made by `old` and whose new chunks come in the order that
/// `arrange` makes; the origin's size is not known. Inserting an exception must not cost more than
/// a look at its neighbours.
fn inserted(
    old: impl Fn(u64) -> u64,
    arrange: impl Fn(&mut [u64]),
    to_head: bool,
) -> Result<(), Error<crate::disk::Failed>> {
    let chunk = ChunkSize::new(CHUNK_SECTORS).unwrap();
    let geometry = Geometry::new(chunk, COW_SECTORS, 0).unwrap();
    let mut new = data_chunks(&geometry);
    arrange(&mut new);
    let olds = (0..RECORDS).map(old);
    let list: Vec<_> = olds
        .zip(new)
        .map(|(old, new)| Exception { old, new })
        .collect();
    let disk = SimDisk::holding(image(&geometry, &list), COW_SECTORS);
    let info = |sectors| DeviceInfo {
        sectors,
        logical_block: 512,
        physical_block: 4096,
    };
    let mut table = Table::new(to_head);
    let add = |e| {
        table.insert(e);
        let most = table.inserted * 256 + 1000;
        assert!(
            table.visited < most,
            "{} for {}",
            table.visited,
            table.inserted
        );
        Ok(())
    };
    let mut ordered = Ordered::<Host, _>::new(add);
    load::<_, Host>(&disk, info(COW_SECTORS), info(0), 0, &mut ordered)?;
    assert_eq!(table.inserted, RECORDS);
    Ok(())
}

/// Old chunks that are all in the same bucket of dm-snapshot's table.
fn of_one_bucket(n: u64) -> u64 {
    (n * Table::BUCKETS) << 8
}

fn as_handed_out(_: &mut [u64]) {}

fn in_no_order(chunks: &mut [u64]) {
    chunks.sort_by_key(|chunk| scatter(*chunk));
}

#[test]
fn old_chunks_of_one_bucket() {
    for to_head in [true, false] {
        inserted(of_one_bucket, as_handed_out, to_head).unwrap();
        inserted(|n| of_one_bucket(RECORDS - n), as_handed_out, to_head).unwrap();
    }
}

#[test]
fn old_chunks_of_one_bucket_in_a_list_out_of_order() {
    for to_head in [true, false] {
        inserted(of_one_bucket, |new| new.reverse(), to_head).unwrap();
        inserted(of_one_bucket, in_no_order, to_head).unwrap();
    }
}

#[test]
fn old_chunks_side_by_side_in_a_list_out_of_order() {
    for to_head in [true, false] {
        inserted(|n| n, |new| new.reverse(), to_head).unwrap();
        inserted(|n| n, in_no_order, to_head).unwrap();
        inserted(|n| n ^ 0xff, in_no_order, to_head).unwrap();
    }
}

#[test]
fn old_chunks_as_far_apart_as_can_be() {
    for to_head in [true, false] {
        inserted(scatter, as_handed_out, to_head).unwrap();
        inserted(scatter, in_no_order, to_head).unwrap();
    }
}

#[test]
fn one_old_chunk_in_all_records() {
    let used_twice = |new| Err(Error::Fault(Fault::OldUsedTwice { old: 5, new }));
    assert_eq!(inserted(|_| 5, as_handed_out, true), used_twice([2, 3]));
    let chunk = ChunkSize::new(CHUNK_SECTORS).unwrap();
    let mut list = data_chunks(&Geometry::new(chunk, COW_SECTORS, 0).unwrap());
    in_no_order(&mut list);
    assert_eq!(
        inserted(|_| 5, in_no_order, true),
        used_twice([list[0], list[1]])
    );
}

/// One record far into the list takes the old chunk of the first.
#[test]
fn an_old_chunk_twice_among_many() {
    let far = RECORDS - 7;
    for arrange in [as_handed_out, in_no_order] {
        for old in [|n| n, scatter, of_one_bucket] {
            let twice = |n| old(if n == far { 1 } else { n });
            let fault = inserted(twice, arrange, true);
            assert!(
                matches!(fault, Err(Error::Fault(Fault::OldUsedTwice { old: twice, .. })) if twice == old(1)),
                "{fault:?}"
            );
        }
    }
}

#[test]
fn a_load_can_be_interrupted() {
    let chunk = ChunkSize::new(CHUNK_SECTORS).unwrap();
    let geometry = Geometry::new(chunk, COW_SECTORS, 0).unwrap();
    let new = data_chunks(&geometry).into_iter().take(5000);
    let list: Vec<_> = (0..)
        .zip(new)
        .map(|(n, new)| Exception {
            old: scatter(n),
            new,
        })
        .collect();
    let disk = SimDisk::holding(image(&geometry, &list), COW_SECTORS);
    let info = |sectors| DeviceInfo {
        sectors,
        logical_block: 512,
        physical_block: 512,
    };
    let load = |steps| {
        allow_steps(steps);
        let mut ordered = Ordered::<Stopped, _>::new(|_| Ok(()));
        load::<_, Stopped>(&disk, info(COW_SECTORS), info(0), 0, &mut ordered).map(|_| ())
    };
    load(u64::MAX).unwrap();
    let steps = u64::MAX - steps_left();
    // windows, pages to be sorted, pages to be handed over
    assert!(steps > 5000 / 256 * 3, "{steps}");
    for steps in 0..steps {
        assert_eq!(
            load(steps),
            Err(Error::Fault(Fault::Interrupted)),
            "after {steps} steps"
        );
    }
}

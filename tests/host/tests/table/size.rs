// SPDX-License-Identifier: GPL-2.0-only

//! How much memory exceptions take.

use host_tests::memory::{self, When};
use host_tests::snapshot::core::table::{shard, Loader, Table, Tables, SHARDS};

/// A permutation of the numbers below 2^`bits`.
fn shuffled(i: u64, bits: u32) -> u64 {
    let mask = (1 << bits) - 1;
    let half = bits / 2;
    let mut x = i & mask;
    for round in 1..4u64 {
        x = x.wrapping_mul(0x9e37_79b9_7f4a_7c15 | round) & mask;
        x ^= x >> half;
    }
    x
}

fn bytes(mut tables: Tables) -> (usize, u64) {
    let tables: Vec<Table> = (0..SHARDS).map(|shard| tables.take(shard)).collect();
    (
        tables.iter().map(Table::bytes).sum(),
        tables.iter().map(Table::chunks).sum(),
    )
}

/// A sixth of the chunks, in random order, loaded from a list.
#[test]
fn random_list() {
    const EXCEPTIONS: u64 = 1_250_000;
    memory::reset_peak();
    let mut loader = Loader::new(3).unwrap();
    for i in 0..EXCEPTIONS {
        loader.add(shuffled(i, 23), i).unwrap();
    }
    let (bytes, chunks) = bytes(loader.finish().unwrap_or_else(|e| panic!("{e:?}")));
    assert_eq!(chunks, EXCEPTIONS);
    let each = bytes as f64 / chunks as f64;
    let peak = memory::peak() as f64 / bytes as f64;
    eprintln!("{each:.2} bytes an exception, {peak:.2} times that at the peak");
    assert!(each <= 12.0 && peak <= 1.5, "{each}, {peak}");
}

/// The same, inserted.
#[test]
fn random_insertions() {
    const EXCEPTIONS: u64 = 1_250_000;
    let mut tables: Vec<Table> = (0..SHARDS)
        .map(|_| Table::new(Table::region_shift(3)))
        .collect();
    for i in 0..EXCEPTIONS {
        let old = shuffled(i, 23);
        let table = &mut tables[shard(old, 3)];
        table.reserve(old, When::Atomic).unwrap();
        table.insert(old, i, 1).unwrap();
    }
    let bytes: usize = tables.iter().map(Table::bytes).sum();
    let each = bytes as f64 / EXCEPTIONS as f64;
    eprintln!("{each:.2} bytes an exception");
    assert!(each <= 16.0, "{each}");
}

/// One exception in each region, whether it was inserted or loaded.
#[test]
fn sparse_regions() {
    const REGIONS: u64 = 100_000;
    let mut loader = Loader::new(3).unwrap();
    let mut table = Table::new(12);
    for i in 0..REGIONS {
        let old = shuffled(i, 30) << 12;
        loader.add(old, i).unwrap();
        table.reserve(old, When::Atomic).unwrap();
        table.insert(old, i, 1).unwrap();
    }
    let inserted = table.bytes() as f64 / REGIONS as f64;
    let (bytes, _) = bytes(loader.finish().unwrap_or_else(|e| panic!("{e:?}")));
    let loaded = bytes as f64 / REGIONS as f64;
    eprintln!("{loaded:.1} bytes a region loaded, {inserted:.1} inserted");
    assert!(loaded <= 400.0 && inserted <= 400.0);
}

/// What is copied in sequence costs nothing, in the order of a list, upwards and downwards.
#[test]
fn sequential() {
    for down in [false, true] {
        let mut table = Table::new(12);
        for i in 0..1 << 20 {
            let old = if down { (1 << 20) - 1 - i } else { i };
            table.reserve(old, When::Atomic).unwrap();
            table.insert(old, old + 7, 1).unwrap();
        }
        assert_eq!(table.iter().count(), 256);
        assert!(table.bytes() <= 256 * 400, "{}", table.bytes());
    }
}

/// Many reservations at once, which then end, leave no more than others.
#[test]
fn many_reservations() {
    let mut table = Table::new(12);
    for region in 0..100u64 {
        for _ in 0..2048 {
            table.reserve(region << 12, When::Atomic).unwrap();
        }
        table.insert(region << 12, region, 1).unwrap();
        for _ in 1..2048 {
            table.release(region << 12);
        }
    }
    assert!(table.bytes() <= 100 * 400 + 4096, "{}", table.bytes());
}

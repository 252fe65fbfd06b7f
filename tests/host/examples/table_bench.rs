// SPDX-License-Identifier: GPL-2.0-only

//! How fast and how large tables are: `cargo run --release --example table_bench [MILLIONS]`.

use host_tests::memory::{self, When};
use host_tests::snapshot::core::table::{shard, Found, Loader, Table, Tables, SHARDS};
use std::hint::black_box;
use std::time::Instant;

const CHUNK_SHIFT: u32 = 3;

/// A multiplication and a shift: the same numbers everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        (mixed ^ (mixed >> 32)) % end
    }
}

/// `count` different chunks below `end`, in random order.
fn scattered(count: u64, end: u64) -> Vec<u64> {
    let mut random = Random(1);
    let mut seen = vec![0u64; end.div_ceil(64) as usize];
    let mut chunks = Vec::with_capacity(count as usize);
    while (chunks.len() as u64) < count {
        let chunk = random.below(end);
        let word = &mut seen[(chunk / 64) as usize];
        if *word & (1 << (chunk % 64)) == 0 {
            *word |= 1 << (chunk % 64);
            chunks.push(chunk);
        }
    }
    chunks
}

fn load(name: &str, list: impl Iterator<Item = u64>) -> Option<Vec<Table>> {
    memory::reset_peak();
    let before = memory::taken();
    let start = Instant::now();
    let mut loader = Loader::new(CHUNK_SHIFT).ok()?;
    let mut records = 0;
    for (old, new) in list.zip(0..) {
        records += 1;
        if let Err(error) = loader.add(old, new) {
            let time = start.elapsed().as_secs_f64();
            println!("{name}: {error:?} after {records} records, {time:.3} s");
            return None;
        }
    }
    let added = start.elapsed().as_secs_f64();
    let mut tables: Tables = loader
        .finish()
        .map_err(|e| println!("{name}: {e:?}"))
        .ok()?;
    let all = start.elapsed().as_secs_f64();
    let bytes = memory::taken() - before;
    println!(
        "{name}: {records} records in {all:.3} s (add {added:.3} s), {:.2} bytes each, peak {:.2}",
        bytes as f64 / records as f64,
        (memory::peak() - before) as f64 / bytes as f64,
    );
    Some((0..SHARDS).map(|shard| tables.take(shard)).collect())
}

fn find(name: &str, tables: &[Table], count: u64, mut old: impl FnMut() -> u64) {
    let start = Instant::now();
    let mut found = 0u64;
    for _ in 0..count {
        let old = old();
        if let Found::Run { .. } = black_box(tables[shard(old, CHUNK_SHIFT)].find(old)) {
            found += 1;
        }
    }
    let time = start.elapsed().as_nanos() as f64 / count as f64;
    println!("find {name}: {time:.1} ns, {found} of {count} found");
}

fn main() {
    let millions = std::env::args().nth(1).and_then(|n| n.parse().ok());
    let count = millions.unwrap_or(10) * 1_000_000u64;
    let end = count * 64 / 10;

    let chunks = scattered(count, end);
    if let Some(tables) = load("random", chunks.iter().copied()) {
        let mut random = Random(2);
        find("cold", &tables, 2_000_000, || random.below(end));
        let mut random = Random(3);
        find("hot", &tables, 10_000_000, || random.below(4096 * 4));
        let start = Instant::now();
        drop(tables);
        println!("drop: {:.3} s", start.elapsed().as_secs_f64());
    }

    let mut tables: Vec<Table> = (0..SHARDS)
        .map(|_| Table::new(Table::region_shift(CHUNK_SHIFT)))
        .collect();
    let start = Instant::now();
    for (old, new) in chunks.iter().copied().zip(0..) {
        let table = &mut tables[shard(old, CHUNK_SHIFT)];
        if table.reserve(old, When::Atomic).is_err() || table.insert(old, new, 1).is_err() {
            println!("insertion failed at {old}");
        }
    }
    println!(
        "reserve and insert, random: {:.1} ns, {:.2} bytes each",
        start.elapsed().as_nanos() as f64 / count as f64,
        tables.iter().map(Table::bytes).sum::<usize>() as f64 / count as f64,
    );
    let start = Instant::now();
    for old in &chunks {
        if !tables[shard(*old, CHUNK_SHIFT)].remove(*old, 1) {
            println!("{old} is not there");
        }
    }
    println!(
        "remove, random: {:.1} ns",
        start.elapsed().as_nanos() as f64 / count as f64
    );
    drop((tables, chunks));

    load("sequential", 0..count);
    load("sequential, every second", (0..count).map(|i| i * 2));
    load("one chunk over and over", (0..count).map(|_| 1));
    load("a region each, upwards", (0..count).map(|i| i << 12));
    load(
        "a region each, downwards",
        (0..count).rev().map(|i| i << 12),
    );
    load(
        "a region each, at random",
        (0..count).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 1),
    );
    // 64 regions of each 64th span
    load(
        "a region each, one shard, at random",
        (0..count)
            .map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24)
            .map(|i| (i % 64 + ((i / 64) << 12)) << 12),
    );
}

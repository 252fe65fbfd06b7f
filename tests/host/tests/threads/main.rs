// SPDX-License-Identifier: GPL-2.0-only

//! Threads that write an origin and read its snapshots, with a lock for each shard as in the kernel,
//! in schedules that shuttle chooses: also between one atomic access and the next, which the
//! simulation knows as one step.
//!
//! What must hold: a snapshot reads as the origin was when it was made; a sector of the origin is
//! overwritten only if each snapshot has recorded it; and every write ends.

// The core is compiled once more, over shuttle's atomics.
#![allow(dead_code, unused_imports)]

mod atomic {
    pub use shuttle::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
}
#[path = "../../../../src/format/mod.rs"]
mod format;
#[path = "../../src/memory.rs"]
mod memory;
#[path = "../../../../src/snapshot/core/mod.rs"]
mod snapshot_core;
mod world;

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};
use std::sync::Arc;
use world::{World, SECTORS};

/// Two threads write, each its own sectors but those of the same chunks, and two read.
fn episode() {
    let world = Arc::new(World::new());
    let writers = (0..2u64).map(|writer| {
        let world = world.clone();
        shuttle::thread::spawn(move || {
            for sector in (writer..SECTORS).step_by(2) {
                world.write(sector, 100 + sector);
            }
        })
    });
    let readers = (0..2).map(|reader| {
        let world = world.clone();
        shuttle::thread::spawn(move || {
            for sector in 0..SECTORS {
                world.read((reader + sector as usize) % world.snapshots(), sector);
            }
        })
    });
    let threads: Vec<_> = writers.chain(readers).collect();
    for thread in threads {
        thread.join().unwrap();
    }
    world.verify();
}

#[test]
fn at_random() {
    Runner::new(RandomScheduler::new(20_000), Config::new()).run(episode);
}

/// Some orders of threads, each with few changes of whose turn it is: what needs a thread to be left
/// behind for long is found so.
#[test]
fn with_few_changes() {
    Runner::new(PctScheduler::new(3, 10_000), Config::new()).run(episode);
}

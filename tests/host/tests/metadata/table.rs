// SPDX-License-Identifier: GPL-2.0-only

//! dm-snapshot's table of exceptions: `dm_insert_exception()` and
//! `__remove_single_exception_chunk()` of `drivers/md/dm-snap.c`.

use host_tests::format::Exception;
use std::collections::{HashMap, VecDeque};

/// Exceptions whose chunks follow each other on both sides.
#[derive(Clone, Copy)]
struct Run {
    old: u64,
    new: u64,
    count: u64,
}

/// The table, which counts what its insertions cost.
pub struct Table {
    /// Whether an exception above all in its bucket is put before them, as Linux 7.3 does, or after
    /// them, as kernels before did.
    to_head: bool,
    buckets: HashMap<u64, VecDeque<Run>>,
    /// How many exceptions were inserted.
    pub inserted: u64,
    /// How many runs were looked at for that.
    pub visited: u64,
}

impl Table {
    /// The most buckets that dm-snapshot has.
    pub const BUCKETS: u64 = 1 << 17;

    pub fn new(to_head: bool) -> Self {
        Self {
            to_head,
            buckets: HashMap::new(),
            inserted: 0,
            visited: 0,
        }
    }

    fn bucket(&mut self, old: u64) -> &mut VecDeque<Run> {
        self.buckets.entry((old >> 8) % Self::BUCKETS).or_default()
    }

    pub fn insert(&mut self, e: Exception) {
        self.inserted += 1;
        let to_head = self.to_head;
        let mut visited = 0;
        let bucket = self.bucket(e.old);
        let mut place = if to_head { 0 } else { bucket.len() };
        let mut joined = false;
        for (at, run) in bucket.iter_mut().enumerate() {
            visited += 1;
            if (e.old, e.new) == (run.old + run.count, run.new + run.count) {
                run.count += 1;
                joined = true;
                break;
            }
            if (e.old + 1, e.new + 1) == (run.old, run.new) {
                *run = Run {
                    count: run.count + 1,
                    ..Run::from(e)
                };
                joined = true;
                break;
            }
            if e.old < run.old {
                place = at;
                break;
            }
        }
        if !joined {
            bucket.insert(place, Run::from(e));
        }
        self.visited += visited;
    }

    /// Whether dm-snapshot would: an exception within a run cannot be removed.
    pub fn remove(&mut self, old: u64) -> bool {
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

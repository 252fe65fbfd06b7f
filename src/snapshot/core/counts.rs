// SPDX-License-Identifier: GPL-2.0-only

//! What was done, counted. Each shard counts for itself, under its lock: nothing is shared.

/// Buckets of a [`Histogram`].
const BUCKETS: usize = 24;

/// How long things took: how many took less than 1, 2, 4, … microseconds, each counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram([u64; BUCKETS]);

impl Histogram {
    /// Counts what took so many nanoseconds. What took longer than all buckets is in the last one.
    pub fn note(&mut self, nanoseconds: u64) {
        let microseconds = nanoseconds / 1000;
        // CAST: At most 64.
        let bits = (u64::BITS - microseconds.leading_zeros()) as usize;
        if let Some(bucket) = self.0.get_mut(bits.min(BUCKETS - 1)) {
            *bucket += 1;
        }
    }

    fn add(&mut self, other: &Self) {
        for (bucket, more) in self.0.iter_mut().zip(&other.0) {
            *bucket += more;
        }
    }

    /// All buckets that are not empty: less than how many microseconds, and how many; `None` for the
    /// last one, which has no bound.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> + '_ {
        let bound = |n: usize| (n + 1 < BUCKETS).then_some(1 << n);
        let buckets = self.0.iter().enumerate();
        buckets
            .filter(|(_, count)| **count != 0)
            .map(move |(n, count)| (bound(n), *count))
    }
}

/// What was done for an origin, by requests and not by sectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OriginCounts {
    /// Writes that went to the origin, which had no need of a copy, or had waited for it.
    pub writes_passed: u64,
    /// Writes that began to wait for a copy: each time.
    pub writes_waited: u64,
    /// Copies, each of which one read of the origin serves.
    pub copies: u64,
    /// The sectors of them.
    pub copied_sectors: u64,
    /// Those that were not read, since the same were read for a copy with another chunk size.
    pub together: u64,
    /// Sectors that were copied ahead of one who writes in sequence.
    pub ahead: u64,
    /// Those that were written then.
    pub ahead_used: u64,
    /// Those that were not, when the writer was forgotten.
    pub ahead_unused: u64,
}

impl OriginCounts {
    /// Adds what another shard counted.
    pub fn add(&mut self, other: &Self) {
        self.writes_passed += other.writes_passed;
        self.writes_waited += other.writes_waited;
        self.copies += other.copies;
        self.copied_sectors += other.copied_sectors;
        self.together += other.together;
        self.ahead += other.ahead;
        self.ahead_used += other.ahead_used;
        self.ahead_unused += other.ahead_unused;
    }
}

/// What was done for a snapshot, by requests and not by sectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotCounts {
    /// Reads that went to the COW device.
    pub reads_cow: u64,
    /// Reads that went to the origin.
    pub reads_origin: u64,
    /// Writes to chunks that were on the COW device.
    pub writes_cow: u64,
    /// Writes of whole chunks that became exceptions without a copy.
    pub writes_whole: u64,
    /// Writes that began to wait for a copy: each time.
    pub writes_waited: u64,
    /// Those of them that were put into the copy before it was written.
    pub writes_overlaid: u64,
    /// Copies that it had a part in.
    pub copies: u64,
    /// Those of them that another snapshot had begun, so that nothing was read.
    pub copies_shared: u64,
    /// The chunks of its copies.
    pub copied_chunks: u64,
    /// From the beginning of copies, and of writes of whole chunks, to when those that waited for them
    /// went on.
    pub waits: Histogram,
}

impl SnapshotCounts {
    /// Adds what another shard counted.
    pub fn add(&mut self, other: &Self) {
        self.reads_cow += other.reads_cow;
        self.reads_origin += other.reads_origin;
        self.writes_cow += other.writes_cow;
        self.writes_whole += other.writes_whole;
        self.writes_waited += other.writes_waited;
        self.writes_overlaid += other.writes_overlaid;
        self.copies += other.copies;
        self.copies_shared += other.copies_shared;
        self.copied_chunks += other.copied_chunks;
        self.waits.add(&other.waits);
    }
}

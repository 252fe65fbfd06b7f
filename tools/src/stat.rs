// SPDX-License-Identifier: GPL-2.0-only

//! How a COW device is used.

use crate::cow::Cow;
use crate::error::Result;
use crate::format::{ChunkSize, Geometry, Header};
use crate::growable::push;
use crate::run::{Run, Runs};
use crate::sizing::Need;

/// Sizes and shares of a COW device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The header as found.
    pub header: Header,
    /// Chunks on the device.
    pub chunks: u64,
    /// Records in the list.
    pub records: u64,
    /// Chunks in use from the start of the device: header, areas begun, data, holes.
    pub used_chunks: u64,
    /// Chunks of these that hold metadata.
    pub metadata_chunks: u64,
    /// Runs that the records form.
    pub runs: u64,
    /// How many runs have a length of 1, 2 to 3, 4 to 7, …
    pub run_lengths: Vec<u64>,
    /// What other chunk sizes would have cost, this one first.
    pub sizes: Vec<Size>,
}

/// What a chunk size would have cost for the same writes to the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Sectors in a chunk.
    pub chunk_sectors: u32,
    /// Chunks that would have been copied.
    pub chunks: u64,
    /// Sectors of data and metadata.
    pub sectors: u64,
}

impl Stat {
    /// What of it is used.
    pub fn usage(&self) -> Usage {
        let chunk_size = u64::from(self.header.chunk_sectors);
        Usage {
            chunk_size,
            total: self.chunks * chunk_size,
            used: self.used_chunks * chunk_size,
            metadata: self.metadata_chunks * chunk_size,
        }
    }

    /// The largest chunk size that takes at most a tenth more space than the present one.
    ///
    /// Larger chunks mean fewer copies and fewer records. What smaller chunks would cost cannot be
    /// known: the records do not tell which part of a chunk was written.
    pub fn advice(&self) -> u32 {
        let now = self.sizes.first().map_or(0, |size| size.sectors);
        let fits = self
            .sizes
            .iter()
            .rev()
            .find(|size| size.sectors <= now + now / 10);
        fits.map_or(self.header.chunk_sectors, |size| size.chunk_sectors)
    }
}

/// How many chunk sizes are looked at.
const SIZES: usize = 9;

/// Measures the COW device `cow`; its list is checked as the kernel checks it.
pub fn stat(cow: &Cow) -> Result<Stat> {
    let layout = cow.snapshot()?;
    let geometry = layout.geometry;
    let mut found = Vec::new();
    let mut runs = Runs::default();
    let walked = cow.walk(geometry, |_, e| {
        runs.push(e).map_or(Ok(()), |run| push(&mut found, run))
    })?;
    runs.finish().map_or(Ok(()), |run| push(&mut found, run))?;
    let mut run_lengths = Vec::new();
    for run in &found {
        let class = run.length.ilog2() as usize;
        if run_lengths.len() <= class {
            run_lengths.resize(class + 1, 0);
        }
        run_lengths[class] += 1;
    }
    let runs = found.len() as u64;
    found.sort_unstable_by_key(|run| run.old);
    Ok(Stat {
        header: layout.header,
        chunks: geometry.cow_chunks(),
        records: walked.records,
        used_chunks: walked.next_new.min(geometry.cow_chunks()),
        metadata_chunks: geometry.area_of(walked.records) + 2,
        runs,
        run_lengths,
        sizes: sizes(&geometry, &found),
    })
}

/// What chunk sizes from the present one on would have cost; `runs` ascend by old chunk.
fn sizes(geometry: &Geometry, runs: &[Run]) -> Vec<Size> {
    let now = geometry.chunk_size().sectors();
    let larger = (0..SIZES).map_while(|shift| {
        let chunk = ChunkSize::new(now.checked_shl(shift as u32)?).ok()?;
        let mut chunks = 0;
        // One more than the last large chunk counted.
        let mut counted = 0;
        for run in runs {
            let first = (run.old >> shift).max(counted);
            let end = ((run.old + (run.length - 1)) >> shift).saturating_add(1);
            chunks += end.saturating_sub(first);
            counted = counted.max(end);
        }
        Some(Size {
            chunk_sectors: chunk.sectors(),
            chunks,
            sectors: Need::new(chunk, chunks).ok()?.total(),
        })
    });
    larger.collect()
}

/// How much of a COW device is used, in sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Sectors in a chunk; 0 if unknown.
    pub chunk_size: u64,
    /// The COW device.
    pub total: u64,
    /// In use, metadata included.
    pub used: u64,
    /// What holds metadata.
    pub metadata: u64,
}

impl Usage {
    /// What is left.
    pub fn free(&self) -> u64 {
        self.total.saturating_sub(self.used)
    }
}

/// An active snapshot, asked of device-mapper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Live {
    /// It works.
    Active(Usage),
    /// The target says that it is something else: Invalid, Overflow, Merge failed, …
    Other(String),
}

impl Live {
    /// Reads a snapshot target's status and table lines.
    pub fn parse(status: &str, table: &str) -> Self {
        let active = || {
            let (usage, metadata) = status.trim().split_once(' ')?;
            let (used, total) = usage.split_once('/')?;
            // ORIGIN COW P CHUNKSIZE
            let chunk = table.split_ascii_whitespace().nth(3);
            Some(Self::Active(Usage {
                chunk_size: chunk.and_then(|chunk| chunk.parse().ok()).unwrap_or(0),
                total: total.parse().ok()?,
                used: used.parse().ok()?,
                metadata: metadata.trim().parse().ok()?,
            }))
        };
        active().unwrap_or_else(|| Self::Other(status.trim().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_larger_chunks() {
        let chunk = ChunkSize::new(8).unwrap();
        let geometry = Geometry::new(chunk, 1 << 20, 1 << 20).unwrap();
        let run = |old, length| Run {
            old,
            new: 2,
            length,
        };
        let sizes = sizes(&geometry, &[run(0, 1), run(1, 1), run(3, 6), run(100, 1)]);
        let chunks: Vec<u64> = sizes.iter().map(|size| size.chunks).collect();
        // Of two chunks: 0, 1 (3 is its half), 2, 3, 4, 50; of four: 0, 1, 2, 25; …
        assert_eq!(chunks, [9, 6, 4, 3, 2, 2, 2, 1, 1]);
        assert_eq!(sizes[0].chunk_sectors, 8);
    }

    #[test]
    fn reads_status_lines() {
        assert_eq!(
            Live::parse("7808/16777216 32", "254:1 254:2 P 8"),
            Live::Active(Usage {
                chunk_size: 8,
                total: 16_777_216,
                used: 7808,
                metadata: 32,
            })
        );
        for other in [
            "Invalid",
            "Overflow",
            "Merge failed",
            "Unknown",
            "a/b 1",
            "1/2",
        ] {
            assert_eq!(
                Live::parse(other, "254:1 254:2 P 8"),
                Live::Other(other.into())
            );
        }
    }
}

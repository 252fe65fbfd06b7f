// SPDX-License-Identifier: GPL-2.0-only

//! What a snapshot reads as: the origin, with the chunks that the COW device keeps in its place.

use crate::cow::{Cow, Layout};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::format::{Geometry, SECTOR_BYTES};
use crate::growable::push;
use crate::run::{Run, Runs};
use std::ops::Range;
use std::sync::Arc;

/// The runs of a COW device in the order of the origin; no old chunk is in two of them.
#[derive(Clone, Debug, Default)]
pub struct Map {
    runs: Vec<Run>,
    records: u64,
}

impl Map {
    /// Reads the list of `cow`.
    ///
    /// A list that the kernel would refuse is an error, and so is one that names an old chunk
    /// twice: it was damaged, and snap_repair knows what to do about it.
    pub fn load(cow: &Cow, geometry: Geometry) -> Result<Self> {
        let mut map = Self::default();
        let mut runs = Runs::default();
        let walked = cow.walk(geometry, |_, e| {
            runs.push(e).map_or(Ok(()), |run| push(&mut map.runs, run))
        })?;
        runs.finish()
            .map_or(Ok(()), |run| push(&mut map.runs, run))?;
        map.records = walked.records;
        map.runs.sort_unstable_by_key(|run| run.old);
        let overlap = map
            .runs
            .windows(2)
            .find(|pair| pair[0].old + pair[0].length > pair[1].old);
        match overlap {
            None => Ok(map),
            Some(pair) => Err(Self::twice(cow, pair[1].old)),
        }
    }

    /// The error for an old chunk that two records name.
    pub fn twice(cow: &Cow, old: u64) -> Error {
        Error::Refused(format!(
            "{}: old chunk {old} is named by two records; snap_repair makes a COW device without \
             the later one",
            cow.device().path().display()
        ))
    }

    /// The runs, ascending by old chunk.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// How many records there are.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// One more than the highest old chunk.
    pub fn old_end(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.old + run.length)
    }

    /// The runs and parts of runs whose old chunks lie in `range`.
    pub fn within(&self, range: Range<u64>) -> impl Iterator<Item = Run> + '_ {
        let first = self
            .runs
            .partition_point(|run| run.old + run.length <= range.start);
        let after = self.runs[first..].iter().take_while({
            let end = range.end;
            move |run| run.old < end
        });
        after.map(move |run| {
            let old = run.old.max(range.start);
            Run {
                old,
                new: run.new + (old - run.old),
                length: (run.old + run.length).min(range.end) - old,
            }
        })
    }
}

/// Refuses a snapshot marked invalid, unless the user takes the risk.
pub fn refuse_invalid(cow: &Cow, layout: &Layout, trust_invalid: bool) -> Result<()> {
    if layout.header.valid || trust_invalid {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "{}: the snapshot is marked invalid: chunks of the origin may have been overwritten \
         without being kept; give --trust-invalid to use it all the same",
        cow.device().path().display()
    )))
}

/// A snapshot that can be read.
pub struct Snapshot {
    cow: Cow,
    /// `None` where only what the COW device holds is wanted.
    origin: Option<Arc<Device>>,
    map: Map,
    chunk_bytes: u64,
    bytes: u64,
}

impl Snapshot {
    /// The snapshot of `origin` that `cow` keeps.
    ///
    /// Without an origin, what the COW device does not hold reads as zero, and the snapshot is
    /// `sectors` long, or ends with the last chunk held.
    pub fn new(
        cow: Cow,
        origin: Option<Arc<Device>>,
        sectors: Option<u64>,
        trust_invalid: bool,
    ) -> Result<Self> {
        let layout = cow.snapshot()?;
        refuse_invalid(&cow, &layout, trust_invalid)?;
        if origin
            .as_ref()
            .is_some_and(|origin| origin.is_same(cow.device()))
        {
            return Err(Error::Refused(format!(
                "{}: it cannot be both the origin and the COW device",
                cow.device().path().display()
            )));
        }
        let map = Map::load(&cow, layout.geometry)?;
        let chunk_bytes = u64::from(layout.geometry.chunk_size().bytes());
        let bytes = match (&origin, sectors) {
            (Some(origin), _) => Some(origin.bytes()),
            (None, Some(sectors)) => sectors.checked_mul(SECTOR_BYTES.into()),
            (None, None) => map.old_end().checked_mul(chunk_bytes),
        };
        let bytes = bytes.filter(|bytes| i64::try_from(*bytes).is_ok());
        Ok(Self {
            bytes: bytes.ok_or_else(|| {
                Error::Refused("the snapshot is too large for any file; give --origin-size".into())
            })?,
            cow,
            origin,
            map,
            chunk_bytes,
        })
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes in a chunk.
    pub fn chunk_bytes(&self) -> u64 {
        self.chunk_bytes
    }

    /// The COW device.
    pub fn cow(&self) -> &Cow {
        &self.cow
    }

    /// The origin, where there is one.
    pub fn origin(&self) -> Option<&Device> {
        self.origin.as_deref()
    }

    /// The devices it is read from.
    pub fn inputs(&self) -> impl Iterator<Item = &Device> {
        [Some(self.cow.device()), self.origin()]
            .into_iter()
            .flatten()
    }

    /// Refuses a snapshot whose devices were written since they were opened, as far as that is told;
    /// `left` says what became of what was made of it.
    pub fn refuse_written(&self, left: &str) -> Result<()> {
        self.inputs()
            .try_for_each(|device| device.refuse_written(left))
    }

    /// What the COW device keeps.
    pub fn map(&self) -> &Map {
        &self.map
    }

    /// Fills `buf` with what the snapshot holds from byte `offset` on.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset + buf.len() as u64;
        let chunks = offset / self.chunk_bytes..end.div_ceil(self.chunk_bytes);
        let mut done = offset;
        for run in self.map.within(chunks) {
            let first = (run.old * self.chunk_bytes).max(offset);
            let last = ((run.old + run.length) * self.chunk_bytes).min(end);
            self.read_origin(slice(buf, offset, done..first), done)?;
            let in_cow = run.new * self.chunk_bytes + (first - run.old * self.chunk_bytes);
            self.cow
                .device()
                .read_at(slice(buf, offset, first..last), in_cow)?;
            done = last;
        }
        self.read_origin(slice(buf, offset, done..end), done)
    }

    fn read_origin(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        match &self.origin {
            _ if buf.is_empty() => Ok(()),
            Some(origin) => origin.read_at(buf, offset),
            None => {
                buf.fill(0);
                Ok(())
            }
        }
    }
}

/// The bytes `range` of a device in `buf`, whose first byte is byte `offset` of the device.
fn slice(buf: &mut [u8], offset: u64, range: Range<u64>) -> &mut [u8] {
    &mut buf[(range.start - offset) as usize..(range.end - offset) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_runs_to_a_range() {
        let run = |old, new, length| Run { old, new, length };
        let map = Map {
            runs: vec![run(2, 10, 3), run(7, 2, 1), run(8, 20, 10)],
            records: 14,
        };
        let within = |range| map.within(range).collect::<Vec<_>>();
        assert_eq!(within(0..2), []);
        assert_eq!(within(0..3), [run(2, 10, 1)]);
        assert_eq!(within(3..4), [run(3, 11, 1)]);
        assert_eq!(within(4..10), [run(4, 12, 1), run(7, 2, 1), run(8, 20, 2)]);
        assert_eq!(within(18..90), []);
    }
}

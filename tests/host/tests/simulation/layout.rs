// SPDX-License-Identifier: GPL-2.0-only

//! The parts of a large origin that are used.

use crate::rng::Rng;
use host_tests::snapshot::core::{span_end, SHARDS, SPAN_SHIFT};

/// The largest chunk: windows begin with one.
const ALIGN: u64 = 16;

/// Sectors of the origin that are used, and their indices.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The first sector, how many, and the index of the first.
    windows: Vec<(u64, u64, usize)>,
}

impl Layout {
    /// A few windows at places where something begins or ends.
    pub fn random(rng: &mut Rng) -> Self {
        let places = [
            // Regions of the table, by chunk size.
            1 << 12,
            1 << 13,
            1 << 15,
            1 << 16,
            // A span, and one that is in the same shard as the first.
            1 << SPAN_SHIFT,
            (SHARDS as u64) << SPAN_SHIFT,
        ];
        let odds = rng.pick(&[0, 400]);
        // One alone has room for who writes in sequence.
        let most = if odds == 0 { 12 } else { 3 };
        let length = rng.between(1, most) * ALIGN;
        let mut starts = vec![0];
        for place in places {
            if rng.chance(odds) {
                starts.push(place - rng.between(0, length / ALIGN) * ALIGN);
            }
        }
        let mut windows = Vec::new();
        let mut index = 0;
        let last = starts.len() - 1;
        for (n, start) in starts.into_iter().enumerate() {
            // The origin's end need not be that of a chunk.
            let length = if n == last {
                length - rng.below(ALIGN)
            } else {
                length
            };
            windows.push((start, length, index));
            index += length as usize;
        }
        Self { windows }
    }

    /// Whether all sectors of the origin are used.
    pub fn is_whole(&self) -> bool {
        self.windows.len() == 1
    }

    /// How many sectors are used.
    pub fn len(&self) -> usize {
        self.windows
            .last()
            .map_or(0, |(_, length, first)| first + *length as usize)
    }

    /// Where the origin ends.
    pub fn end(&self) -> u64 {
        self.windows
            .last()
            .map_or(0, |(start, length, _)| start + length)
    }

    /// The index of a sector that is used.
    pub fn index(&self, sector: u64) -> usize {
        let window = self.windows.iter().rfind(|(start, ..)| *start <= sector);
        match window {
            Some((start, length, first)) if sector - start < *length => {
                first + (sector - start) as usize
            }
            _ => panic!("sector {sector} is not of {self:?}"),
        }
    }

    /// The sector with an index.
    pub fn sector(&self, index: usize) -> u64 {
        let window = self.windows.iter().rfind(|(.., first)| *first <= index);
        let (start, _, first) = window.expect("the first index is 0");
        start + (index - first) as u64
    }

    /// Sectors that a request may be for: it ends where its window or span does.
    pub fn request(&self, rng: &mut Rng, size: u64) -> (u64, u64) {
        let mut sector = self.sector(rng.index(self.len()));
        if rng.chance(500) {
            // Often the whole of a chunk.
            let align = rng.pick(&[2, 4, 8, 16]);
            sector -= sector % align;
        }
        self.request_at(sector, size)
            .expect("a sector that is used")
    }

    /// The same from a sector on; `None` if that is not used.
    pub fn request_at(&self, sector: u64, size: u64) -> Option<(u64, u64)> {
        let (start, length, _) = *self.windows.iter().rfind(|(s, ..)| *s <= sector)?;
        let end = (start + length).min(span_end(sector));
        (sector < end).then(|| (sector, size.min(end - sector)))
    }
}

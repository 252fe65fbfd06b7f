// SPDX-License-Identifier: GPL-2.0-only

//! What a COW device tells of itself where its header is lost.

use crate::buffer::AlignedBuf;
use crate::cow::{byte_range, Cow};
use crate::format::{check_alone, ChunkSize, Exception, Geometry, SECTOR_BYTES};
use std::collections::BTreeSet;

/// The smallest chunk size, in sectors, with which the first area makes sense: where that is not the
/// right one, zeros or data are taken for an area.
pub fn guess_chunk_size(cow: &Cow) -> Option<u32> {
    let mut sectors = cow.device().block() / SECTOR_BYTES;
    while let Ok(chunk) = ChunkSize::new(sectors) {
        let Ok(geometry) = Geometry::new(chunk, cow.device().sectors(), u64::MAX) else {
            break;
        };
        if makes_sense(cow, &geometry) {
            return Some(sectors);
        }
        sectors *= 2;
    }
    None
}

/// Whether most records of the first window, up to the first empty one, could be such: they are
/// sound alone, and no two have the same new chunk. Their order does not matter.
fn makes_sense(cow: &Cow, geometry: &Geometry) -> bool {
    let mut buf = AlignedBuf::new(geometry.window_bytes() as usize);
    let Some(extent) = geometry.window(0) else {
        return false;
    };
    let read = cow.device().read_at(&mut buf, byte_range(extent).0);
    if read.is_err() {
        return false;
    }
    let records = Exception::records(&buf).take_while(|e| !e.is_empty());
    let mut new_chunks = BTreeSet::new();
    let (mut sound, mut all) = (0, 0);
    for e in records {
        all += 1;
        sound += u32::from(check_alone(geometry, 0, e).is_ok() && new_chunks.insert(e.new));
    }
    sound * 2 > all
}

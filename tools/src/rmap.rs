// SPDX-License-Identifier: GPL-2.0-only

//! What the chunks of a COW device are used for.

use crate::cow::Cow;
use crate::error::{Error, Result};
use crate::format::Exception;
use crate::growable::push;
use std::ops::RangeInclusive;

/// A chunk of the COW device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// Its number.
    pub new: u64,
    /// What it is used for.
    pub what: Use,
}

/// What a chunk is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It is the header.
    Header,
    /// It is this metadata area.
    Area(u64),
    /// It keeps a chunk of the origin.
    Data {
        /// Which chunk of the origin.
        old: u64,
        /// The record that says so, counted from the start of the list.
        record: u64,
    },
    /// No record names it.
    Unused,
}

/// Calls `tell` with each chunk of `asked`, ascending; each must lie on the device.
pub fn rmap(
    cow: &Cow,
    mut asked: Vec<RangeInclusive<u64>>,
    mut tell: impl FnMut(Used) -> Result<()>,
) -> Result<()> {
    let geometry = cow.snapshot()?.geometry;
    asked.sort_unstable_by_key(|range| *range.start());
    if let Some(end) = asked.iter().map(RangeInclusive::end).max() {
        if *end >= geometry.cow_chunks() {
            return Err(Error::Refused(format!(
                "{}: chunk {end} lies beyond its end; it has {} chunks",
                cow.device().path().display(),
                geometry.cow_chunks()
            )));
        }
    }
    let is_asked = |new: u64| {
        // Ranges may overlap, so that all that begin before it count.
        let end = asked.partition_point(|range| *range.start() <= new);
        asked[..end].iter().rev().any(|range| range.contains(&new))
    };
    let mut found: Vec<(Exception, u64)> = Vec::new();
    cow.walk(geometry, |record, e| match is_asked(e.new) {
        true => push(&mut found, (e, record)),
        false => Ok(()),
    })?;
    found.sort_unstable_by_key(|(e, _)| e.new);
    let mut found = found.into_iter().peekable();
    let mut next = 0;
    for range in asked {
        for new in next.max(*range.start())..=*range.end() {
            let data = found.next_if(|(e, _)| e.new == new);
            let what = match data {
                Some((e, record)) => Use::Data { old: e.old, record },
                None if new == 0 => Use::Header,
                None => geometry.area_at(new).map_or(Use::Unused, Use::Area),
            };
            tell(Used { new, what })?;
            next = new + 1;
        }
    }
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0-only

//! The metadata as text, JSON or XML, written and read a run at a time.
//!
//! All three say the same: the head, then the records in the order of the list, those that follow
//! each other on both devices gathered into a run, then an end, so that a dump cut short is seen
//! to be one. Sizes are in sectors of 512 bytes.
//!
//! # Text
//!
//! ```text
//! snap_dump 1
//! chunk_size 8
//! valid 1
//! cow_size 81920
//! exceptions
//! 17 2
//! 18 4 3
//! end 4
//! ```
//!
//! A line `OLD NEW` is a record, `OLD NEW LENGTH` a run of `LENGTH` records; `end` tells how many
//! records there were. Empty lines and lines that begin with `#` mean nothing.
//!
//! # JSON
//!
//! ```json
//! {"snap_dump":1,"chunk_size":8,"valid":true,"cow_size":81920,"exceptions":[
//! [17,2,1],
//! [18,4,3]
//! ],"records":4}
//! ```
//!
//! # XML
//!
//! ```xml
//! <snapshot version="1" chunk_size="8" valid="1" cow_size="81920">
//!   <exception old="17" new="2"/>
//!   <run old_begin="18" new_begin="4" length="3"/>
//! </snapshot>
//! ```
//!
//! A dump of the header only has no list but says `header_only` in its place: in text as a line,
//! the last one, in JSON as `"header_only":true`, in XML as the attribute `header_only="1"`.

mod json;
mod read;
mod text;
mod xml;

pub use read::{read, Bounded};

use crate::cow::Cow;
use crate::error::Result;
use crate::format::Exception;
use crate::run::{Run, Runs};
use crate::stream::Stream;
use std::ops::Range;

/// The version of the dump's own format.
pub const VERSION: u32 = 1;

/// What a dump says before the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Sectors in a chunk.
    pub chunk_sectors: u32,
    /// Whether the snapshot may be used.
    pub valid: bool,
    /// Sectors of the COW device.
    pub cow_sectors: u64,
    /// Whether the records follow; not so in a dump of the header only.
    pub has_list: bool,
}

/// Takes a dump apart or puts one together: called once with the head, then with each run, then
/// once at the end.
pub trait Visitor {
    /// The head.
    fn head(&mut self, head: &Head) -> Result<()>;
    /// The next run; its last chunks fit a `u64`.
    fn run(&mut self, run: Run) -> Result<()>;
    /// The end; there were `records` records.
    fn end(&mut self, records: u64) -> Result<()>;
}

/// How a dump is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Lines of numbers.
    #[default]
    Text,
    /// A JSON object.
    Json,
    /// An XML element.
    Xml,
}

impl Format {
    /// What writes a dump in this format to `output`.
    pub fn writer(self, output: Stream) -> Box<dyn Visitor> {
        match self {
            Self::Text => Box::new(text::Writer::new(output)),
            Self::Json => Box::new(json::Writer::new(output)),
            Self::Xml => Box::new(xml::Writer::new(output)),
        }
    }
}

/// What of the metadata to dump.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// No records.
    pub header_only: bool,
    /// Only records whose old chunk is in this range.
    pub old_chunks: Option<Range<u64>>,
    /// Do not check the records.
    pub raw: bool,
}

/// Dumps the metadata of `cow` to `visitor`.
pub fn dump(cow: &Cow, selection: &Selection, visitor: &mut dyn Visitor) -> Result<()> {
    let layout = cow.snapshot()?;
    visitor.head(&Head {
        chunk_sectors: layout.header.chunk_sectors,
        valid: layout.header.valid,
        cow_sectors: cow.device().sectors(),
        has_list: !selection.header_only,
    })?;
    if selection.header_only {
        return visitor.end(0);
    }
    let mut runs = Runs::default();
    let mut records = 0;
    let mut visit = |_, e: Exception| {
        if selection
            .old_chunks
            .as_ref()
            .is_none_or(|range| range.contains(&e.old))
        {
            records += 1;
            if let Some(run) = runs.push(e) {
                visitor.run(run)?;
            }
        }
        Ok(())
    };
    if selection.raw {
        cow.records(layout.geometry, &mut visit)?;
    } else {
        cow.walk(layout.geometry, &mut visit)?;
    }
    if let Some(run) = runs.finish() {
        visitor.run(run)?;
    }
    visitor.end(records)
}

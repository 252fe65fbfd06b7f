// SPDX-License-Identifier: GPL-2.0-only

//! `snap_delta`

use super::siblings::Siblings;
use super::Tool;
use crate::delta::{delta, in_sectors, Other};
use crate::error::Result;
use crate::interrupt::Interrupt;
use crate::lvm::Volumes;
use crate::output::Output;
use crate::report::Report;
use crate::snapshot::Snapshot;
use crate::stream::Stream;
use crate::units::{sectors, Units};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line `BEGIN LENGTH` for each range
    #[default]
    Text,
    /// A JSON array of [BEGIN, LENGTH]
    Json,
}

#[derive(Args)]
pub struct Delta {
    /// The COW device of the snapshot, or its VG/LV
    #[arg(value_name = "COW")]
    cow: PathBuf,

    /// The COW device of another snapshot of the same origin, or its VG/LV
    #[arg(value_name = "OTHER")]
    other: Option<PathBuf>,

    /// The origin; known where the COW device is given by LVM's name
    #[arg(long, value_name = "DEV", conflicts_with = "origin_size")]
    origin: Option<PathBuf>,

    /// The origin's size, where the device is not at hand
    #[arg(long, value_name = "SIZE", value_parser = sectors)]
    origin_size: Option<u64>,

    /// Read both sides, and tell only what does differ
    #[arg(long)]
    compare: bool,

    /// The output format
    #[arg(short, long, value_enum, default_value_t, value_name = "TYPE")]
    format: Format,

    /// The unit of what is told as text: h, b, s, k, m, g, t, p, e as LVM has them; two places are told
    /// of what is not whole. JSON is in sectors
    #[arg(long, value_name = "UNIT", default_value = "s", value_parser = Units::parse)]
    units: Units,

    /// The output file; - for standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,

    /// Overwrite what the output holds
    #[arg(long)]
    force: bool,

    /// Compare snapshots that are marked invalid
    #[arg(long)]
    trust_invalid: bool,

    /// Suppress output messages, return only exit code
    #[arg(short, long)]
    quiet: bool,
}

impl Tool for Delta {
    const NAME: &'static str = "snap_delta";
    const ABOUT: &'static str = "Tell which ranges differ between snapshot and origin";
    const LONG_ABOUT: &'static str = "\
Tells the ranges in which a snapshot may differ from its origin, or from another snapshot of the \
same origin, as begin and length: numbers of sectors of 512 bytes, or with --units another unit, \
which is then told, too. They are the chunks that a COW device \
keeps: a chunk that neither snapshot keeps is the origin's in both. The two snapshots may have \
different chunk sizes.

A chunk can have been kept and yet be the same. With --compare both sides are read, and only the \
chunks that differ are told.";
    const EXTRA: &'static str = "\
EXAMPLES
  snap_delta /dev/vg/cow
  snap_delta --units h /dev/vg/cow
  snap_delta --compare --origin origin.img monday.img tuesday.img";

    fn quiet(&self) -> bool {
        self.quiet
    }

    fn run(self, _report: &Report, volumes: &Volumes) -> Result<bool> {
        let interrupt = Interrupt::watch()?;
        let snapshots = Siblings {
            cows: [Some(&self.cow), self.other.as_ref()]
                .into_iter()
                .flatten()
                .map(PathBuf::as_path)
                .collect(),
            origin: self.origin.as_deref(),
            origin_size: self.origin_size,
            needs_origin: self.compare.then_some("give --origin with --compare"),
            trust_invalid: self.trust_invalid,
        }
        .open(volumes, &interrupt)?;
        let output = Output::new(&volumes.output(&self.output)?, self.force);
        let inputs = snapshots.iter().flat_map(Snapshot::inputs);
        let mut output = inputs.fold(output, Output::apart_from).stream()?;
        let [open, between, separator, after, close]: [&[u8]; 5] = match self.format {
            Format::Text => [b"", b" ", b"", b"\n", b""],
            Format::Json => [b"[", b",", b",", b"]", b"\n]\n"],
        };
        output.put(open)?;
        let mut first = true;
        let other = snapshots.get(1).map_or(Other::Origin, Other::Snapshot);
        delta(&snapshots[0], &other, self.compare, |range| {
            let (begin, length) = in_sectors(&range);
            if !std::mem::take(&mut first) {
                output.put(separator)?;
            }
            if self.format == Format::Json {
                output.put(b"\n[")?;
            }
            self.put(begin, &mut output)?;
            output.put(between)?;
            self.put(length, &mut output)?;
            output.put(after)
        })?;
        output.put(close)?;
        output.finish()?;
        Ok(true)
    }
}

impl Delta {
    /// Writes a number of sectors, in the unit that was asked for.
    fn put(&self, sectors: u64, output: &mut Stream) -> Result<()> {
        if self.format == Format::Json || self.units == Units::SECTORS {
            return output.put_number(sectors);
        }
        output.put(format!("{:>14}", self.units.show(sectors)).as_bytes())
    }
}

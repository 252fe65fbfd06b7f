// SPDX-License-Identifier: GPL-2.0-only

//! `snap_size`

use super::{OriginArgs, Tool};
use crate::error::{Error, Result};
use crate::format::ChunkSize;
use crate::lvm::{chunk_option, Volumes};
use crate::report::Report;
use crate::sizing::Need;
use crate::units::{chunk_sectors, sectors, Units};
use clap::Args;
use serde_json::json;

#[derive(Args)]
pub struct Size {
    #[command(flatten)]
    origin: OriginArgs,

    /// How much of the origin may be written to while there is the snapshot, as 20g or 15%; all of
    /// it by default, after which the snapshot cannot overflow
    #[arg(long, value_name = "SIZE|PERCENT%", default_value = "100%")]
    changed: Changed,

    /// The chunk size; LVM takes 4k if it is told none
    #[arg(short, long, value_name = "SIZE", default_value = "4k", value_parser = chunk_sectors)]
    chunk_size: u32,

    /// The unit of what is told: h, b, s, k, m, g, t, p, e as LVM has them
    #[arg(long, value_name = "UNIT", default_value = "h", value_parser = Units::parse)]
    units: Units,

    /// Write the result as a JSON object to standard output
    #[arg(long)]
    json: bool,

    /// Suppress output messages, return only exit code
    #[arg(short, long)]
    quiet: bool,
}

/// How much changes.
#[derive(Clone, Copy, Debug)]
enum Changed {
    Sectors(u64),
    /// In hundredths of a percent.
    Share(u64),
}

impl std::str::FromStr for Changed {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let Some(percent) = text.strip_suffix('%') else {
            return sectors(text).map(Self::Sectors);
        };
        let wrong = || format!("`{percent}` is no percentage");
        let (whole, places) = percent.split_once('.').unwrap_or((percent, ""));
        if whole.is_empty() || places.len() > 2 {
            return Err(wrong());
        }
        let hundredths: u64 = format!("{whole}{places:0<2}")
            .parse()
            .map_err(|_| wrong())?;
        if hundredths > 10_000 {
            return Err("it is more than all".into());
        }
        Ok(Self::Share(hundredths))
    }
}

impl Changed {
    /// In sectors of an origin of `origin` sectors.
    fn of(self, origin: u64) -> u64 {
        match self {
            Self::Sectors(sectors) => sectors.min(origin),
            Self::Share(share) => (u128::from(origin) * u128::from(share)).div_ceil(10_000) as u64,
        }
    }
}

impl Tool for Size {
    const NAME: &'static str = "snap_size";
    const ABOUT: &'static str = "Tell how large a snapshot's COW device must be";
    const LONG_ABOUT: &'static str = "\
Computes the size of the COW device that a snapshot needs while so much of its origin is written \
to, metadata included: header, areas, and the area in which the list ends. Nothing is opened but \
the origin, to ask for its size.

What counts are chunks: writes that are scattered take a whole chunk each. snap_stat tells what \
another snapshot of the same origin took, and what it would have taken with other chunk sizes.";
    const EXTRA: &'static str = "\
EXAMPLES
  snap_size --origin-size 100g
  snap_size --origin vg/origin --changed 15% --chunk-size 64k
  snap_size --origin-size 2t --changed 50g --units g";

    fn quiet(&self) -> bool {
        self.quiet
    }

    fn run(self, report: &Report, volumes: &Volumes) -> Result<bool> {
        let origin = match &self.origin.origin {
            Some(path) => Some(volumes.device(path)?),
            None => None,
        };
        let origin = OriginArgs {
            origin,
            ..self.origin
        };
        if origin.origin.is_none() && origin.origin_size.is_none() {
            return Err(Error::Refused("give --origin or --origin-size".into()));
        }
        let origin = origin.origin()?.sectors;
        let chunk = ChunkSize::new(self.chunk_size).map_err(|e| Error::Refused(e.to_string()))?;
        let need = Need::of_sectors(chunk, self.changed.of(origin))?;
        if self.json {
            report.json(&json!({
                "chunk_size": need.chunk_sectors,
                "chunks": need.chunks,
                "metadata": need.metadata(),
                "size": need.total(),
            }));
            return Ok(true);
        }
        let show = |sectors| self.units.show(sectors);
        report.line(format_args!(
            "chunk size  {}",
            show(need.chunk_sectors.into())
        ));
        report.line(format_args!(
            "data        {} in {} chunks",
            show(need.data()),
            need.chunks
        ));
        report.line(format_args!("metadata    {}", show(need.metadata())));
        report.line(format_args!("COW device  {}", show(need.total())));
        if let Some(chunk) = chunk_option(need.chunk_sectors) {
            let kib = need.total().div_ceil(2);
            report.line(format_args!("lvcreate -s -c {chunk} -L {kib}k"));
        }
        Ok(true)
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! `snap_dump`

use super::{chunk_range, Tool};
use crate::cow::{Cow, Origin};
use crate::device::Access;
use crate::dump::{dump, Format, Selection};
use crate::error::Result;
use crate::interrupt::Interrupt;
use crate::lvm::Volumes;
use crate::output::Output;
use crate::report::Report;
use clap::Args;
use std::ops::Range;
use std::path::PathBuf;

#[derive(Args)]
pub struct Dump {
    /// The COW device, a file that holds its content, or the VG/LV of a snapshot
    #[arg(value_name = "INPUT")]
    input: PathBuf,

    /// The output file; - for standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,

    /// Overwrite what the output holds
    #[arg(long)]
    force: bool,

    /// The output format
    #[arg(short, long, value_enum, default_value_t, value_name = "TYPE")]
    format: Format,

    /// Only the records whose old chunk lies in this range; END is not included
    #[arg(long, value_name = "FIRST..END", value_parser = chunk_range)]
    range: Option<Range<u64>>,

    /// Only the header
    #[arg(long)]
    header_only: bool,

    /// Take the records as they stand, without checking them
    #[arg(long)]
    raw: bool,

    /// Suppress output messages, return only exit code
    #[arg(short, long)]
    quiet: bool,
}

impl Tool for Dump {
    const NAME: &'static str = "snap_dump";
    const ABOUT: &'static str = "Write the metadata of a snapshot's COW device as text";
    const LONG_ABOUT: &'static str = "\
Writes the header and the list of records as text, JSON or XML. Records that follow each other on \
both devices are one line. What snap_dump writes, snap_restore reads. Memory does not grow with \
the number of records.

The records are checked as the kernel does when it loads the snapshot; at the first one that it \
would refuse the dump ends, without the last line that a complete dump has, and the exit status is \
1. With --raw nothing is checked. A file given with --output gets its name when it is complete and \
durable; of one that is not, nothing is left.";
    const EXTRA: &'static str = "\
TEXT FORMAT
  snap_dump 1           the version of this format
  chunk_size 8          sectors in a chunk
  valid 1               0: the snapshot is invalid
  cow_size 81920        sectors of the COW device
  exceptions            or header_only, and nothing follows
  17 2                  old chunk 17 was copied to chunk 2
  18 4 3                18, 19, 20 were copied to 4, 5, 6
  end 4                 the number of records

  Sectors have 512 bytes. Empty lines and lines that begin with # mean nothing.

JSON FORMAT
  {\"snap_dump\":1,\"chunk_size\":8,\"valid\":true,\"cow_size\":81920,\"exceptions\":[
  [17,2,1],
  [18,4,3]
  ],\"records\":4}

  Each entry is the first old chunk, the first new chunk, the number of records. The keys stand in \
this order.

XML FORMAT
  <snapshot version=\"1\" chunk_size=\"8\" valid=\"1\" cow_size=\"81920\">
    <exception old=\"17\" new=\"2\"/>
    <run old_begin=\"18\" new_begin=\"4\" length=\"3\"/>
  </snapshot>

EXAMPLES
  snap_dump /dev/vg/cow
  snap_dump -f json -o snap.json cow.img
  snap_dump --range 1000..2000 cow.img";

    fn quiet(&self) -> bool {
        self.quiet
    }

    fn run(self, _report: &Report, volumes: &Volumes) -> Result<bool> {
        let named = volumes.cow(&self.input)?;
        let cow = Cow::open(&named.cow, Access::Read, Origin::UNKNOWN)?;
        let cow = cow.watching(&Interrupt::watch()?);
        // Before anything is created: is there something to dump?
        cow.snapshot()?;
        let output =
            Output::new(&volumes.output(&self.output)?, self.force).apart_from(cow.device());
        let selection = Selection {
            header_only: self.header_only,
            old_chunks: self.range,
            raw: self.raw,
        };
        dump(
            &cow,
            &selection,
            self.format.writer(output.stream()?).as_mut(),
        )?;
        Ok(true)
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! What an export notes, to be gone on with.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::snapshot::Snapshot;
use crate::state_file::{self, Subject};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// How far an export came, as noted in its state file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub snap_export: u32,
    /// What was exported: the state means nothing for anything else.
    pub source: Source,
    /// Where it was exported to: nor for anything else.
    pub destination: Destination,
    /// Everything before this byte is in the output, durably.
    pub done: u64,
}

impl State {
    /// The version of the state file's own format.
    pub const VERSION: u32 = 2;

    /// Reads the state file `path`; `None` where there is none. A file that is something else is
    /// refused.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let Some(text) = state_file::read(path)? else {
            return Ok(None);
        };
        match serde_json::from_slice::<Self>(&text) {
            Ok(state) if state.snap_export == Self::VERSION => Ok(Some(state)),
            _ => Err(Error::Refused(format!(
                "{}: it is not the state of an export, and is left alone; give --state another \
                 file",
                path.display()
            ))),
        }
    }

    /// Refuses to go on with the export of anything but `source`.
    pub fn refuse_other(&self, source: &Source, path: &Path) -> Result<()> {
        if self.source == *source {
            return Ok(());
        }
        Err(Error::Refused(format!(
            "{}: it belongs to the export of something else, or the origin or COW device has \
             changed since; give --restart to begin from the start",
            path.display()
        )))
    }

    pub fn other_output(&self, path: &Path) -> Error {
        Error::Refused(format!(
            "{}: it belongs to an export to another output; give --restart to begin from the start",
            path.display()
        ))
    }

    /// Writes the state file `path`, durably and at once.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).map_err(|e| Error::file(path, "write", e))?;
        state_file::write(path, &text)
    }
}

/// The file or device that an export goes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    #[serde(flatten)]
    pub subject: Subject,
    pub bytes: u64,
}

impl Destination {
    pub fn of(device: &Device) -> Result<Self> {
        Ok(Self {
            subject: Subject::of(device)?,
            bytes: device.bytes(),
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    pub bytes: u64,
    pub chunk_bytes: u64,
    pub records: u64,
    /// A digest of the list of records.
    pub list: u64,
    /// For files, when they were changed, in nanoseconds since 1970.
    pub cow_changed: i128,
    pub origin_changed: i128,
}

impl Source {
    pub fn of(snapshot: &Snapshot) -> Self {
        let changed = |device: &Device| match device.file().metadata() {
            Ok(meta) if !device.is_block_device() => {
                i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec())
            }
            _ => 0,
        };
        // FNV-1a over the numbers of all runs.
        let mut list = 0xcbf2_9ce4_8422_2325;
        for run in snapshot.map().runs() {
            for number in [run.old, run.new, run.length] {
                list = (list ^ number).wrapping_mul(0x0100_0000_01b3_u64);
            }
        }
        Self {
            bytes: snapshot.bytes(),
            chunk_bytes: snapshot.chunk_bytes(),
            records: snapshot.map().records(),
            list,
            cow_changed: changed(snapshot.cow().device()),
            origin_changed: snapshot.origin().map_or(0, changed),
        }
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! What is noted while a base is being replaced.

use crate::error::{Error, Result};
use crate::state_file::{self, Subject};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::path::Path;

/// How far it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub snap_receive: u32,
    /// What is replaced: the state means nothing for anything else.
    pub target: Subject,
    /// The digest of the stream up to where its content begins.
    pub stream: String,
    /// The bytes that may hold anything: those before are the snapshot's, those after the base's.
    pub window: Range<u64>,
}

impl State {
    /// The version of the state file's own format.
    pub const VERSION: u32 = 1;

    /// Reads the state file `path`; `None` where there is none. A file that is something else is
    /// refused.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let Some(text) = state_file::read(path)? else {
            return Ok(None);
        };
        match serde_json::from_slice::<Self>(&text) {
            Ok(state) if state.snap_receive == Self::VERSION => Ok(Some(state)),
            _ => Err(Error::Refused(format!(
                "{}: it is not the state of a receive, and is left alone; give --state another file",
                path.display()
            ))),
        }
    }

    /// Refuses to go on with anything but `target`, called `name`.
    pub fn refuse_other(&self, target: &Subject, name: &Path, path: &Path) -> Result<()> {
        if self.target == *target {
            return Ok(());
        }
        Err(Error::Refused(format!(
            "{}: it notes how far another output is replaced, {}, and {} is {target}; give --state \
             another file, or remove it if nobody needs it; nothing was changed",
            path.display(),
            self.target,
            name.display()
        )))
    }

    /// Writes the state file `path`, durably and at once.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).map_err(|e| Error::file(path, "write", e))?;
        state_file::write(path, &text)
    }
}

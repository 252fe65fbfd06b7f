// SPDX-License-Identifier: GPL-2.0-only

//! The files in which a tool notes how far it came, to be gone on with.

use crate::error::{Error, Result};
use crate::output::{sync_directory, Kind, Output};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The name of a state, links followed: what has it is replaced and removed, and a link is neither.
/// Refuses a state that would not be a file, or would be what `state` must not be.
pub fn name(state: &Output) -> Result<PathBuf> {
    match state.kind()? {
        Kind::Missing | Kind::File => Ok(state.path().to_owned()),
        _ => Err(Error::Refused(format!(
            "{}: a state must be a file",
            state.path().display()
        ))),
    }
}

/// Writes the file `path`, durably and at once.
pub fn write(path: &Path, text: &[u8]) -> Result<()> {
    let failed = |source| file_error(path, "write", source);
    let directory = Output::new(path, true).directory().to_owned();
    let mut file = tempfile::Builder::new()
        .prefix(".snap_state.")
        .tempfile_in(&directory)
        .map_err(failed)?;
    file.write_all(text).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    sync_directory(&directory)
}

/// Removes the file `path`, if there is one.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(file_error(path, "remove", e)),
        _ => Ok(()),
    }
}

fn file_error(path: &Path, action: &'static str, source: io::Error) -> Error {
    Error::File {
        path: path.into(),
        action,
        source,
    }
}

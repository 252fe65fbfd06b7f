// SPDX-License-Identifier: GPL-2.0-only

//! The files in which a tool notes how far it came, to be gone on with.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::output::{sync_directory, temporary, Kind, Output};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
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

/// No state has as many bytes.
const MAX_BYTES: u64 = 64 << 10;

/// Reads the file `path`, or what it has too much for a state; `None` where there is none.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let mut text = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut text)) {
        Ok(_) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::file(path, "read", e)),
    }
}

/// Writes the file `path`, durably and at once.
pub fn write(path: &Path, text: &[u8]) -> Result<()> {
    let failed = |source| Error::file(path, "write", source);
    let directory = Output::new(path, true).directory().to_owned();
    let mut file = temporary(&directory, ".snap_state.").map_err(failed)?;
    file.as_file_mut().write_all(text).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    sync_directory(&directory)
}

/// Removes the file `path`, if there is one.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::file(path, "remove", e)),
        _ => Ok(()),
    }
}

/// Which file or device a state is about, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Whether it is a block device.
    pub is_block_device: bool,
    /// The device's number, or that of the file system.
    pub device: u64,
    /// The file's inode.
    pub inode: u64,
}

impl Subject {
    /// That of `device`.
    pub fn of(device: &Device) -> Result<Self> {
        let meta = device.file().metadata();
        let meta = meta.map_err(|e| Error::file(device.path(), "ask for", e))?;
        Ok(Self::new(&meta))
    }

    /// That of which `meta` tells.
    pub fn new(meta: &Metadata) -> Self {
        let is_block_device = meta.file_type().is_block_device();
        let (device, inode) = match is_block_device {
            true => (meta.rdev(), 0),
            false => (meta.dev(), meta.ino()),
        };
        Self {
            is_block_device,
            device,
            inode,
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.is_block_device {
            true => write!(f, "device {}", self.device),
            false => write!(f, "inode {} of device {}", self.inode, self.device),
        }
    }
}

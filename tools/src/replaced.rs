// SPDX-License-Identifier: GPL-2.0-only

//! What a new file takes the name of.

use crate::device::{Access, Device};
use crate::error::{Error, Result};
use crate::output::{Kind, Output};
use crate::state_file::Subject;
use std::fs;
use std::io;
use std::path::Path;

/// What has the name of an output that is written as a new file, locked until that has it: nobody
/// works on it meanwhile, whose work would be lost.
#[derive(Debug)]
pub struct Replaced {
    output: Output,
    /// `None` where nothing has the name.
    device: Option<Device>,
}

impl Replaced {
    /// Locks what has the name of `output` now, if something has. What another tool works on is
    /// [`Error::InUse`](crate::error::Error::InUse).
    pub fn lock(output: &Output) -> Result<Self> {
        let device = match output.kind()? {
            Kind::File => Some(Self::open(output.path())?),
            _ => None,
        };
        Ok(Self {
            output: output.clone(),
            device,
        })
    }

    /// Opens what may be replaced and yet not be written, too.
    fn open(path: &Path) -> Result<Device> {
        match Device::open(path, Access::Write) {
            Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
                Device::open(path, Access::Read)
            }
            device => device,
        }
    }

    /// Which file it is; `None` where there is none.
    pub fn subject(&self) -> Result<Option<Subject>> {
        self.device.as_ref().map(Subject::of).transpose()
    }

    /// Gives the name to `from`, a complete and durable file in the same directory. What has got the
    /// name meanwhile is locked, too, and [`Output::rename_from`] says whether it may be replaced.
    pub fn replace_with(self, from: &Path) -> Result<()> {
        let has = fs::metadata(self.output.path());
        let has = has.ok().as_ref().map(Subject::new);
        let _meanwhile = match has == self.subject()? {
            true => None,
            false => Some(Self::lock(&self.output)?),
        };
        self.output.rename_from(from)
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! A file that is written anew and has its name when it is complete.

use crate::error::{Error, Result};
use crate::output::{temporary, Output};
use crate::replaced::Replaced;
use std::ffi::OsString;
use std::fs::File;
use tempfile::NamedTempFile;

/// A new file that becomes an output.
///
/// It has another name, in the same directory, until it is complete; one that does not become
/// complete disappears.
#[derive(Debug)]
pub struct NewFile {
    file: NamedTempFile,
    replaced: Replaced,
}

impl NewFile {
    /// Makes the file, empty and for its owner only. What has the name of `output` until then is
    /// locked.
    pub fn create(output: &Output) -> Result<Self> {
        let replaced = Replaced::lock(output)?;
        let mut prefix = OsString::from(".");
        prefix.push(output.path().file_name().unwrap_or_default());
        prefix.push(".");
        let file = temporary(output.directory(), prefix)
            .map_err(|source| Error::file(output.path(), "create", source))?;
        Ok(Self { file, replaced })
    }

    /// The file, open for reading and writing.
    pub fn file(&self) -> &File {
        self.file.as_file()
    }

    /// Makes what was written durable and gives the file its name.
    pub fn finish(self) -> Result<()> {
        self.replaced.replace_with(self.file.path())?;
        // There is nothing of that name any more.
        let _ = self.file.into_temp_path().keep();
        Ok(())
    }
}

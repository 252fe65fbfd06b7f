// SPDX-License-Identifier: GPL-2.0-only

//! Where a dump goes.

use crate::error::{Error, Result};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file or standard output, written from the first byte to the last.
///
/// A file carries the name `NAME.partial` until it is complete.
pub struct Output {
    to: Box<dyn Write>,
    /// What to call it in messages.
    name: PathBuf,
    /// The name that the finished file gets.
    rename_to: Option<PathBuf>,
    buffer: Vec<u8>,
    /// Bytes written before those in `buffer`.
    written: u64,
}

impl Output {
    const BUFFER_BYTES: usize = 256 * 1024;

    /// A new file `path`.
    pub fn file(path: &Path) -> Result<Self> {
        // A device or a pipe cannot be renamed.
        if path.exists() && !path.is_file() {
            let file = File::options().write(true).open(path);
            let file = file.map_err(|e| file_error(path, "open", e))?;
            return Ok(Self::writer(file, path));
        }
        let partial = partial_name(path);
        let file = File::create(&partial).map_err(|e| file_error(&partial, "create", e))?;
        let mut output = Self::writer(file, &partial);
        output.rename_to = Some(path.into());
        Ok(output)
    }

    /// Standard output.
    pub fn stdout() -> Self {
        Self::writer(io::stdout(), Path::new("standard output"))
    }

    /// Anything else; `name` is what messages call it.
    pub fn writer(to: impl Write + 'static, name: &Path) -> Self {
        Self {
            to: Box::new(to),
            name: name.into(),
            rename_to: None,
            buffer: Vec::with_capacity(Self::BUFFER_BYTES + 4096),
            written: 0,
        }
    }

    /// Writes `bytes`, in time.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= Self::BUFFER_BYTES {
            self.write_buffer()?;
        }
        Ok(())
    }

    /// Writes a number in decimal.
    #[inline]
    pub fn put_number(&mut self, number: u64) -> Result<()> {
        self.put(itoa::Buffer::new().format(number).as_bytes())
    }

    /// Writes what is left and gives the file its name.
    pub fn finish(&mut self) -> Result<()> {
        self.write_buffer()?;
        self.to.flush().map_err(|source| self.write_error(source))?;
        if let Some(name) = self.rename_to.take() {
            std::fs::rename(&self.name, &name).map_err(|e| file_error(&self.name, "rename", e))?;
        }
        Ok(())
    }

    fn write_buffer(&mut self) -> Result<()> {
        let mut rest = &self.buffer[..];
        while !rest.is_empty() {
            match self.to.write(rest) {
                Ok(0) => return Err(self.write_error(io::ErrorKind::WriteZero.into())),
                Ok(done) => {
                    rest = &rest[done..];
                    self.written += done as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.write_error(e)),
            }
        }
        self.buffer.clear();
        Ok(())
    }

    fn write_error(&self, source: io::Error) -> Error {
        Error::Io {
            path: self.name.clone(),
            action: "write",
            offset: self.written,
            source,
        }
    }
}

/// The name of a file while it is not complete.
pub fn partial_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

fn file_error(path: &Path, action: &'static str, source: io::Error) -> Error {
    Error::File {
        path: path.into(),
        action,
        source,
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! What is written from the first byte to the last.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::format::SECTOR_BYTES;
use crate::interrupt::Interrupt;
use crate::new_file::NewFile;
use crate::output::Output;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file, a device or standard output, written from the first byte to the last.
///
/// A file has another name, in the same directory, until it is complete; one that does not become
/// complete disappears.
pub struct Stream {
    to: To,
    /// What to call it in messages.
    name: PathBuf,
    buffer: Vec<u8>,
    /// Bytes written before those in `buffer`.
    written: u64,
}

enum To {
    Writer(Box<dyn Write + Send>),
    Device(Device),
    File(NewFile),
}

impl Stream {
    /// Bytes gathered before they are written.
    const BUFFER_BYTES: usize = 256 * 1024;

    /// Standard output.
    pub fn standard(interrupt: Option<&Interrupt>) -> Self {
        // Not through the library's own buffer, which would look for ends of lines.
        let stdout = rustix::io::dup(io::stdout()).map(File::from);
        let name = Path::new("standard output");
        match stdout {
            Ok(stdout) => Self::pipe(stdout, name, interrupt),
            Err(_) => Self::writer(io::stdout(), name),
        }
    }

    /// A pipe or the like; who waits for its reader hears of `interrupt`.
    pub fn pipe(file: File, name: &Path, interrupt: Option<&Interrupt>) -> Self {
        let is_file = file.metadata().is_ok_and(|meta| meta.is_file());
        match interrupt.filter(|_| !is_file) {
            None => Self::writer(file, name),
            Some(interrupt) => {
                let interrupt = interrupt.clone();
                Self::writer(Pipe { file, interrupt }, name)
            }
        }
    }

    /// Anything else; `name` is what messages call it.
    pub fn writer(to: impl Write + Send + 'static, name: &Path) -> Self {
        Self::new(To::Writer(Box::new(to)), name)
    }

    /// A device, from its start on.
    pub fn device(device: Device) -> Self {
        let name = device.path().to_owned();
        Self::new(To::Device(device), &name)
    }

    /// A new file that becomes `output`; what that is until then is locked.
    pub fn file(output: &Output) -> Result<Self> {
        let to = To::File(NewFile::create(output)?);
        Ok(Self::new(to, output.path()))
    }

    fn new(to: To, name: &Path) -> Self {
        Self {
            to,
            name: name.into(),
            buffer: Vec::with_capacity(Self::BUFFER_BYTES + 4096),
            written: 0,
        }
    }

    /// Writes `bytes`, in time.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= Self::BUFFER_BYTES {
            self.write_buffer(self.buffer.len() - self.buffer.len() % Self::BUFFER_BYTES)?;
        }
        Ok(())
    }

    /// Writes a number in decimal.
    #[inline]
    pub fn put_number(&mut self, number: u64) -> Result<()> {
        self.put(itoa::Buffer::new().format(number).as_bytes())
    }

    /// Bytes put so far.
    pub fn position(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Writes what is left, makes it durable and gives the file its name.
    pub fn finish(&mut self) -> Result<()> {
        if matches!(self.to, To::Device(_)) {
            // The last sector as a whole.
            let bytes = self.buffer.len().next_multiple_of(SECTOR_BYTES as usize);
            self.buffer.resize(bytes, 0);
        }
        self.write_buffer(self.buffer.len())?;
        match std::mem::replace(&mut self.to, To::Writer(Box::new(io::sink()))) {
            To::Writer(mut to) => to.flush().map_err(|source| self.write_error(source)),
            To::Device(device) => device.flush(),
            To::File(file) => file.finish(),
        }
    }

    /// Writes the first `bytes` of the buffer.
    fn write_buffer(&mut self, bytes: usize) -> Result<()> {
        let buffer = &self.buffer[..bytes];
        let written = match &mut self.to {
            To::Device(device) => {
                device.write_at(buffer, self.written)?;
                Ok(())
            }
            To::Writer(to) => to.write_all(buffer),
            To::File(file) => file.file().write_all(buffer),
        };
        written.map_err(|e| self.write_error(e))?;
        self.written += bytes as u64;
        self.buffer.drain(..bytes);
        Ok(())
    }

    fn write_error(&self, source: io::Error) -> Error {
        Error::io(&self.name, "write", self.written, source)
    }
}

/// What somebody reads, slowly or not at all.
struct Pipe {
    file: File,
    interrupt: Interrupt,
}

impl Pipe {
    /// As many bytes do not wait where anything can be written.
    const BYTES: usize = 4096;
    /// How often an interrupt is looked for.
    const LOOK: Timespec = Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    };
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(Self::BYTES)];
        loop {
            if self.interrupt.asked() {
                return Err(io::Error::other("interrupted"));
            }
            let mut files = [PollFd::new(&self.file, PollFlags::OUT)];
            match poll(&mut files, Some(&Self::LOOK)) {
                Ok(0) | Err(Errno::INTR) => {}
                _ => match self.file.write(bytes) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    written => return written,
                },
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

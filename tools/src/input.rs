// SPDX-License-Identifier: GPL-2.0-only

//! What is read from the first byte to the last.

use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A file, a device, a pipe or standard input. Somebody who waits for it hears of an interrupt.
pub struct Input {
    file: File,
    interrupt: Interrupt,
}

impl Input {
    /// How often an interrupt is looked for.
    const LOOK: Timespec = Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    };

    /// Where standard input can be found by its name.
    pub const STANDARD: &str = "/proc/self/fd/0";

    /// Opens `path`; `-` is standard input.
    pub fn open(path: &Path, interrupt: &Interrupt) -> Result<Self> {
        let file = if path == Path::new("-") {
            rustix::io::dup(io::stdin())
                .map_err(io::Error::from)
                .map(File::from)
        } else {
            // A FIFO that nobody has opened to write yet is waited for by poll, which hears of an
            // interrupt, and not here.
            let flags = OFlags::NONBLOCK.bits() as i32;
            File::options().read(true).custom_flags(flags).open(path)
        };
        let file = file.map_err(|source| Error::file(path, "open", source))?;
        Ok(Self {
            file,
            interrupt: interrupt.clone(),
        })
    }
}

impl Read for Input {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.interrupt.asked() {
                return Err(io::Error::other("interrupted"));
            }
            let mut files = [PollFd::new(&self.file, PollFlags::IN)];
            match poll(&mut files, Some(&Self::LOOK)) {
                Ok(0) | Err(Errno::INTR) => {}
                _ => match self.file.read(buf) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    read => return read,
                },
            }
        }
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! What can go wrong, said in one line.

use crate::format::Fault;
use std::io;
use std::path::{Path, PathBuf};

/// The result of the library's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a tool gave up. Printed, it is one line that names the file and the place in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A read, write or flush failed.
    #[error("{}: cannot {action} at byte {offset}: {source}", path.display())]
    Io {
        /// The file or device.
        path: PathBuf,
        /// What was tried: "read" or "write".
        action: &'static str,
        /// The first byte concerned.
        offset: u64,
        /// What the system said.
        source: io::Error,
    },
    /// A file or device as a whole could not be opened, created, renamed, …
    #[error("{}: cannot {action}: {source}", path.display())]
    File {
        /// The file or device.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else has the file or device open.
    #[error(
        "{}: it is in use; deactivate or unmount what uses it, then run this again",
        path.display()
    )]
    InUse {
        /// The file or device.
        path: PathBuf,
    },
    /// The COW device's metadata is damaged.
    #[error("{}: {fault}", path.display())]
    Fault {
        /// The COW device.
        path: PathBuf,
        /// What is wrong with it.
        fault: Fault,
    },
    /// A dump could not be understood.
    #[error("dump, {place}: {what}")]
    Parse {
        /// Where in the dump, as far as the parser knows.
        place: String,
        /// What is wrong there.
        what: String,
    },
    /// A stream of snap_send could not be understood, or is not whole.
    #[error("stream, byte {at}: {what}")]
    Stream {
        /// The byte of the stream.
        at: u64,
        /// What is wrong there.
        what: String,
    },
    /// The tool refuses, for the safety of the data or because the request makes no sense.
    #[error("{0}")]
    Refused(String),
    /// What a device holds does not fit the memory.
    #[error("out of memory")]
    NoMemory,
    /// The user asked to stop.
    #[error("interrupted: {0}")]
    Interrupted(String),
}

impl Error {
    /// A dump is wrong at `place`.
    pub fn parse(place: impl ToString, what: impl ToString) -> Self {
        Self::Parse {
            place: place.to_string(),
            what: what.to_string(),
        }
    }

    /// What could not be done with the file or device `path` as a whole.
    pub fn file(path: &Path, action: &'static str, source: impl Into<io::Error>) -> Self {
        Self::File {
            path: path.into(),
            action,
            source: source.into(),
        }
    }

    /// What could not be done with the file or device `path` from byte `offset` on.
    pub fn io(path: &Path, action: &'static str, offset: u64, source: io::Error) -> Self {
        Self::Io {
            path: path.into(),
            action,
            offset,
            source,
        }
    }

    /// Whether the reader of our output went away, which needs no message.
    pub fn is_broken_pipe(&self) -> bool {
        match self {
            Self::Io { source, .. } | Self::File { source, .. } => {
                source.kind() == io::ErrorKind::BrokenPipe
            }
            _ => false,
        }
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! What tells, without reading it, that a file or device was written.

use crate::identity::directory_of;
use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// What the system tells of the writes to a file or device so far. Where that is another thing
/// later, it was written meanwhile.
///
/// A file system may tell the same time for writes within a few milliseconds, and a device may not
/// count what it does: that the same is told does not prove that nothing was written. What writes
/// by mmap is told of its first write to a page after that was stored last, which it never is on
/// tmpfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// Of a file.
    File {
        /// Its size in bytes.
        bytes: u64,
        /// When it was changed last, which nobody can set: seconds and nanoseconds since 1970.
        changed: (i64, i64),
    },
    /// Of a block device.
    Device {
        /// Sectors written since it is there.
        written: u64,
        /// Sectors discarded since then.
        discarded: u64,
    },
    /// Nothing is told.
    Unknown,
}

impl Writes {
    /// Those to `file` so far, those that others have only just begun included.
    pub fn of(file: &File) -> Self {
        let Ok(meta) = file.metadata() else {
            return Self::Unknown;
        };
        // What was written before may be on its way to a device, or in a page that is written to
        // without a word until it is stored.
        let _ = file.sync_data();
        if meta.file_type().is_block_device() {
            return Self::of_device(&directory_of(meta.rdev()));
        }
        match file.metadata() {
            Ok(meta) => Self::File {
                bytes: meta.len(),
                changed: (meta.ctime(), meta.ctime_nsec()),
            },
            Err(_) => Self::Unknown,
        }
    }

    /// Those to the device of which `directory` in sysfs tells.
    fn of_device(directory: &Path) -> Self {
        let stat = fs::read_to_string(directory.join("stat")).unwrap_or_default();
        let mut numbers = stat.split_ascii_whitespace().map(str::parse);
        // Documentation/block/stat.rst: the seventh, and where it is there the fourteenth.
        match numbers.nth(6) {
            Some(Ok(written)) => Self::Device {
                written,
                discarded: numbers.nth(6).and_then(|number| number.ok()).unwrap_or(0),
            },
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_device_counts() {
        let dir = tempfile::tempdir().unwrap();
        let told = |stat: &str| {
            fs::write(dir.path().join("stat"), stat).unwrap();
            Writes::of_device(dir.path())
        };
        let device = |written, discarded| Writes::Device { written, discarded };
        assert_eq!(
            told("   1  2  3  4  5  6  7  8  9 10 11 12 13 14 15 16 17\n"),
            device(7, 14)
        );
        // As older kernels have it.
        assert_eq!(told("1 2 3 4 5 6 7 8 9 10 11\n"), device(7, 0));
        for nothing in ["", "1 2 3 4 5 6", "1 2 3 4 5 6 x"] {
            assert_eq!(told(nothing), Writes::Unknown);
        }
        assert_eq!(Writes::of_device(Path::new("/nowhere")), Writes::Unknown);
    }

    #[test]
    fn a_file_that_is_written_tells() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let before = Writes::of(file.as_file());
        assert_eq!(Writes::of(file.as_file()), before);
        std::io::Write::write_all(&mut file, b"more").unwrap();
        assert_ne!(Writes::of(file.as_file()), before);
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! A block device, or a file that stands for one.

use crate::buffer::AlignedBuf;
use crate::error::{Error, Result};
use crate::format::SECTOR_BYTES;
use crate::identity::{directory_of, holding_loop, Identity};
use crate::output::create_new;
use crate::writes::Writes;
use rustix::fs::{
    fallocate, flock, seek, FallocateFlags, FlockOperation, OFlags, SeekFrom as SeekTo,
};
use rustix::io::Errno;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What a device is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading; several tools may do that at once with a file.
    Read,
    /// Reading and writing.
    Write,
}

/// An open block device or regular file, read and written at given offsets.
///
/// A block device is opened exclusively, so that one in use is refused, and past the page cache.
/// A regular file is locked (`flock`), so that two tools do not work on it at once.
#[derive(Debug)]
pub struct Device {
    file: File,
    path: PathBuf,
    /// Bytes, a multiple of the sector.
    bytes: u64,
    /// Bytes after these, less than a sector.
    tail: u32,
    /// Bytes in a logical block.
    block: u32,
    is_block_device: bool,
    direct: bool,
    identity: Identity,
    /// What was told of writes to it when it was opened, if only to be read.
    writes: Option<Writes>,
}

impl Device {
    /// Opens what `path` names.
    pub fn open(path: &Path, access: Access) -> Result<Self> {
        let type_of = |source| Error::file(path, "open", source);
        let meta = std::fs::metadata(path).map_err(type_of)?;
        let is_block_device = meta.file_type().is_block_device();
        if !is_block_device && !meta.is_file() {
            return Err(Error::Refused(format!(
                "{}: it is neither a block device nor a regular file",
                path.display()
            )));
        }
        let (file, direct) = if is_block_device {
            // It may open all the same, and fail at the first write.
            if access == Access::Write && is_read_only(&directory_of(meta.rdev())) {
                return Err(Error::Refused(format!(
                    "{}: it is read-only",
                    path.display()
                )));
            }
            Self::open_block_device(path, access)?
        } else {
            (Self::open_file(path, access)?, false)
        };
        let mut device = Self::from_file(file, path, direct)?;
        device.writes = (access == Access::Read).then(|| Writes::of(&device.file));
        Ok(device)
    }

    /// Creates a regular file of `bytes` bytes, all a hole, for its owner only; there must be none of
    /// that name.
    pub fn create(path: &Path, bytes: u64) -> Result<Self> {
        let file = create_new(path)?;
        Self::lock(&file, path, Access::Write)?;
        file.set_len(bytes)
            .map_err(|source| Error::file(path, "set the size of", source))?;
        Self::from_file(file, path, false)
    }

    fn open_block_device(path: &Path, access: Access) -> Result<(File, bool)> {
        let open = |flags: OFlags| {
            OpenOptions::new()
                .read(true)
                .write(access == Access::Write)
                .custom_flags(flags.bits() as i32)
                .open(path)
        };
        let opened = match open(OFlags::EXCL | OFlags::DIRECT) {
            Err(e) if e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                open(OFlags::EXCL).map(|file| (file, false))
            }
            opened => opened.map(|file| (file, true)),
        };
        opened.map_err(|source| {
            if source.raw_os_error() == Some(Errno::BUSY.raw_os_error()) {
                Error::InUse { path: path.into() }
            } else {
                Error::file(path, "open", source)
            }
        })
    }

    fn open_file(path: &Path, access: Access) -> Result<File> {
        let file = OpenOptions::new()
            .read(true)
            .write(access == Access::Write)
            .open(path)
            .map_err(|source| Error::file(path, "open", source))?;
        Self::lock(&file, path, access)?;
        if access == Access::Write {
            let failed = |source| Error::file(path, "open", source);
            let meta = file.metadata().map_err(failed)?;
            Self::refuse_held(path, &meta)?;
            // Whoever had the lock before may have put another file in its place.
            let named = std::fs::metadata(path).map_err(failed)?;
            if (named.dev(), named.ino()) != (meta.dev(), meta.ino()) {
                return Err(Error::Refused(format!(
                    "{}: it was replaced just now; run this again",
                    path.display()
                )));
            }
        }
        Ok(file)
    }

    /// Refuses to write to a file, of `meta`, that a loop device holds.
    pub fn refuse_held(path: &Path, meta: &Metadata) -> Result<()> {
        match holding_loop(meta) {
            None => Ok(()),
            Some(_) => Err(Error::InUse { path: path.into() }),
        }
    }

    fn lock(file: &File, path: &Path, access: Access) -> Result<()> {
        let operation = match access {
            Access::Read => FlockOperation::NonBlockingLockShared,
            Access::Write => FlockOperation::NonBlockingLockExclusive,
        };
        match flock(file, operation) {
            Err(Errno::WOULDBLOCK) => Err(Error::InUse { path: path.into() }),
            // A file system without locks is no reason to refuse.
            _ => Ok(()),
        }
    }

    fn from_file(mut file: File, path: &Path, direct: bool) -> Result<Self> {
        let ask = |source| Error::file(path, "ask for the size of", source);
        let end = file.seek(SeekFrom::End(0)).map_err(ask)?;
        let meta = file.metadata().map_err(ask)?;
        let is_block_device = meta.file_type().is_block_device();
        let block = if is_block_device {
            rustix::fs::ioctl_blksszget(&file).map_err(|e| ask(e.into()))?
        } else {
            SECTOR_BYTES
        };
        Ok(Self {
            writes: None,
            file,
            path: path.into(),
            bytes: end - end % u64::from(SECTOR_BYTES),
            tail: (end % u64::from(SECTOR_BYTES)) as u32,
            block,
            is_block_device,
            direct,
            identity: Identity::new(&meta),
        })
    }

    /// The name it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its size in bytes, whole sectors only.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Its size in sectors.
    pub fn sectors(&self) -> u64 {
        self.bytes / u64::from(SECTOR_BYTES)
    }

    /// Its logical block in bytes.
    pub fn block(&self) -> u32 {
        self.block
    }

    /// Whether it is a block device and not a file.
    pub fn is_block_device(&self) -> bool {
        self.is_block_device
    }

    /// How many bytes, less than a sector, follow the last whole sector.
    pub fn tail(&self) -> u32 {
        self.tail
    }

    /// Which bytes it stands for.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether a write to one may change the other, by whatever names they were opened.
    pub fn is_same(&self, other: &Self) -> bool {
        self.identity.overlaps(&other.identity)
    }

    /// The open file, for what only files can do.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Fills `buf` from byte `offset` on.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        if self.fits_direct(buf, offset) {
            return self.read_raw(buf, offset);
        }
        let (first, mut bounce) = self.bounce(buf.len(), offset);
        self.read_raw(&mut bounce, first)?;
        let skip = (offset - first) as usize;
        buf.copy_from_slice(&bounce[skip..skip + buf.len()]);
        Ok(())
    }

    /// Writes `buf` from byte `offset` on.
    pub fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        if self.fits_direct(buf, offset) {
            return self.write_raw(buf, offset);
        }
        let (first, mut bounce) = self.bounce(buf.len(), offset);
        self.read_raw(&mut bounce, first)?;
        let skip = (offset - first) as usize;
        bounce[skip..skip + buf.len()].copy_from_slice(buf);
        self.write_raw(&bounce, first)
    }

    /// Writes `zeros`, which are nothing else, from byte `offset` on; a file gets a hole.
    pub fn write_zeros(&self, zeros: &[u8], offset: u64) -> Result<()> {
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let bytes = zeros.len() as u64;
        if !self.is_block_device && fallocate(&self.file, mode, offset, bytes).is_ok() {
            return Ok(());
        }
        self.write_at(zeros, offset)
    }

    /// The first range at or after byte `offset` that is no hole; an empty one at the end where the
    /// rest is a hole. What knows no holes is data.
    pub fn data_from(&self, offset: u64) -> Range<u64> {
        let end = self.bytes.max(offset);
        if self.is_block_device {
            return offset..end;
        }
        match seek(&self.file, SeekTo::Data(offset)) {
            Err(Errno::NXIO) => end..end,
            Err(_) => offset..end,
            Ok(start) => match seek(&self.file, SeekTo::Hole(start)) {
                Ok(hole) => start.min(end)..hole.min(end),
                Err(_) => start.min(end)..end,
            },
        }
    }

    /// Makes the bytes `range` zero, whatever they are, as cheaply as the device can.
    pub fn zero(&self, range: Range<u64>) -> Result<()> {
        let mode = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        let bytes = range.end - range.start;
        if fallocate(&self.file, mode, range.start, bytes).is_ok() {
            return Ok(());
        }
        let zeros = AlignedBuf::new(bytes.min(1 << 20) as usize);
        let mut offset = range.start;
        while offset < range.end {
            let part = (range.end - offset).min(zeros.len() as u64) as usize;
            self.write_at(&zeros[..part], offset)?;
            offset += part as u64;
        }
        Ok(())
    }

    /// Refuses what was written since it was opened to be read, as far as that is told; `left` says what
    /// became of what was made of it.
    pub fn refuse_written(&self, left: &str) -> Result<()> {
        if self
            .writes
            .is_none_or(|writes| writes == Writes::of(&self.file))
        {
            return Ok(());
        }
        Err(Error::Refused(format!(
            "{}: somebody wrote to it while it was read; {left}",
            self.path.display()
        )))
    }

    /// Makes everything written durable.
    pub fn flush(&self) -> Result<()> {
        self.file
            .sync_data()
            .map_err(|source| Error::file(&self.path, "flush", source))
    }

    /// Makes a regular file `bytes` bytes long.
    pub fn set_bytes(&mut self, bytes: u64) -> Result<()> {
        self.file
            .set_len(bytes)
            .map_err(|source| Error::file(&self.path, "set the size of", source))?;
        self.bytes = bytes - bytes % u64::from(SECTOR_BYTES);
        self.tail = (bytes % u64::from(SECTOR_BYTES)) as u32;
        Ok(())
    }

    fn fits_direct(&self, buf: &[u8], offset: u64) -> bool {
        let block = u64::from(self.block);
        !self.direct
            || (offset % block == 0
                && buf.len() as u64 % block == 0
                && buf.as_ptr().align_offset(AlignedBuf::ALIGN) == 0)
    }

    /// The whole blocks around `bytes` bytes at `offset`: where they begin, and a buffer for them.
    fn bounce(&self, bytes: usize, offset: u64) -> (u64, AlignedBuf) {
        let block = u64::from(self.block);
        let first = offset - offset % block;
        let end = (offset + bytes as u64).next_multiple_of(block);
        (first, AlignedBuf::new((end - first) as usize))
    }

    fn read_raw(&self, mut buf: &mut [u8], mut offset: u64) -> Result<()> {
        while !buf.is_empty() {
            match self.file.read_at(buf, offset) {
                Ok(0) => {
                    let end = io::Error::new(io::ErrorKind::UnexpectedEof, "it ends there");
                    return Err(self.io_error("read", offset, end));
                }
                Ok(done) => {
                    buf = &mut buf[done..];
                    offset += done as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.io_error("read", offset, e)),
            }
        }
        Ok(())
    }

    fn write_raw(&self, mut buf: &[u8], mut offset: u64) -> Result<()> {
        while !buf.is_empty() {
            match self.file.write_at(buf, offset) {
                Ok(0) => {
                    let full = io::Error::from(io::ErrorKind::WriteZero);
                    return Err(self.io_error("write", offset, full));
                }
                Ok(done) => {
                    buf = &buf[done..];
                    offset += done as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.io_error("write", offset, e)),
            }
        }
        Ok(())
    }

    fn io_error(&self, action: &'static str, offset: u64, source: io::Error) -> Error {
        Error::io(&self.path, action, offset, source)
    }
}

/// Whether the block device of which `directory` in sysfs tells cannot be written.
fn is_read_only(directory: &Path) -> bool {
    std::fs::read(directory.join("ro")).is_ok_and(|ro| ro.starts_with(b"1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_is_read_only() {
        let dir = tempfile::tempdir().unwrap();
        for (ro, is) in [("1\n", true), ("0\n", false), ("", false)] {
            std::fs::write(dir.path().join("ro"), ro).unwrap();
            assert_eq!(is_read_only(dir.path()), is);
        }
        assert!(!is_read_only(&dir.path().join("nowhere")));
    }
}

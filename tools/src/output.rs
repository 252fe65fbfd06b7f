// SPDX-License-Identifier: GPL-2.0-only

//! What a tool writes to: the one place that decides whether it may.
//!
//! * What is also an input, by whatever name, is never written: not by a link, not through a loop
//!   device, not as a part of it.
//! * A block device is opened exclusively, so one that is mounted or used is refused; a file that
//!   a loop device holds is, too.
//! * What holds something is overwritten only if the user says so (`--force`). That is all that
//!   this allows.
//! * A file written from start to end gets its name when it is complete and durable; a name that
//!   something has got meanwhile is somebody else's.

use crate::buffer::{is_zero, AlignedBuf};
use crate::device::{Access, Device};
use crate::error::{Error, Result};
use crate::format::{Header, SECTOR_BYTES};
use crate::identity::Identity;
use crate::interrupt::Interrupt;
use crate::stream::Stream;
use rustix::fs::{renameat_with, OFlags, RenameFlags, CWD};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, IsTerminal};
use std::os::unix::fs::{chown, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;
use tempfile::NamedTempFile;

/// The bytes at the start of a device that must be zero for it to count as empty. Every common
/// file system and volume manager leaves a mark there.
const EMPTY_BYTES: u64 = 128 * 1024;

/// A file or device that is going to be written.
#[derive(Clone, Debug)]
pub struct Output {
    /// The name, links followed.
    path: PathBuf,
    force: bool,
    /// Whether nothing had the name when it was given.
    was_missing: bool,
    /// What is read meanwhile, with its name.
    inputs: Vec<(PathBuf, Identity)>,
    /// What ends waiting for a reader.
    interrupt: Option<Interrupt>,
}

/// What an [`Output`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Standard output, asked for by the name `-` or by its own.
    Standard,
    /// Nothing yet.
    Missing,
    /// A regular file.
    File,
    /// A block device.
    BlockDevice,
    /// A pipe, a terminal or the like.
    Stream,
}

impl Output {
    /// The output called `path`; with `force` what it holds may be overwritten.
    pub fn new(path: &Path, force: bool) -> Self {
        let path = resolve(path);
        Self {
            was_missing: fs::symlink_metadata(&path).is_err(),
            path,
            force,
            inputs: Vec::new(),
            interrupt: None,
        }
    }

    /// Who waits for its reader hears of an interrupt.
    pub fn watching(self, interrupt: &Interrupt) -> Self {
        Self {
            interrupt: Some(interrupt.clone()),
            ..self
        }
    }

    /// Must not be `input`.
    pub fn apart_from(mut self, input: &Device) -> Self {
        let identity = input.identity().clone();
        self.inputs.push((input.path().into(), identity));
        self
    }

    /// Must not be what `path` names, if there is such a file.
    pub fn apart_from_path(mut self, path: &Path) -> Self {
        self.inputs.push((resolve(path), Identity::of_path(path)));
        self
    }

    /// Must not be what `other` must not be, nor `other` itself.
    pub fn apart_from_output(mut self, other: &Self) -> Self {
        self.inputs.extend(other.inputs.iter().cloned());
        self.apart_from_path(&other.path)
    }

    /// The same, but what it holds may be overwritten.
    pub fn forced(&self) -> Self {
        Self {
            force: true,
            ..self.clone()
        }
    }

    /// The name, links followed.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn metadata(&self) -> Result<Option<Metadata>> {
        match fs::metadata(&self.path) {
            Ok(meta) => Ok(Some(meta)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::file(&self.path, "open", e)),
        }
    }

    /// Says what it is, or why it cannot be an output whatever it holds.
    pub fn kind(&self) -> Result<Kind> {
        if is_standard(&self.path) {
            let stdout = rustix::fs::fstat(io::stdout())
                .map_err(|e| Error::file(Path::new("standard output"), "ask for", e))?;
            let is_file = rustix::fs::FileType::from_raw_mode(stdout.st_mode).is_file();
            if is_file {
                self.check(&Identity::of_path(Path::new("/proc/self/fd/1")))?;
            }
            return Ok(Kind::Standard);
        }
        if let Some((input, _)) = self.inputs.iter().find(|(input, _)| *input == self.path) {
            return Err(self.clash(input));
        }
        let Some(meta) = self.metadata()? else {
            return Ok(Kind::Missing);
        };
        if !Identity::is_told(&meta) {
            return Err(Error::Refused(format!(
                "{}: it could be an input by another name, and nothing here tells; mount /sys",
                self.path.display()
            )));
        }
        self.check(&Identity::new(&meta))?;
        let kind = meta.file_type();
        if kind.is_dir() {
            return Err(Error::Refused(format!(
                "{}: it is a directory",
                self.path.display()
            )));
        }
        Ok(match kind {
            _ if kind.is_file() => Kind::File,
            _ if kind.is_block_device() => Kind::BlockDevice,
            _ => Kind::Stream,
        })
    }

    fn check(&self, identity: &Identity) -> Result<()> {
        let same = self
            .inputs
            .iter()
            .find(|(_, input)| input.overlaps(identity));
        same.map_or(Ok(()), |(input, _)| Err(self.clash(input)))
    }

    fn clash(&self, input: &Path) -> Error {
        Error::Refused(format!(
            "{}: it is (or holds, or is a part of) {} and cannot be the output",
            self.path.display(),
            input.display()
        ))
    }

    /// Opens a device or file to be written in place, which is made if there is none, and made
    /// longer if it has less than `bytes` bytes.
    pub fn device(&self, bytes: u64) -> Result<Device> {
        match self.kind()? {
            Kind::Missing => Device::create(&self.path, bytes),
            Kind::Standard | Kind::Stream => Err(Error::Refused(format!(
                "{}: it must be a block device or a file; ./- is a file called -",
                self.path.display()
            ))),
            kind => {
                let mut device = Device::open(&self.path, Access::Write)?;
                // What was checked by its name may be something else by now.
                self.check(device.identity())?;
                if !self.force {
                    refuse_content(&device)?;
                }
                if kind == Kind::File && device.bytes() < bytes {
                    device.set_bytes(bytes)?;
                }
                Ok(device)
            }
        }
    }

    /// Refuses what would be refused if it was written, and changes nothing. Returns the device or
    /// file that is there.
    pub fn refuse(&self) -> Result<Option<Device>> {
        match self.kind()? {
            Kind::Missing => {
                use rustix::fs::{access, Access};
                access(self.directory(), Access::WRITE_OK | Access::EXEC_OK)
                    .map_err(|e| Error::file(&self.path, "create", e))?;
                Ok(None)
            }
            Kind::File => {
                self.refuse_file()?;
                Device::open(&self.path, Access::Read).map(Some)
            }
            Kind::BlockDevice => {
                let device = Device::open(&self.path, Access::Read)?;
                if !self.force {
                    refuse_content(&device)?;
                }
                Ok(Some(device))
            }
            Kind::Standard | Kind::Stream => self.device(0).map(Some),
        }
    }

    /// Refuses a file that holds something, unless it may be overwritten.
    pub fn refuse_file(&self) -> Result<()> {
        let Some(meta) = self.metadata()?.filter(Metadata::is_file) else {
            return Ok(());
        };
        Device::refuse_held(&self.path, &meta)?;
        if self.force || meta.len() == 0 {
            return Ok(());
        }
        Err(Error::Refused(format!(
            "{}: it exists; give --force to overwrite it",
            self.path.display()
        )))
    }

    /// Opens it to be written from the first byte to the last.
    pub fn stream(&self) -> Result<Stream> {
        match self.kind()? {
            Kind::Standard => Ok(Stream::standard(self.interrupt.as_ref())),
            Kind::Stream => {
                let file = self.open()?;
                Ok(Stream::pipe(file, &self.path, self.interrupt.as_ref()))
            }
            Kind::BlockDevice => Ok(Stream::device(self.device(0)?)),
            Kind::Missing | Kind::File => {
                self.refuse_file()?;
                Stream::file(self)
            }
        }
    }

    /// Opens a pipe or the like, waiting for its reader.
    fn open(&self) -> Result<File> {
        let failed = |e| Error::file(&self.path, "open", e);
        let is_fifo = |meta: Metadata| meta.file_type().is_fifo();
        let mut options = File::options();
        options.write(true);
        let interrupt = match &self.interrupt {
            Some(interrupt) if self.metadata()?.is_some_and(is_fifo) => interrupt,
            _ => return options.open(&self.path).map_err(failed),
        };
        // An open that waits would not hear of it.
        options.custom_flags(OFlags::NONBLOCK.bits() as i32);
        loop {
            match options.open(&self.path) {
                Err(e) if e.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => {
                    if interrupt.asked() {
                        let what = "nobody has opened the output to read it";
                        return Err(Error::Interrupted(what.into()));
                    }
                    sleep(Duration::from_millis(50));
                }
                file => return file.map_err(failed),
            }
        }
    }

    /// The same for what is not meant to be read by people: a terminal is refused.
    pub fn binary_stream(&self) -> Result<Stream> {
        let is_terminal = match self.kind()? {
            Kind::Standard if is_closed(&io::stdout()) => {
                return Err(Error::Refused(
                    "-: standard output is closed, and all would be lost".into(),
                ));
            }
            Kind::Standard => io::stdout().is_terminal(),
            // Not a pipe, whose opening waits for a writer.
            Kind::Stream => {
                let meta = self.metadata()?;
                meta.is_some_and(|meta| meta.file_type().is_char_device())
                    && File::open(&self.path).is_ok_and(|file| file.is_terminal())
            }
            _ => false,
        };
        if is_terminal {
            return Err(Error::Refused(format!(
                "{}: it is a terminal; redirect it, or give another output",
                self.path.display()
            )));
        }
        self.stream()
    }

    /// The directory that holds it.
    pub fn directory(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        }
    }

    /// Gives the complete and durable file `from`, which lies in the same directory, the output's
    /// name.
    ///
    /// A file that had the name before hands its owner and mode on. Without leave to overwrite it, what has
    /// got the name or a content meanwhile is left alone.
    pub fn rename_from(&self, from: &Path) -> Result<()> {
        let is_new = self.was_missing && !self.force;
        if !is_new {
            self.refuse_file()?;
        }
        if let Some(meta) = self.metadata()?.filter(|_| !is_new) {
            // Who may not give it away keeps it.
            let _ = chown(from, Some(meta.uid()), Some(meta.gid()));
            let mode = fs::Permissions::from_mode(meta.permissions().mode() & 0o7777);
            fs::set_permissions(from, mode).map_err(|e| Error::file(from, "set the mode of", e))?;
        }
        let failed = |source| Error::file(from, "rename", source);
        File::open(from)
            .and_then(|file| file.sync_all())
            .map_err(failed)?;
        match is_new {
            false => fs::rename(from, &self.path).map_err(failed)?,
            true => match rename_new(from, &self.path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(Error::Refused(format!(
                        "{}: somebody else has made it meanwhile; give --force to overwrite it",
                        self.path.display()
                    )));
                }
                renamed => renamed.map_err(failed)?,
            },
        }
        sync_directory(self.directory())
    }
}

/// Whether `path` is standard output: by the name `-`, or that of a pipe or terminal that is.
pub fn is_standard(path: &Path) -> bool {
    let is_stdout = |meta: Metadata| {
        let kind = meta.file_type();
        !kind.is_file()
            && !kind.is_block_device()
            && rustix::fs::fstat(io::stdout()).is_ok_and(|stdout| {
                (stdout.st_dev, stdout.st_ino, stdout.st_rdev)
                    == (meta.dev(), meta.ino(), meta.rdev())
            })
    };
    path == Path::new("-") || fs::metadata(path).is_ok_and(is_stdout)
}

/// Renames a file to what nothing may be called.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system can, nor has every one links.
        Err(Errno::INVAL | Errno::NOSYS) => match fs::hard_link(from, to) {
            Ok(()) => fs::remove_file(from),
            Err(_) if fs::symlink_metadata(to).is_ok() => Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => fs::rename(from, to),
        },
        renamed => Ok(renamed?),
    }
}

/// Whether `file` was closed when the process began: the runtime has put /dev/null in its place
/// then and, unlike others, opened that to read it, too.
fn is_closed(file: &impl std::os::fd::AsFd) -> bool {
    let null = fs::metadata("/dev/null").map(|meta| meta.rdev());
    let flags = rustix::fs::fcntl_getfl(file);
    let is_null = rustix::fs::fstat(file).is_ok_and(|stat| {
        rustix::fs::FileType::from_raw_mode(stat.st_mode).is_char_device()
            && null.is_ok_and(|null| null == stat.st_rdev)
    });
    is_null && flags.is_ok_and(|flags| flags & OFlags::RWMODE == OFlags::RDWR)
}

/// A new file in `directory`, for its owner only, which disappears unless it is given another name.
pub fn temporary(directory: &Path, prefix: impl AsRef<OsStr>) -> io::Result<NamedTempFile> {
    // Not `tempfile_in`: its errors have the name in them.
    tempfile::Builder::new()
        .prefix(&prefix)
        .make_in(directory, |path| {
            let mut options = File::options();
            options.read(true).write(true).create_new(true).mode(0o600);
            options.open(path)
        })
}

/// Makes the names in `directory` durable.
pub fn sync_directory(directory: &Path) -> Result<()> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|e| Error::file(directory, "flush", e))
}

/// Creates the file `path`, which must not exist, for the owner only.
pub fn create_new(path: &Path) -> Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|e| Error::file(path, "create", e))
}

/// Refuses a device that something is stored on.
fn refuse_content(device: &Device) -> Result<()> {
    let bytes = device.bytes().min(EMPTY_BYTES);
    let mut start = AlignedBuf::new(bytes as usize);
    device.read_at(&mut start, 0)?;
    let is_short = device.bytes() == 0 && device.tail() > 0;
    if is_zero(&start) && !is_short {
        return Ok(());
    }
    let header: Option<[u8; Header::BYTES]> = start.first_chunk().copied();
    let what = match header.map(|header| Header::read(&header)) {
        Some(Ok(Some(_))) => "a snapshot",
        _ => "data",
    };
    Err(Error::Refused(format!(
        "{}: it holds {what}; give --force to overwrite it",
        device.path().display()
    )))
}

/// The bytes of `sectors` sectors, where a file can have as many.
pub fn bytes_of(sectors: u64) -> Option<u64> {
    let bytes = sectors.checked_mul(SECTOR_BYTES.into())?;
    i64::try_from(bytes).is_ok().then_some(bytes)
}

/// Follows links to a file, whether it exists or not, so that a file made beside it and renamed
/// replaces the file and not the link. Names of anything else are left as they are.
fn resolve(path: &Path) -> PathBuf {
    const MAX_LINKS: u32 = 40;
    if path == Path::new("-") || fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        return path.into();
    }
    if let Ok(path) = fs::canonicalize(path) {
        return path;
    }
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let Ok(link) = fs::read_link(&path) else {
            break;
        };
        path = path.parent().unwrap_or(Path::new("")).join(link);
    }
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    match (fs::canonicalize(parent), path.file_name()) {
        (Ok(parent), Some(name)) => parent.join(name),
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_got_the_name_meanwhile_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let (from, path) = (dir.path().join("from"), dir.path().join("out"));
        for (content, force) in [("precious", false), ("", false), ("precious", true)] {
            let output = Output::new(&path, force);
            fs::write(&from, "new").unwrap();
            fs::write(&path, content).unwrap();
            let renamed = output.rename_from(&from);
            let holds = fs::read_to_string(&path).unwrap();
            assert_eq!(renamed.is_ok(), force);
            assert_eq!(holds, if force { "new" } else { content });
            fs::remove_file(&path).unwrap();
        }
        // Nor is what has got a content.
        fs::write(&from, "new").unwrap();
        fs::write(&path, "").unwrap();
        let output = Output::new(&path, false);
        fs::write(&path, "precious").unwrap();
        assert!(output.rename_from(&from).is_err());
        fs::write(&path, "").unwrap();
        output.rename_from(&from).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert!(!from.exists());
    }
}

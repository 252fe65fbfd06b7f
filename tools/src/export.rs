// SPDX-License-Identifier: GPL-2.0-only

//! Writes a snapshot's content to an image.

use crate::buffer::{is_zero, AlignedBuf};
use crate::device::{Access, Device};
use crate::error::{Error, Result};
use crate::format::SECTOR_BYTES;
use crate::interrupt::Interrupt;
use crate::output::{sync_directory, Kind, Output};
use crate::report::{Progress, Report};
use crate::snapshot::Snapshot;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{channel, Receiver};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Bytes read and written at once, few enough for a processor's own cache.
const BUFFER_BYTES: u64 = 512 << 10;
/// Threads that copy. Each reads a buffer and writes it, so that while one waits for a device
/// another works, and no buffer goes from one processor to another.
const COPIERS: usize = 4;
/// Zeros in blocks of this many bytes become holes.
const HOLE_BYTES: usize = 64 * 1024;

/// Where to export to, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// A block device, or a file. A file is called `NAME.partial` until it is complete.
    pub output: PathBuf,
    /// Overwrite what the output holds.
    pub force: bool,
    /// Begin from the start even if an earlier export was interrupted.
    pub restart: bool,
    /// Where to note how far the export came; for a file, `NAME.partial.state` by default.
    pub state: Option<PathBuf>,
    /// How often what was written is made durable and noted.
    pub checkpoint: Duration,
}

/// What an export did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Bytes of the image.
    pub bytes: u64,
    /// The byte at which it went on.
    pub resumed_at: u64,
    /// Bytes written, the rest being holes or done before.
    pub written: u64,
}

/// How far an export came, as noted in its state file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    snap_export: u32,
    /// What was exported: the state means nothing for anything else.
    source: Source,
    /// Where it was exported to: nor for anything else.
    destination: Destination,
    /// Everything before this byte is in the output, durably.
    done: u64,
}

impl State {
    const VERSION: u32 = 2;

    /// Reads the state file `path`; `None` where there is none. A file that is something else is
    /// refused.
    fn read(path: &Path) -> Result<Option<Self>> {
        let text = match fs::read(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(file_error(path, "read"))?,
        };
        match serde_json::from_slice::<Self>(&text) {
            Ok(state) if state.snap_export == Self::VERSION => Ok(Some(state)),
            _ => Err(Error::Refused(format!(
                "{}: it is not the state of an export, and is left alone; give --state another \
                 file",
                path.display()
            ))),
        }
    }

    /// Refuses to go on with the export of anything but `source`.
    fn refuse_other(&self, source: &Source, path: &Path) -> Result<()> {
        if self.source == *source {
            return Ok(());
        }
        Err(Error::Refused(format!(
            "{}: it belongs to the export of something else, or the origin or COW device has \
             changed since; give --restart to begin from the start",
            path.display()
        )))
    }

    fn other_output(&self, path: &Path) -> Error {
        Error::Refused(format!(
            "{}: it belongs to an export to another output; give --restart to begin from the start",
            path.display()
        ))
    }

    /// Writes the state file `path`, durably and at once.
    fn write(&self, path: &Path) -> Result<()> {
        let failed = |source| file_error(path, "write")(source);
        let text = serde_json::to_vec(self).map_err(|e| failed(e.into()))?;
        let directory = Output::new(path, true).directory().to_owned();
        let mut file = tempfile::Builder::new()
            .prefix(".snap_export.")
            .tempfile_in(&directory)
            .map_err(failed)?;
        file.write_all(&text).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(path).map_err(|e| failed(e.error))?;
        sync_directory(&directory)
    }
}

/// The file or device that an export goes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Destination {
    is_block_device: bool,
    /// The device's number, or that of the file system.
    device: u64,
    /// The file's inode.
    inode: u64,
    bytes: u64,
}

impl Destination {
    fn of(device: &Device) -> Result<Self> {
        let meta = device.file().metadata();
        let meta = meta.map_err(file_error(device.path(), "ask for"))?;
        let is_block_device = device.is_block_device();
        let (device_number, inode) = match is_block_device {
            true => (meta.rdev(), 0),
            false => (meta.dev(), meta.ino()),
        };
        Ok(Self {
            is_block_device,
            device: device_number,
            inode,
            bytes: device.bytes(),
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Source {
    bytes: u64,
    chunk_bytes: u64,
    records: u64,
    /// A digest of the list of records.
    list: u64,
    /// For files, when they were changed, in nanoseconds since 1970.
    cow_changed: i128,
    origin_changed: i128,
}

impl Source {
    fn of(snapshot: &Snapshot) -> Self {
        let changed = |device: &Device| match device.file().metadata() {
            Ok(meta) if !device.is_block_device() => {
                i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec())
            }
            _ => 0,
        };
        // FNV-1a over the numbers of all runs.
        let mut list = 0xcbf2_9ce4_8422_2325;
        for run in snapshot.map().runs() {
            for number in [run.old, run.new, run.length] {
                list = (list ^ number).wrapping_mul(0x0100_0000_01b3_u64);
            }
        }
        Self {
            bytes: snapshot.bytes(),
            chunk_bytes: snapshot.chunk_bytes(),
            records: snapshot.map().records(),
            list,
            cow_changed: changed(snapshot.cow().device()),
            origin_changed: snapshot.origin().map_or(0, changed),
        }
    }
}

/// Writes what `snapshot` holds to the output.
///
/// Interrupted in whatever way, it goes on where it was the next time: what was written is made
/// durable and noted in the state file from time to time.
pub fn export(
    snapshot: &Snapshot,
    options: &Options,
    report: &Report,
    interrupt: &Interrupt,
) -> Result<Exported> {
    let source = Source::of(snapshot);
    let mut output = Target::open(snapshot, options, source)?;
    let resumed_at = output.state.done;
    if resumed_at > 0 {
        report.info(format_args!("going on at byte {resumed_at}"));
    }
    let written = output.copy(snapshot, report, interrupt)?;
    output.finish()?;
    Ok(Exported {
        bytes: snapshot.bytes(),
        resumed_at,
        written,
    })
}

struct Target {
    device: Arc<Device>,
    /// What the complete file becomes.
    rename_to: Option<Output>,
    state_path: Option<PathBuf>,
    state: State,
    checkpoint: Duration,
}

impl Target {
    fn open(snapshot: &Snapshot, options: &Options, source: Source) -> Result<Self> {
        let output = Output::new(&options.output, options.force);
        let output = snapshot.inputs().fold(output, Output::apart_from);
        match output.kind()? {
            Kind::Missing | Kind::File => Self::open_file(output, options, source),
            Kind::BlockDevice => Self::open_device(&output, options, source, snapshot),
            Kind::Standard | Kind::Stream => Err(Error::Refused(format!(
                "{}: it is neither a block device nor a file",
                output.path().display()
            ))),
        }
        .and_then(|target| target.compare(snapshot))
    }

    /// A file: what is copied goes to another name first.
    fn open_file(output: Output, options: &Options, source: Source) -> Result<Self> {
        output.refuse_file()?;
        let beside = |suffix| {
            let mut name = output.path().as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        let partial = beside(".partial");
        let state_path = options.state.clone();
        let state_path = state_path.unwrap_or_else(|| beside(".partial.state"));
        let partial_output = Output::new(&partial, true).apart_from_output(&output);
        let state_output = Output::new(&state_path, true).apart_from_output(&partial_output);
        refuse_no_file(&state_output)?;
        let earlier = State::read(&state_path)?;
        let there = match fs::symlink_metadata(&partial) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            meta => Some(meta.map_err(file_error(&partial, "open"))?),
        };
        if let Some(meta) = there {
            partial_output.kind()?;
            // An empty file is one that an export had no time to note.
            let is_ours = match &earlier {
                Some(state) => {
                    (state.destination.device, state.destination.inode) == (meta.dev(), meta.ino())
                }
                None => meta.len() == 0,
            };
            if !meta.is_file() || !is_ours {
                return Err(Error::Refused(format!(
                    "{}: it exists, and no export that can be gone on with made it; remove it if \
                     nobody needs it",
                    partial.display()
                )));
            }
            // Nobody else is at it.
            let device = Device::open(&partial, Access::Write)?;
            if let Some(state) = earlier.filter(|_| !options.restart) {
                state.refuse_other(&source, &state_path)?;
                return Ok(Self {
                    device: Arc::new(device),
                    rename_to: Some(output),
                    state_path: Some(state_path),
                    state,
                    checkpoint: options.checkpoint,
                });
            }
            fs::remove_file(&partial).map_err(file_error(&partial, "remove"))?;
        } else if let Some(state) = earlier.filter(|_| !options.restart) {
            state.refuse_other(&source, &state_path)?;
            // A state that was named may be another output's.
            if state.destination.is_block_device || options.state.is_some() {
                return Err(state.other_output(&state_path));
            }
        }
        let mut device = Device::create(&partial, 0)?;
        let bytes = source.bytes;
        let state = State {
            snap_export: State::VERSION,
            source,
            destination: Destination {
                bytes,
                ..Destination::of(&device)?
            },
            done: 0,
        };
        state.write(&state_path)?;
        device.set_bytes(bytes)?;
        Ok(Self {
            device: Arc::new(device),
            rename_to: Some(output),
            state_path: Some(state_path),
            state,
            checkpoint: options.checkpoint,
        })
    }

    fn open_device(
        output: &Output,
        options: &Options,
        source: Source,
        snapshot: &Snapshot,
    ) -> Result<Self> {
        let mut earlier = None;
        if let Some(path) = &options.state {
            refuse_no_file(&Output::new(path, true).apart_from_output(output))?;
            earlier = State::read(path)?;
        }
        // With something done by an earlier export the device holds that.
        let goes_on = earlier.filter(|state| !options.restart && state.done > 0);
        let device = match goes_on {
            Some(_) => output.forced().device(0)?,
            None => output.device(0)?,
        };
        if device.bytes() < snapshot.bytes() {
            return Err(Error::Refused(format!(
                "{}: it has {} bytes, but the snapshot has {}",
                device.path().display(),
                device.bytes(),
                snapshot.bytes()
            )));
        }
        let destination = Destination::of(&device)?;
        let state = match (goes_on, &options.state) {
            (Some(state), Some(path)) => {
                state.refuse_other(&source, path)?;
                if state.destination != destination {
                    return Err(state.other_output(path));
                }
                state
            }
            _ => State {
                snap_export: State::VERSION,
                source,
                destination,
                done: 0,
            },
        };
        Ok(Self {
            device: Arc::new(device),
            rename_to: None,
            state_path: options.state.clone(),
            state,
            checkpoint: options.checkpoint,
        })
    }

    /// Refuses to go on with an output that does not hold what the state says: looks at it in
    /// several places.
    fn compare(self, snapshot: &Snapshot) -> Result<Self> {
        const PLACES: u64 = 16;
        const PLACE_BYTES: u64 = 64 * 1024;
        let done = self.state.done.min(snapshot.bytes());
        let bytes = done.min(PLACE_BYTES);
        let mut buffers = [(); 2].map(|()| AlignedBuf::new(bytes as usize));
        for place in 0..PLACES.min(done) {
            let sector = u64::from(SECTOR_BYTES);
            let offset = (done - bytes) / (PLACES - 1) * place / sector * sector;
            let [expected, found] = &mut buffers;
            snapshot.read_at(expected, offset)?;
            self.device.read_at(found, offset)?;
            if **expected != **found {
                return Err(Error::Refused(format!(
                    "{}: it does not hold what was exported to it, at byte {offset} or after; give \
                     --restart to begin from the start",
                    self.device.path().display()
                )));
            }
        }
        Ok(self)
    }

    /// Copies what is left; returns how many bytes were written.
    fn copy(&mut self, snapshot: &Snapshot, report: &Report, stop: &Interrupt) -> Result<u64> {
        let bytes = snapshot.bytes();
        let progress = report.progress("exporting", bytes);
        progress.advance(self.state.done);
        let next = AtomicU64::new(self.state.done);
        let (copied, results) = channel();
        thread::scope(|scope| {
            for _ in 0..COPIERS {
                let (copied, next) = (copied.clone(), &next);
                let sink = Sink {
                    device: Arc::clone(&self.device),
                    holes: self.rename_to.is_some(),
                };
                scope.spawn(move || {
                    let mut buf = AlignedBuf::new(BUFFER_BYTES as usize);
                    loop {
                        let offset = next.fetch_add(BUFFER_BYTES, Ordering::Relaxed);
                        if offset >= bytes {
                            break;
                        }
                        let buf = &mut buf[..(bytes - offset).min(BUFFER_BYTES) as usize];
                        let result = snapshot
                            .read_at(buf, offset)
                            .and_then(|()| sink.write(buf, offset));
                        let failed = result.is_err();
                        let result = result.map(|written| (offset, written));
                        if copied.send(result).is_err() || failed {
                            break;
                        }
                    }
                });
            }
            drop(copied);
            let result = self.gather(&results, bytes, stop, &progress);
            // Where that is an error, nobody shall begin another buffer.
            next.store(bytes, Ordering::Relaxed);
            result
        })
    }

    /// Waits for the copiers, and notes from time to time up to where all is copied.
    fn gather(
        &mut self,
        results: &Receiver<Result<(u64, u64)>>,
        bytes: u64,
        stop: &Interrupt,
        progress: &Progress,
    ) -> Result<u64> {
        let mut all_written = 0;
        let mut noted = Instant::now();
        // Buffers copied before an earlier one.
        let mut ahead = BTreeSet::new();
        for result in results {
            let (offset, written) = match result {
                Ok(copied) => copied,
                Err(error) => {
                    // What is there can be used the next time; why it ended is what matters now.
                    let _ = self.note();
                    return Err(error);
                }
            };
            all_written += written;
            progress.advance((bytes - offset).min(BUFFER_BYTES));
            ahead.insert(offset);
            while ahead.remove(&self.state.done) {
                self.state.done = (self.state.done + BUFFER_BYTES).min(bytes);
            }
            if stop.asked() {
                self.note()?;
                return Err(Error::Interrupted(format!(
                    "{} is complete up to byte {}; the same command goes on there",
                    self.device.path().display(),
                    self.state.done
                )));
            }
            if noted.elapsed() >= self.checkpoint {
                self.note()?;
                noted = Instant::now();
            }
        }
        Ok(all_written)
    }

    /// Makes what was written durable and notes it.
    fn note(&self) -> Result<()> {
        let Some(path) = &self.state_path else {
            return Ok(());
        };
        self.device.flush()?;
        self.state.write(path)
    }

    fn finish(self) -> Result<()> {
        // The name says that the image is complete, so it must be.
        self.device.flush()?;
        if let Some(output) = &self.rename_to {
            output.rename_from(self.device.path())?;
        }
        if let Some(path) = &self.state_path {
            match fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(file_error(path, "remove")(e));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// What the copiers write to.
struct Sink {
    device: Arc<Device>,
    /// Whether what is not written reads as zero.
    holes: bool,
}

impl Sink {
    /// Writes `bytes` at `offset`, but leaves holes where it may; returns how many were written.
    fn write(&self, bytes: &[u8], offset: u64) -> Result<u64> {
        if !self.holes {
            self.device.write_at(bytes, offset)?;
            return Ok(bytes.len() as u64);
        }
        let mut written = 0;
        let mut from = 0;
        while from < bytes.len() {
            let block = |at: usize| &bytes[at..bytes.len().min(at + HOLE_BYTES)];
            if is_zero(block(from)) {
                from += HOLE_BYTES;
                continue;
            }
            let mut end = from + block(from).len();
            while end < bytes.len() && !is_zero(block(end)) {
                end += block(end).len();
            }
            self.device
                .write_at(&bytes[from..end], offset + from as u64)?;
            written += (end - from) as u64;
            from = end;
        }
        Ok(written)
    }
}

/// Refuses a state that would not be a file, or would be what `state` must not be.
fn refuse_no_file(state: &Output) -> Result<()> {
    match state.kind()? {
        Kind::Missing | Kind::File => Ok(()),
        _ => Err(Error::Refused(format!(
            "{}: a state must be a file",
            state.path().display()
        ))),
    }
}

fn file_error<'a>(path: &'a Path, action: &'static str) -> impl FnOnce(io::Error) -> Error + 'a {
    move |source| Error::File {
        path: path.into(),
        action,
        source,
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! Writes a snapshot's content to an image.

mod plan;
mod state;

use crate::buffer::{is_zero, AlignedBuf};
use crate::device::{Access, Device};
use crate::error::{Error, Result};
use crate::format::SECTOR_BYTES;
use crate::interrupt::Interrupt;
use crate::output::{Kind, Output};
use crate::report::Report;
use crate::snapshot::Snapshot;
use crate::threads::share;
use plan::{Plan, Task, What};
use serde::Serialize;
use state::{Destination, Source, State};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// Bytes of the image.
    pub bytes: u64,
    /// The byte at which it went on.
    pub resumed_at: u64,
    /// Bytes written, the rest being holes or done before.
    pub written: u64,
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
    fn copy(&mut self, snapshot: &Snapshot, report: &Report, interrupt: &Interrupt) -> Result<u64> {
        let bytes = snapshot.bytes();
        let sink = Sink {
            device: Arc::clone(&self.device),
            holes: self.rename_to.is_some(),
        };
        let plan = Plan::new(snapshot, self.state.done, !sink.holes);
        let plan = Mutex::new(plan);
        let progress = report.progress("exporting", bytes);
        progress.advance(self.state.done);
        let done = Mutex::new(Done {
            target: self,
            ahead: BTreeMap::new(),
            written: 0,
            noted: Instant::now(),
        });
        let copied = share(COPIERS, |stop| {
            let mut buf = AlignedBuf::new(BUFFER_BYTES as usize);
            while !stop.asked() && !interrupt.asked() {
                let Some(task) = lock(&plan).next() else {
                    break;
                };
                let written = match &task.what {
                    What::Zero => {
                        sink.device.zero(task.bytes.clone())?;
                        0
                    }
                    What::Data if task.bytes.is_empty() => 0,
                    What::Data => {
                        let bytes = (task.bytes.end - task.bytes.start) as usize;
                        snapshot.read_at(&mut buf[..bytes], task.bytes.start)?;
                        sink.write(&buf[..bytes], task.bytes.start)?
                    }
                };
                progress.advance(task.bytes.end - task.from);
                lock(&done).add(&task, written)?;
            }
            Ok(())
        });
        let written = lock(&done).written;
        drop(done);
        if copied.is_err() || (interrupt.asked() && !lock(&plan).is_done()) {
            let noted = self.note();
            // What is there can be used the next time; why it ended is what matters now.
            copied?;
            noted?;
            return Err(Error::Interrupted(format!(
                "{} is complete up to byte {}; the same command goes on there",
                self.device.path().display(),
                self.state.done
            )));
        }
        self.state.done = bytes;
        Ok(written)
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

/// What the copiers have done.
struct Done<'a> {
    target: &'a mut Target,
    /// Tasks done before an earlier one: from where to where.
    ahead: BTreeMap<u64, u64>,
    written: u64,
    noted: Instant,
}

impl Done<'_> {
    /// Adds a task, and notes from time to time up to where all is copied.
    fn add(&mut self, task: &Task, written: u64) -> Result<()> {
        self.written += written;
        self.ahead.insert(task.from, task.bytes.end);
        while let Some(end) = self.ahead.remove(&self.target.state.done) {
            self.target.state.done = end;
        }
        if self.noted.elapsed() >= self.target.checkpoint {
            self.target.note()?;
            self.noted = Instant::now();
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

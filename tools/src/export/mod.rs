// SPDX-License-Identifier: GPL-2.0-only

//! Writes a snapshot's content to an image.

mod image;
mod in_order;
pub(crate) mod plan;
mod qcow2;
mod sink;
mod state;
mod whole;

use crate::buffer::{is_zero, AlignedBuf};
use crate::device::{Access, Device};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::format::SECTOR_BYTES;
use crate::interrupt::Interrupt;
use crate::output::{Kind, Output};
use crate::replaced::Replaced;
use crate::report::Report;
use crate::snapshot::Snapshot;
use crate::state_file::{self, Subject};
use crate::threads::share;
use image::Image;
use in_order::InOrder;
use plan::{Plan, Task, What};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use sink::Sink;
use state::{Destination, Source, State};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes read and written at once, few enough for a processor's own cache.
const BUFFER_BYTES: u64 = 512 << 10;
/// Threads that copy. Each reads a buffer and writes it, so that while one waits for a device
/// another works, and no buffer goes from one processor to another.
const COPIERS: usize = 4;
/// What a copy of what was written meanwhile is.
const NO_SNAPSHOT: &str = "what was exported is not the snapshot";

/// What an image is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// The content, byte for byte
    #[default]
    Raw,
    /// What QEMU calls so: a file that is no longer than what it holds, zeros aside
    Qcow2,
}

/// Where to export to, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the output becomes.
    pub format: Format,
    /// A block device, a file, a pipe or the like, `-` for standard output. A file is called
    /// `NAME.partial` until it is complete.
    pub output: PathBuf,
    /// Compute the SHA-256 of the content.
    pub sha256: bool,
    /// Read the image again, and compare it with the snapshot.
    pub verify: bool,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// Bytes of the content.
    pub bytes: u64,
    /// The byte at which it went on.
    pub resumed_at: u64,
    /// Bytes written, the rest being holes or done before.
    pub written: u64,
    /// The SHA-256 of the content in hexadecimal, if it was asked for.
    pub sha256: Option<String>,
    /// Whether the image was read again and found to be the snapshot.
    pub verified: bool,
}

/// Writes what `snapshot` holds to the output.
///
/// Interrupted in whatever way, it goes on where it was the next time: what was written is made
/// durable and noted in the state file from time to time. What is written to a pipe or to standard
/// output cannot be gone on with, nor can a qcow2 image.
pub fn export(
    snapshot: &Snapshot,
    options: &Options,
    report: &Report,
    interrupt: &Interrupt,
) -> Result<Exported> {
    let output = Output::new(&options.output, options.force);
    let output = snapshot.inputs().fold(output, Output::apart_from);
    let kind = output.kind()?;
    if options.format == Format::Qcow2 || matches!(kind, Kind::Standard | Kind::Stream) {
        return whole::export(&output, kind, snapshot, options, report, interrupt);
    }
    let mut target = Target::open(output, kind, snapshot, options)?;
    let resumed_at = target.state.done;
    if resumed_at > 0 {
        report.info(format_args!("going on at byte {resumed_at}"));
    }
    let mut hash = options.sha256.then(Hash::default);
    if let Some(hash) = hash.as_mut().filter(|_| resumed_at > 0) {
        hash.read(snapshot, resumed_at, report, interrupt)?;
    }
    let (written, sha256) = target.copy(snapshot, hash, report, interrupt)?;
    if options.verify {
        target.verify(snapshot, report, interrupt)?;
    }
    target.finish()?;
    Ok(Exported {
        bytes: snapshot.bytes(),
        resumed_at,
        written,
        sha256,
        verified: options.verify,
    })
}

/// Reads by several threads what `plan` has, and gives it to sink and hash in order. Ends early
/// where `interrupt` asks for it.
fn copy_in_order(
    snapshot: &Snapshot,
    plan: Plan<'_>,
    in_order: &InOrder<(Sink, Option<Hash>)>,
    interrupt: &Interrupt,
    done: impl Fn(&Task) + Sync,
) -> Result<()> {
    let plan = Mutex::new(plan);
    share(COPIERS, |stop| {
        let mut buf = AlignedBuf::new(BUFFER_BYTES as usize);
        while !stop.asked() && !interrupt.asked() {
            let Some(task) = lock(&plan).next() else {
                break;
            };
            let bytes = &mut buf[..task.data_bytes()];
            if !bytes.is_empty() {
                snapshot.read_at(bytes, task.bytes.start)?;
            }
            in_order.give(task.all(), stop, |(sink, hash)| {
                if let Some(hash) = hash {
                    hash.add_task(&task, bytes);
                }
                sink.put_zeros(task.hole_bytes())?;
                sink.put(bytes)
            })?;
            done(&task);
        }
        Ok(())
    })
}

/// The SHA-256 of the content, while that is copied.
#[derive(Default)]
struct Hash(Sha256);

impl Hash {
    /// Adds a task: the hole, and what was read for it.
    fn add_task(&mut self, task: &Task, read: &[u8]) {
        sink::zeros(task.hole_bytes()).for_each(|zeros| self.0.update(zeros));
        self.0.update(read);
    }

    /// Adds the first `bytes` of `snapshot`, which an earlier export copied.
    fn read(
        &mut self,
        snapshot: &Snapshot,
        bytes: u64,
        report: &Report,
        interrupt: &Interrupt,
    ) -> Result<()> {
        let plan = Plan::new(snapshot, 0..bytes, true);
        let in_order = InOrder::new(0, (Sink::None, Some(std::mem::take(self))));
        let progress = report.progress("hashing", bytes);
        copy_in_order(snapshot, plan, &in_order, interrupt, |task| {
            progress.advance(task.bytes.end - task.from);
        })?;
        let (done, (_, hash)) = in_order.into_inner();
        *self = hash.unwrap_or_default();
        if done < bytes {
            return Err(Error::Interrupted(
                "nothing was done; the same command goes on".into(),
            ));
        }
        Ok(())
    }

    fn hex(self) -> String {
        Digest::from(self.0.finalize()).to_string()
    }
}

struct Target {
    image: Image,
    /// What the complete file takes the name of.
    replaced: Option<Replaced>,
    state_path: Option<PathBuf>,
    state: State,
    checkpoint: Duration,
}

impl Target {
    fn open(output: Output, kind: Kind, snapshot: &Snapshot, options: &Options) -> Result<Self> {
        let source = Source::of(snapshot);
        match kind {
            Kind::BlockDevice => Self::open_device(&output, options, source, snapshot),
            _ => Self::open_file(output, options, source),
        }
        .and_then(|target| target.compare(snapshot))
    }

    /// A file: what is copied goes to another name first.
    fn open_file(output: Output, options: &Options, source: Source) -> Result<Self> {
        output.refuse_file()?;
        let replaced = Some(Replaced::lock(&output)?);
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
        let state_path = state_file::name(&state_output)?;
        let earlier = State::read(&state_path)?;
        let there = match fs::symlink_metadata(&partial) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            meta => Some(meta.map_err(|e| Error::file(&partial, "open", e))?),
        };
        if let Some(meta) = there {
            partial_output.kind()?;
            // An empty file is one that an export had no time to note.
            let is_ours = match &earlier {
                Some(state) => state.destination.subject == Subject::new(&meta),
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
                    image: Image::file(device),
                    replaced,
                    state_path: Some(state_path),
                    state,
                    checkpoint: options.checkpoint,
                });
            }
            fs::remove_file(&partial).map_err(|e| Error::file(&partial, "remove", e))?;
        } else if let Some(state) = earlier.filter(|_| !options.restart) {
            state.refuse_other(&source, &state_path)?;
            // A state that was named may be another output's.
            if state.destination.subject.is_block_device || options.state.is_some() {
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
        if let Err(error) = state.write(&state_path) {
            // Nothing has begun.
            state_file::remove(&partial)?;
            return Err(error);
        }
        device.set_bytes(bytes)?;
        Ok(Self {
            image: Image::file(device),
            replaced,
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
        let state_output = options.state.as_deref();
        let state_output =
            state_output.map(|path| Output::new(path, true).apart_from_output(output));
        let state_path = state_output.as_ref().map(state_file::name).transpose()?;
        let earlier = state_path.as_deref().map_or(Ok(None), State::read)?;
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
        let state = match (goes_on, &state_path) {
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
            image: Image::block_device(device),
            replaced: None,
            state_path,
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
            self.image.device().read_at(found, offset)?;
            if **expected != **found {
                return Err(Error::Refused(format!(
                    "{}: it does not hold what was exported to it, at byte {offset} or after; give \
                     --restart to begin from the start",
                    self.path().display()
                )));
            }
        }
        Ok(self)
    }

    /// The name of what is written.
    fn path(&self) -> &Path {
        self.image.device().path()
    }

    /// Copies what is left; returns how many bytes were written, and the content's hash if there is
    /// one of what was copied before.
    fn copy(
        &mut self,
        snapshot: &Snapshot,
        hash: Option<Hash>,
        report: &Report,
        interrupt: &Interrupt,
    ) -> Result<(u64, Option<String>)> {
        let bytes = snapshot.bytes();
        let from = self.state.done;
        let zero = !self.image.has_holes() || hash.is_some();
        let plan = Mutex::new(Plan::new(snapshot, from..bytes, zero));
        let progress = report.progress("exporting", bytes);
        progress.advance(from);
        let in_order = hash.map(|hash| InOrder::new(from, hash));
        let done = Mutex::new(Done {
            ahead: BTreeMap::new(),
            written: 0,
            done: from,
            noted: Instant::now(),
        });
        let this = &*self;
        let copied = share(COPIERS, |stop| {
            let mut buf = AlignedBuf::new(BUFFER_BYTES as usize);
            while !stop.asked() && !interrupt.asked() {
                let Some(task) = lock(&plan).next() else {
                    break;
                };
                let buf = &mut buf[..task.data_bytes()];
                let written = match &task.what {
                    What::Zero => {
                        this.image.zero(task.bytes.clone())?;
                        0
                    }
                    What::Data if buf.is_empty() => 0,
                    What::Data => {
                        snapshot.read_at(buf, task.bytes.start)?;
                        this.image.write(buf, task.bytes.start)?
                    }
                };
                if let Some(in_order) = &in_order {
                    in_order.give(task.all(), stop, |hash| {
                        hash.add_task(&task, buf);
                        Ok(())
                    })?;
                }
                progress.advance(task.bytes.end - task.from);
                lock(&done).add(&task, written, this)?;
            }
            Ok(())
        });
        let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.state.done = done.done;
        self.refuse_written(snapshot)?;
        if copied.is_err() || (interrupt.asked() && !lock(&plan).is_done()) {
            let noted = self.note(self.state.done);
            // What is there can be used the next time; why it ended is what matters now.
            copied?;
            noted?;
            return Err(Error::Interrupted(format!(
                "{} is complete up to byte {}; the same command goes on there",
                self.path().display(),
                self.state.done
            )));
        }
        self.state.done = bytes;
        let hash = in_order.map(|in_order| in_order.into_inner().1.hex());
        Ok((done.written, hash))
    }

    /// Refuses a snapshot that somebody wrote to while it was copied.
    fn refuse_written(&self, snapshot: &Snapshot) -> Result<()> {
        let refused = snapshot.refuse_written(NO_SNAPSHOT);
        if refused.is_err() {
            self.give_up()?;
        }
        refused
    }

    /// Removes what nobody shall go on with.
    fn give_up(&self) -> Result<()> {
        self.state_path
            .as_deref()
            .map_or(Ok(()), state_file::remove)?;
        match self.replaced {
            Some(_) => state_file::remove(self.path()),
            None => Ok(()),
        }
    }

    /// Reads the image again and compares it with `snapshot`.
    fn verify(&self, snapshot: &Snapshot, report: &Report, interrupt: &Interrupt) -> Result<()> {
        self.note(self.state.done)?;
        self.image.flush_and_forget()?;
        let bytes = snapshot.bytes();
        let plan = Plan::new(snapshot, 0..bytes, true);
        let plan = Mutex::new(plan);
        let progress = report.progress("verifying", bytes);
        let wrong = Mutex::new(None);
        share(COPIERS, |stop| {
            let mut buffers = [(); 2].map(|()| AlignedBuf::new(BUFFER_BYTES as usize));
            while !stop.asked() && !interrupt.asked() {
                let Some(task) = lock(&plan).next() else {
                    break;
                };
                if let Some(at) = self.differs(snapshot, &task.all(), &mut buffers)? {
                    let mut wrong = lock(&wrong);
                    *wrong = Some(wrong.map_or(at, |other: u64| other.min(at)));
                    break;
                }
                progress.advance(task.bytes.end - task.from);
            }
            Ok(())
        })?;
        if let Some(at) = wrong.into_inner().unwrap_or_else(PoisonError::into_inner) {
            self.refuse_written(snapshot)?;
            self.give_up()?;
            return Err(Error::Refused(format!(
                "{}: it does not hold what was written to it, at byte {at} or after",
                self.path().display()
            )));
        }
        if interrupt.asked() && !lock(&plan).is_done() {
            return Err(Error::Interrupted(format!(
                "{} is complete but was not verified; the same command goes on with that",
                self.path().display()
            )));
        }
        Ok(())
    }

    /// The first piece of `range` in which the image is not `snapshot`.
    fn differs(
        &self,
        snapshot: &Snapshot,
        range: &Range<u64>,
        buffers: &mut [AlignedBuf; 2],
    ) -> Result<Option<u64>> {
        let [expected, found] = buffers;
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min(at + BUFFER_BYTES);
            let (expected, found) = (
                &mut expected[..(end - at) as usize],
                &mut found[..(end - at) as usize],
            );
            snapshot.read_at(expected, at)?;
            let is_same = match self.image.is_hole(&(at..end)) {
                true => is_zero(expected),
                false => {
                    self.image.device().read_at(found, at)?;
                    expected == found
                }
            };
            if !is_same {
                return Ok(Some(at));
            }
            at = end;
        }
        Ok(None)
    }

    /// Makes what was written durable and notes that all before byte `done` is.
    fn note(&self, done: u64) -> Result<()> {
        let Some(path) = &self.state_path else {
            return Ok(());
        };
        self.image.device().flush()?;
        let state = State {
            done,
            ..self.state.clone()
        };
        state.write(path)
    }

    fn finish(self) -> Result<()> {
        // The name says that the image is complete, so it must be.
        self.image.device().flush()?;
        if let Some(replaced) = self.replaced {
            replaced.replace_with(self.image.device().path())?;
        }
        self.state_path
            .as_deref()
            .map_or(Ok(()), state_file::remove)
    }
}

/// What the copiers have done.
struct Done {
    /// Tasks done before an earlier one: from where to where.
    ahead: BTreeMap<u64, u64>,
    written: u64,
    /// Up to where all is done.
    done: u64,
    noted: Instant,
}

impl Done {
    /// Adds a task, and notes from time to time up to where all is copied.
    fn add(&mut self, task: &Task, written: u64, target: &Target) -> Result<()> {
        self.written += written;
        self.ahead.insert(task.from, task.bytes.end);
        while let Some(end) = self.ahead.remove(&self.done) {
            self.done = end;
        }
        if self.noted.elapsed() >= target.checkpoint {
            target.note(self.done)?;
            self.noted = Instant::now();
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

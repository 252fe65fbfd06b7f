// SPDX-License-Identifier: GPL-2.0-only

//! Writes a snapshot's content to an image.

use crate::buffer::{is_zero, AlignedBuf};
use crate::device::{Access, Device};
use crate::dump::partial_name;
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::report::{Progress, Report};
use crate::restore::refuse_live_data;
use crate::snapshot::Snapshot;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::io;
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
    /// Everything before this byte is in the output, durably.
    done: u64,
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
    let mut output = Output::open(snapshot, options, source)?;
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

struct Output {
    device: Arc<Device>,
    /// The name of the complete file.
    rename_to: Option<PathBuf>,
    state_path: Option<PathBuf>,
    state: State,
    checkpoint: Duration,
}

impl Output {
    fn open(snapshot: &Snapshot, options: &Options, source: Source) -> Result<Self> {
        let path = &options.output;
        let is_file = fs::metadata(path).map_or(true, |meta| meta.is_file());
        let mut state_path = options.state.clone();
        let mut target = path.clone();
        if is_file {
            if path.exists() && !options.force {
                return Err(Error::Refused(format!(
                    "{}: it exists; give --force to overwrite it",
                    path.display()
                )));
            }
            target = partial_name(path);
            let mut beside = target.as_os_str().to_owned();
            beside.push(".state");
            state_path = state_path.or_else(|| Some(beside.into()));
        }
        let mut done = 0;
        if let Some(state_path) = state_path.as_deref().filter(|_| !options.restart) {
            done = Self::resume_at(state_path, &source, &target)?;
        }
        let device = if is_file {
            if done == 0 && target.exists() {
                fs::remove_file(&target).map_err(file_error(&target, "remove"))?;
            }
            if target.exists() {
                Device::open(&target, Access::Write)?
            } else {
                Device::create(&target, snapshot.bytes())?
            }
        } else {
            let device = Device::open(&target, Access::Write)?;
            if !options.force && done == 0 {
                refuse_live_data(&device)?;
            }
            device
        };
        let inputs = [Some(snapshot.cow().device()), snapshot.origin()];
        if inputs
            .into_iter()
            .flatten()
            .any(|input| input.is_same(&device))
        {
            return Err(Error::Refused(format!(
                "{}: the output cannot be the origin or the COW device",
                path.display()
            )));
        }
        if device.bytes() < snapshot.bytes() {
            return Err(Error::Refused(format!(
                "{}: it has {} bytes, the snapshot {}",
                target.display(),
                device.bytes(),
                snapshot.bytes()
            )));
        }
        Ok(Self {
            device: Arc::new(device),
            rename_to: is_file.then(|| path.clone()),
            state_path,
            checkpoint: options.checkpoint,
            state: State {
                snap_export: 1,
                source,
                done,
            },
        })
    }

    /// How far an earlier export of the same snapshot came.
    fn resume_at(state_path: &Path, source: &Source, target: &Path) -> Result<u64> {
        let text = match fs::read(state_path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
            text => text.map_err(file_error(state_path, "read"))?,
        };
        let state = serde_json::from_slice::<State>(&text).ok();
        match state {
            Some(state) if state.snap_export == 1 && state.source == *source => {
                let exists = target.exists();
                Ok(if exists {
                    state.done.min(source.bytes)
                } else {
                    0
                })
            }
            _ => Err(Error::Refused(format!(
                "{}: it belongs to the export of something else, or the origin or COW device has \
                 changed since; give --restart to begin from the start",
                state_path.display()
            ))),
        }
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
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let new = PathBuf::from(new);
        let text = serde_json::to_vec(&self.state).unwrap_or_default();
        fs::write(&new, text)
            .and_then(|()| fs::File::open(&new)?.sync_all())
            .map_err(file_error(&new, "write"))?;
        fs::rename(&new, path).map_err(file_error(&new, "rename"))
    }

    fn finish(self) -> Result<()> {
        // The name says that the image is complete, so it must be.
        self.device.flush()?;
        if let Some(path) = &self.rename_to {
            fs::rename(self.device.path(), path)
                .map_err(file_error(self.device.path(), "rename"))?;
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

fn file_error<'a>(path: &'a Path, action: &'static str) -> impl FnOnce(io::Error) -> Error + 'a {
    move |source| Error::File {
        path: path.into(),
        action,
        source,
    }
}

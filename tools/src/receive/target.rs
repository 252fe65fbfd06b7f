// SPDX-License-Identifier: GPL-2.0-only

//! What is made the snapshot.

use super::state::State;
use super::{Options, Received};
use crate::buffer::AlignedBuf;
use crate::device::{Access, Device};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::output::{sync_directory, temporary, Kind, Output};
use crate::replaced::Replaced;
use crate::report::Report;
use crate::state_file::{self, Subject};
use crate::transfer::{parts, Check, Head, PART_BYTES};
use sha2::{Digest as _, Sha256};
use std::ops::Range;
use std::path::PathBuf;
use tempfile::NamedTempFile;

/// Bytes made zero at once.
const ZERO_BYTES: u64 = 64 << 20;
/// What is smaller gets no hole in a file: that costs more than it saves.
static SMALL_ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// A file or device that becomes the snapshot.
pub struct Target {
    output: Output,
    /// `None` where nothing is written and there is nothing to compare.
    device: Option<Device>,
    bytes: u64,
    place: Place,
    state_path: Option<PathBuf>,
    /// What a state must be about to be the target's; `None` if there was none.
    subject: Option<Subject>,
    /// What an earlier receive noted, where it is gone on with.
    earlier: Option<State>,
    /// What is noted now.
    state: Option<State>,
    /// What all ranges were found to hold.
    holds: Option<Holds>,
    /// Whether anything is to be written.
    writes: bool,
    written: u64,
    window_bytes: u64,
    buf: AlignedBuf,
}

/// What becomes the snapshot.
enum Place {
    /// A new file, which gets its name when it is complete, and what has that now; `None` when it has
    /// got it.
    New(Option<(NamedTempFile, Replaced)>),
    /// A device, whatever it holds.
    Device,
    /// The base.
    Base,
}

/// What the ranges that are replaced hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    Base,
    Snapshot,
}

impl Target {
    /// Opens it. Nothing is changed by that.
    pub fn open(head: Head, options: &Options) -> Result<Self> {
        let output = options.output.clone();
        let kind = output.kind()?;
        let state_path = Self::state_path(options, kind)?;
        let (mut earlier, mut subject) = (None, None);
        let (device, place) = match (head.has_base, kind) {
            (true, Kind::Missing) => {
                return Err(Error::Refused(format!(
                    "{}: there is none, and the stream needs its base there",
                    output.path().display()
                )));
            }
            (true, _) => {
                if state_path.is_none() && !options.dry_run {
                    return Err(Error::Refused(format!(
                        "{}: give --state FILE, to note how far its base is replaced",
                        output.path().display()
                    )));
                }
                let device = match options.dry_run {
                    true => Device::open(output.path(), Access::Read)?,
                    // That it holds the base is seen soon.
                    false => output.forced().device(0)?,
                };
                let own = Subject::of(&device)?;
                // Nobody else is at it, nor at its state.
                if let Some(path) = &state_path {
                    earlier = State::read(path)?;
                    if let Some(earlier) = &earlier {
                        earlier.refuse_other(&own, output.path(), path)?;
                    }
                }
                subject = Some(own);
                (Some(device), Place::Base)
            }
            (false, _) if options.dry_run => {
                if let Some(device) = output.refuse()?.filter(Device::is_block_device) {
                    refuse_size(&device, head)?;
                }
                (None, Place::Device)
            }
            (false, Kind::Missing | Kind::File) => {
                output.refuse_file()?;
                // Nobody replaces a base there meanwhile.
                let replaced = Replaced::lock(&output)?;
                subject = replaced.subject()?;
                let file = temporary(output.directory(), ".snap_receive.");
                let file = file.map_err(|source| Error::file(output.path(), "create", source))?;
                let mut device = Device::open(file.path(), Access::Write)?;
                device.set_bytes(head.bytes)?;
                (Some(device), Place::New(Some((file, replaced))))
            }
            (false, _) => {
                let device = output.device(0)?;
                subject = Some(Subject::of(&device)?);
                (Some(device), Place::Device)
            }
        };
        if let Some(device) = &device {
            refuse_size(device, head)?;
        }
        Ok(Self {
            output,
            device,
            bytes: head.bytes,
            place,
            state_path,
            subject,
            earlier,
            state: None,
            holds: None,
            writes: !options.dry_run,
            written: 0,
            window_bytes: options.window_bytes,
            buf: AlignedBuf::new(PART_BYTES as usize),
        })
    }

    /// The name of the state; for a file there is always one.
    fn state_path(options: &Options, kind: Kind) -> Result<Option<PathBuf>> {
        let path = match (&options.state, kind) {
            (Some(path), _) => path.clone(),
            (None, Kind::File | Kind::Missing) => {
                let mut name = options.output.path().as_os_str().to_owned();
                name.push(".state");
                name.into()
            }
            (None, _) => return Ok(None),
        };
        let state = Output::new(&path, true).apart_from_output(&options.output);
        state_file::name(&state).map(Some)
    }

    /// Compares a range with what it must hold.
    pub fn check(&mut self, check: &Check) -> Result<()> {
        let range = &check.range;
        let window = self.earlier.as_ref().map(|state| state.window.clone());
        let is_open = |window: &Range<u64>| range.start < window.end && window.start < range.end;
        if window.as_ref().is_some_and(is_open) {
            return Ok(());
        }
        let Some(device) = &self.device else {
            return Ok(());
        };
        let buf = &mut self.buf[..(range.end - range.start) as usize];
        device.read_at(buf, range.start)?;
        let digest = Digest::of(buf);
        if let Some(window) = window {
            let expected = match range.end <= window.start {
                true => check.snapshot,
                false => check.base,
            };
            return match digest == expected {
                true => Ok(()),
                false => Err(self.refused(format_args!(
                    "byte {} and those after it are not what an earlier receive left there: give the \
                     stream that was cut short, or {}",
                    range.start,
                    self.give_up()
                ))),
            };
        }
        let holds = match digest {
            digest if digest == check.base => Holds::Base,
            digest if digest == check.snapshot => Holds::Snapshot,
            _ => {
                return Err(self.refused(format_args!(
                    "it is not the base: byte {} and those after it hold something else",
                    range.start
                )));
            }
        };
        match self.holds.replace(holds) {
            Some(before) if before != holds => Err(self.refused(
                "it is in part the base and in part the snapshot: a receive was cut short, and its \
                 state is lost",
            )),
            _ => Ok(()),
        }
    }

    /// Decides what to do with what follows: `stream` is the digest of all before, and `base` that of
    /// the whole base.
    pub fn begin(
        &mut self,
        stream: Digest,
        base: Option<Digest>,
        report: &Report,
        interrupt: &Interrupt,
    ) -> Result<()> {
        let stream = stream.to_string();
        if let Some(earlier) = &self.earlier {
            if earlier.stream != stream {
                return Err(self.refused(format_args!(
                    "the receive of another stream was cut short there: complete that first, or {}",
                    self.give_up()
                )));
            }
        } else if self.holds == Some(Holds::Snapshot) {
            self.writes = false;
        } else if let Some(base) = base {
            if self.sha256(report, interrupt)? != Some(base) {
                return Err(self.refused(
                    "it is not the base: it is the same where that is replaced, but not as a whole",
                ));
            }
        }
        if let (Place::Base, Some(target)) = (&self.place, self.subject) {
            self.state = Some(self.earlier.clone().unwrap_or(State {
                snap_receive: State::VERSION,
                target,
                stream,
                window: 0..0,
            }));
        }
        Ok(())
    }

    /// Writes `bytes` at `offset`; returns their range.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<Range<u64>> {
        let range = offset..offset + bytes.len() as u64;
        if let Some(device) = self.before(&range)? {
            device.write_at(bytes, offset)?;
            self.written += bytes.len() as u64;
        }
        Ok(range)
    }

    /// Makes the bytes `range` zero; returns it.
    pub fn zero(&mut self, range: Range<u64>, interrupt: &Interrupt) -> Result<Range<u64>> {
        if matches!(self.place, Place::New(_)) {
            // It is a hole where nothing is written.
            return Ok(range);
        }
        let mut at = range.start;
        while at < range.end && !interrupt.asked() {
            let end = range.end.min(at + ZERO_BYTES);
            if let Some(device) = self.before(&(at..end))? {
                self.written += zero(device, at..end)?;
            }
            at = end;
        }
        Ok(range)
    }

    /// The device, where `range` is to be written; notes that it may be.
    fn before(&mut self, range: &Range<u64>) -> Result<Option<&Device>> {
        let is_done = |state: &State| range.end <= state.window.start;
        let Some(device) = self.device.as_ref().filter(|_| self.writes) else {
            return Ok(None);
        };
        if let (Some(state), Some(path)) = (&mut self.state, &self.state_path) {
            if self.earlier.as_ref().is_some_and(is_done) {
                return Ok(None);
            }
            if range.end > state.window.end {
                device.flush()?;
                let end = range.end.max(range.start.saturating_add(self.window_bytes));
                state.window = range.start..end;
                state.write(path)?;
            }
        }
        Ok(Some(device))
    }

    /// Completes it; `snapshot` is the digest of all that it must hold now.
    pub fn finish(
        mut self,
        snapshot: Option<Digest>,
        received: &mut Received,
        report: &Report,
        interrupt: &Interrupt,
    ) -> Result<()> {
        received.written = self.written;
        received.resumed = self.earlier.is_some();
        received.already = self.holds == Some(Holds::Snapshot);
        let Some(device) = self
            .device
            .as_ref()
            .filter(|_| self.writes || received.already)
        else {
            return Ok(());
        };
        device.flush()?;
        if snapshot.is_some() && self.sha256(report, interrupt)? != snapshot {
            return Err(self.is_not_sent());
        }
        if let Place::New(new) = &mut self.place {
            if let Some((file, replaced)) = new.take() {
                replaced.replace_with(file.path())?;
                // There is nothing of that name any more.
                let _ = file.into_temp_path().keep();
            }
        }
        let Some(path) = self.state_path.as_ref().filter(|_| self.writes) else {
            return Ok(());
        };
        // Another tool's file is none of ours, nor is the state of another target.
        match State::read(path) {
            Ok(Some(state)) if Some(state.target) == self.subject => {
                state_file::remove(path)?;
                sync_directory(Output::new(path, true).directory())
            }
            _ => Ok(()),
        }
    }

    /// The error for what has another digest than the snapshot.
    fn is_not_sent(&self) -> Error {
        let what: String = match &self.place {
            Place::New(_) => "what was written to a new file does not read as that".into(),
            Place::Device => "what was written does not read as that".into(),
            Place::Base if self.writes => format!(
                "the base was another one where nothing was replaced, or was changed since; {}",
                self.give_up()
            ),
            Place::Base => {
                "it is where that differs from its base, and not elsewhere; nothing was \
                            changed"
                    .into()
            }
        };
        Error::Refused(format!(
            "{}: it is not what was sent, as its digest tells: {what}",
            self.output.path().display()
        ))
    }

    /// What to do with a base that does not become the snapshot.
    fn give_up(&self) -> String {
        match &self.state_path {
            Some(path) => format!(
                "receive a whole snapshot there with --force, or remove {} to leave it as it is",
                path.display()
            ),
            None => "receive a whole snapshot there with --force".into(),
        }
    }

    /// What to say of it when it is left as it is.
    pub fn left(&self) -> &'static str {
        match &self.place {
            Place::Device if self.writes => "what was written is not complete",
            Place::Base if self.writes && (self.state.is_some() || self.earlier.is_some()) => {
                "the same stream goes on"
            }
            _ => "nothing was changed",
        }
    }

    /// The digest of all that it holds.
    fn sha256(&mut self, report: &Report, interrupt: &Interrupt) -> Result<Option<Digest>> {
        let Some(device) = &self.device else {
            return Ok(None);
        };
        let progress = report.progress("comparing", self.bytes);
        let mut hash = Sha256::new();
        for part in parts(0..self.bytes) {
            if interrupt.asked() {
                return Err(Error::Interrupted(self.left().into()));
            }
            let buf = &mut self.buf[..(part.end - part.start) as usize];
            device.read_at(buf, part.start)?;
            hash.update(&*buf);
            progress.advance(part.end - part.start);
        }
        Ok(Some(hash.finalize().into()))
    }

    fn refused(&self, why: impl std::fmt::Display) -> Error {
        Error::Refused(format!(
            "{}: {why}; nothing was changed",
            self.output.path().display()
        ))
    }
}

/// Refuses what has another size than the base, or no room for the snapshot.
fn refuse_size(device: &Device, head: Head) -> Result<()> {
    let fits = match device.is_block_device() {
        true => device.bytes() >= head.bytes,
        false => device.bytes() == head.bytes && device.tail() == 0,
    };
    if fits {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "{}: it has {} bytes, but what is received has {}; nothing was changed",
        device.path().display(),
        device.bytes() + u64::from(device.tail()),
        head.bytes
    )))
}

/// Makes the bytes `range` zero; a file gets a hole where that is worth it. Returns how many were
/// none yet.
fn zero(device: &Device, range: Range<u64>) -> Result<u64> {
    if device.is_block_device() {
        device.zero(range.clone())?;
        return Ok(range.end - range.start);
    }
    if let Some(zeros) = SMALL_ZEROS.get(..(range.end - range.start) as usize) {
        device.write_at(zeros, range.start)?;
        return Ok(zeros.len() as u64);
    }
    let zeros = AlignedBuf::new(PART_BYTES as usize);
    let mut zeroed = 0;
    let mut at = range.start;
    while at < range.end {
        let data = device.data_from(at);
        for part in parts(data.start.min(range.end)..data.end.min(range.end)) {
            let bytes = part.end - part.start;
            device.write_zeros(&zeros[..bytes as usize], part.start)?;
            zeroed += bytes;
        }
        at = data.end.max(at + 1);
    }
    Ok(zeroed)
}

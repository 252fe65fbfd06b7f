// SPDX-License-Identifier: GPL-2.0-only

//! What the user sees of a tool. What was asked for is on standard output, all of it: what is wrong
//! with a COW device, too, and which records were dropped. On standard error is what the tool says
//! of itself: what it did or would do, what to beware of, why it failed, and progress.

use crate::device::Device;
use crate::error::{Error, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::cell::RefCell;
use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::path::Path;

/// Results, messages and progress. Quiet, it shows nothing but why a tool failed.
///
/// That nobody reads what a tool says is no reason to leave its work undone: what cannot be
/// written is noted, and [`Report::finish`] tells.
pub struct Report {
    quiet: bool,
    stdout: RefCell<BufWriter<Stdout>>,
    failed: RefCell<Option<io::Error>>,
}

impl Report {
    /// A report that says everything, or nothing where `quiet`.
    pub fn new(quiet: bool) -> Self {
        Self {
            quiet,
            stdout: RefCell::new(BufWriter::new(io::stdout())),
            failed: RefCell::new(None),
        }
    }

    /// Whether messages are suppressed.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Writes a line of the result to standard output.
    pub fn line(&self, line: impl Display) {
        if !self.quiet && self.failed.borrow().is_none() {
            self.note(writeln!(self.stdout.borrow_mut(), "{line}"));
        }
    }

    /// Writes the result as a JSON object to standard output.
    pub fn json(&self, value: &impl Serialize) {
        if self.quiet || self.failed.borrow().is_some() {
            return;
        }
        let mut stdout = self.stdout.borrow_mut();
        let written = serde_json::to_writer_pretty(&mut *stdout, value).map_err(io::Error::from);
        self.note(written.and_then(|()| writeln!(stdout)));
    }

    fn note(&self, written: io::Result<()>) {
        if let Err(error) = written {
            self.failed.borrow_mut().get_or_insert(error);
        }
    }

    /// Says something worth knowing.
    pub fn info(&self, message: impl Display) {
        self.say(format_args!("{message}"));
    }

    /// Says something the user should look at.
    pub fn warn(&self, message: impl Display) {
        self.say(format_args!("warning: {message}"));
    }

    fn say(&self, message: impl Display) {
        if !self.quiet {
            // In the order in which it was said, where both are a terminal.
            let flushed = self.stdout.borrow_mut().flush();
            self.note(flushed);
            say(message);
        }
    }

    /// Writes what is left. An error tells what of the result could not be written.
    pub fn finish(&self) -> Result<()> {
        let flushed = self.stdout.borrow_mut().flush();
        self.note(flushed);
        match self.failed.take() {
            Some(source) => Err(Error::file(
                Path::new("standard output"),
                "write to",
                source,
            )),
            None => Ok(()),
        }
    }

    /// Warns of the end of an origin that is no whole sector, which no device has.
    pub fn tail(&self, origin: &Device) {
        if origin.tail() > 0 {
            self.warn(format_args!(
                "{}: its last {} bytes are less than a sector and left out, as a loop device of it \
                 would leave them out",
                origin.path().display(),
                origin.tail()
            ));
        }
    }

    /// Starts showing progress over `bytes` bytes, on a terminal only.
    pub fn progress(&self, what: &'static str, bytes: u64) -> Progress {
        let target = if self.quiet || !io::stderr().is_terminal() {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr_with_hz(5)
        };
        let bar = ProgressBar::with_draw_target(Some(bytes), target);
        let template = "{msg} [{wide_bar}] {binary_bytes}/{binary_total_bytes} \
                        {binary_bytes_per_sec} eta {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what);
        Progress(bar)
    }
}

/// Writes a line to standard error. If that fails there is nowhere to say so.
pub fn say(message: impl Display) {
    // One write, so that it stays one line where others write, too.
    let _ = io::stderr().write_all(format!("{message}\n").as_bytes());
}

/// A progress bar; it disappears when dropped.
pub struct Progress(ProgressBar);

impl Progress {
    /// `bytes` more bytes are done.
    pub fn advance(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

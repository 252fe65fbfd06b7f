// SPDX-License-Identifier: GPL-2.0-only

//! What the user sees while a tool works.

use crate::device::Device;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fmt::Display;
use std::io::IsTerminal;

/// Messages and progress, all on standard error. Quiet, it shows nothing but errors.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    quiet: bool,
}

impl Report {
    /// A report that says everything, or nothing where `quiet`.
    pub fn new(quiet: bool) -> Self {
        Self { quiet }
    }

    /// Whether messages are suppressed.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Says something worth knowing.
    pub fn info(&self, message: impl Display) {
        if !self.quiet {
            eprintln!("{message}");
        }
    }

    /// Says something the user should look at.
    pub fn warn(&self, message: impl Display) {
        if !self.quiet {
            eprintln!("warning: {message}");
        }
    }

    /// Says why the tool gives up, or what is wrong with its input.
    pub fn error(&self, message: impl Display) {
        if !self.quiet {
            eprintln!("error: {message}");
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
        let target = if self.quiet || !std::io::stderr().is_terminal() {
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

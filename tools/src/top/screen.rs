// SPDX-License-Identifier: GPL-2.0-only

//! The terminal, while a live view is shown on it.

use crate::error::{Error, Result};
use rustix::termios::{
    isatty, tcgetattr, tcgetwinsize, tcsetattr, LocalModes, OptionalActions, SpecialCodeIndex,
    Termios,
};
use std::io::{self, Write};
use std::path::Path;

/// Another page of the terminal, without a cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
/// The cursor, and what was shown before.
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// To the upper left.
const HOME: &str = "\x1b[H";
/// Clears this line. It goes before the text: after a full line the cursor still stands on its last
/// character.
const CLEAR_LINE: &str = "\x1b[2K";
/// Clears the lines below.
const CLEAR_BELOW: &str = "\x1b[J";

/// The columns and lines of a terminal that does not know them.
const USUAL: (usize, usize) = (80, 24);

/// A terminal on which a view is shown. It is as before when this is dropped.
pub struct Screen {
    before: Termios,
}

impl Screen {
    /// Takes the terminal that is standard output and standard input.
    pub fn enter() -> Result<Self> {
        if !isatty(io::stdin()) || !isatty(io::stdout()) {
            return Err(Error::Refused(
                "standard input and output are no terminal; use --once, --json, or --quiet with \
                 --prometheus"
                    .into(),
            ));
        }
        let before = tcgetattr(io::stdin()).map_err(|e| failed("ask for", e.into()))?;
        let screen = Self { before };
        screen.resume()?;
        Ok(screen)
    }

    /// Takes it again, after [`Self::leave`].
    pub fn resume(&self) -> Result<()> {
        let mut modes = self.before.clone();
        // Keys come at once, each by itself, and are not shown; ^C and ^Z stay signals.
        modes.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
        modes.special_codes[SpecialCodeIndex::VMIN] = 1;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(io::stdin(), OptionalActions::Now, &modes)
            .map_err(|e| failed("set", e.into()))?;
        write(ENTER)
    }

    /// Gives it back as it was.
    pub fn leave(&self) -> Result<()> {
        let written = write(LEAVE);
        tcsetattr(io::stdin(), OptionalActions::Now, &self.before)
            .map_err(|e| failed("restore", e.into()))?;
        written
    }

    /// Shows `lines` in place of what is shown. What does not fit below is left out; each must fit
    /// the width.
    pub fn show(&self, lines: &[String]) -> Result<()> {
        let (_, height) = size();
        let mut text = HOME.to_owned();
        for (number, line) in lines.iter().take(height).enumerate() {
            if number > 0 {
                text.push('\n');
            }
            text.push_str(CLEAR_LINE);
            text.push_str(line);
        }
        // Only if there is a line below, for the same reason.
        if lines.len() < height {
            text.push('\n');
            text.push_str(CLEAR_BELOW);
        }
        write(&text)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = self.leave();
    }
}

/// The columns and lines of the terminal that is standard output.
pub fn size() -> (usize, usize) {
    match tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => USUAL,
    }
}

fn write(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|e| failed("write to", e))
}

fn failed(action: &'static str, source: io::Error) -> Error {
    Error::file(Path::new("terminal"), action, source)
}

#[cfg(test)]
mod tests {
    use super::super::signals::{Event, Signals};
    use super::super::terminal::{again, role, Terminal, PATIENCE};
    use super::*;
    use std::time::Instant;

    /// A view of a line that is full and more lines than fit, until a q is pressed.
    fn view() {
        let mut signals = Signals::watch(true).unwrap();
        let screen = Screen::enter().unwrap();
        let (width, height) = size();
        let mut lines = vec!["x".repeat(width)];
        screen.show(&lines).unwrap();
        lines.extend((0..height).map(|number| format!("line {number}")));
        screen.show(&lines).unwrap();
        let event = signals.wait(Instant::now() + PATIENCE, true).unwrap();
        assert_eq!(event, Event::Quit);
    }

    #[test]
    fn the_terminal_is_as_before() {
        if role().is_some() {
            return view();
        }
        let mut terminal = Terminal::new(40, 5);
        let before = terminal.modes();
        let name = "top::screen::tests::the_terminal_is_as_before";
        let mut child = terminal.run(again(name, "view"));
        // Four lines follow the full one; the fifth has no place.
        terminal.wait_for("line 3");
        let full = "x".repeat(40);
        let first = format!("{ENTER}{HOME}{CLEAR_LINE}{full}\r\n{CLEAR_BELOW}");
        let last = format!("{HOME}{CLEAR_LINE}{full}\r\n{CLEAR_LINE}line 0\r\n");
        for shown in [&first, &last] {
            assert!(terminal.shown.contains(shown), "{:?}", terminal.shown);
        }
        assert!(terminal.shown.ends_with("line 3"), "{:?}", terminal.shown);
        assert_ne!(terminal.modes(), before);
        // A key that means nothing, then one that does.
        terminal.press(b"x\x1b[Aq");
        assert!(child.wait().unwrap().success());
        terminal.wait_for(&format!("line 3{LEAVE}"));
        assert_eq!(terminal.modes(), before);
    }
}

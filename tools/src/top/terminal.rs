// SPDX-License-Identifier: GPL-2.0-only

//! A terminal for tests, and a test that runs once more on it.

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::process::{ioctl_tiocsctty, setsid};
use rustix::pty::{grantpt, openpt, ptsname, unlockpt, OpenptFlags};
use rustix::termios::{tcgetattr, tcsetwinsize, Winsize};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long whatever is waited for may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Set where a test is the one that runs on the terminal, to what it is to do there.
const ROLE: &str = "SNAP_TEST_ROLE";

/// What the test that asks is to do on a terminal; `None` where it is the one that watches.
pub fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// Makes the terminal that is standard input the one of this process, which begins a session with
/// it: signals come from it then.
pub fn take() {
    setsid().unwrap();
    ioctl_tiocsctty(io::stdin()).unwrap();
}

/// This test once more, called `test`, to do `role`.
pub fn again(test: &str, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]);
    command.env(ROLE, role);
    command
}

/// A terminal, and what was shown on it.
pub struct Terminal {
    /// What is behind it.
    master: File,
    /// Itself.
    slave: File,
    /// All that was shown and not skipped.
    pub shown: String,
}

impl Terminal {
    /// One of `columns` and `lines`.
    pub fn new(columns: u16, lines: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let name = name.to_str().unwrap();
        let mut options = File::options();
        // It does not become that of who watches.
        let flags = OFlags::NOCTTY.bits() as i32;
        options.read(true).write(true).custom_flags(flags);
        let terminal = Self {
            master: File::from(master),
            slave: options.open(name).unwrap(),
            shown: String::new(),
        };
        terminal.resize(columns, lines);
        terminal
    }

    /// Gives it another size, of which who has it hears.
    pub fn resize(&self, columns: u16, lines: u16) {
        let size = Winsize {
            ws_row: lines,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.master, size).unwrap();
    }

    /// How it is set.
    pub fn modes(&self) -> String {
        format!("{:?}", tcgetattr(&self.slave).unwrap())
    }

    /// Runs `command` on it.
    pub fn run(&self, mut command: Command) -> Child {
        command.stdin(self.slave.try_clone().unwrap());
        command.stdout(self.slave.try_clone().unwrap());
        command.stderr(Stdio::inherit()).spawn().unwrap()
    }

    /// Presses `keys`.
    pub fn press(&mut self, keys: &[u8]) {
        self.master.write_all(keys).unwrap();
    }

    /// Waits until `text` is shown.
    pub fn wait_for(&mut self, text: &str) {
        let timeout = Timespec::try_from(PATIENCE).unwrap();
        while !self.shown.contains(text) {
            let mut files = [PollFd::new(&self.master, PollFlags::IN)];
            assert_eq!(poll(&mut files, Some(&timeout)), Ok(1), "{:?}", self.shown);
            let mut bytes = [0; 4096];
            let read = self.master.read(&mut bytes).unwrap();
            self.shown += &String::from_utf8_lossy(&bytes[..read]);
        }
    }

    /// The same, and forgets what was shown up to there.
    pub fn skip_to(&mut self, text: &str) {
        self.wait_for(text);
        let at = self.shown.find(text).unwrap();
        self.shown.drain(..at + text.len());
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! Waits for a time, a key or a signal, whichever comes first.

use crate::error::{Error, Result};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH};
use signal_hook::{flag, low_level};
use std::fs;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Instant;

/// What came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The time.
    Time,
    /// The user wants it to end.
    Quit,
    /// The user wants it to stop (^Z), until it is told to go on.
    Stop,
    /// The terminal has another size.
    Resize,
}

/// Signals that are waited for. None of them ends the process, which has a terminal to restore.
pub struct Signals {
    quit: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    /// Something can be read of it after any of them.
    came: UnixStream,
}

impl Signals {
    /// Watches those that end a process; with `terminal` all that concern one, too.
    pub fn watch(terminal: bool) -> Result<Self> {
        Self::try_watch(terminal)
            .map_err(|source| Error::file(Path::new("signals"), "watch", source))
    }

    fn try_watch(terminal: bool) -> io::Result<Self> {
        let (came, comes) = UnixStream::pair()?;
        came.set_nonblocking(true)?;
        let (quit, stop) = <(Arc<AtomicBool>, Arc<AtomicBool>)>::default();
        let (ends, others): (&[_], &[_]) = match terminal {
            true => (&[SIGINT, SIGTERM, SIGHUP, SIGQUIT], &[SIGTSTP, SIGWINCH]),
            // What ignores a terminal's end (nohup) goes on without it.
            false => (&[SIGINT, SIGTERM], &[]),
        };
        for signal in ends {
            if !terminal {
                // The second one kills: whoever reads standard output may have stopped to. A
                // terminal is never left as it is.
                flag::register_conditional_shutdown(*signal, 1, Arc::clone(&quit))?;
            }
            flag::register(*signal, Arc::clone(&quit))?;
        }
        if terminal {
            flag::register(SIGTSTP, Arc::clone(&stop))?;
        }
        // After the flags: who hears of a signal must find what it was.
        for signal in ends.iter().chain(others) {
            low_level::pipe::register(*signal, comes.try_clone()?)?;
        }
        Ok(Self { quit, stop, came })
    }

    /// Waits until `deadline`; with `keys` also for the key q, on standard input.
    pub fn wait(&mut self, deadline: Instant, keys: bool) -> Result<Event> {
        self.try_wait(deadline, keys)
            .map_err(|source| Error::file(Path::new("standard input"), "read", source))
    }

    fn try_wait(&mut self, deadline: Instant, keys: bool) -> io::Result<Event> {
        loop {
            if self.quit.load(Ordering::Relaxed) {
                return Ok(Event::Quit);
            }
            if self.stop.swap(false, Ordering::Relaxed) {
                return Ok(Event::Stop);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Event::Time);
            }
            let stdin = io::stdin();
            let mut files = [
                PollFd::new(&self.came, PollFlags::IN),
                PollFd::new(&stdin, PollFlags::IN),
            ];
            let watched = if keys {
                &mut files[..]
            } else {
                &mut files[..1]
            };
            let timeout = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
            match poll(watched, Some(&timeout)) {
                // By a signal, which is in the pipe.
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let [came, key] = files.map(|file| !file.revents().is_empty());
            if keys && key && is_quit()? {
                return Ok(Event::Quit);
            }
            if came {
                let _ = (&self.came).read(&mut [0; 64]);
                if !self.quit.load(Ordering::Relaxed) && !self.stop.load(Ordering::Relaxed) {
                    return Ok(Event::Resize);
                }
            }
        }
    }
}

/// Whether a process that stops (^Z) can be told to go on: whether its group has a parent in another
/// group of its session, as a shell with job control is. The kernel discards ^Z where it is not.
pub fn can_go_on() -> bool {
    let Some(own) = Ids::of("self") else {
        return false;
    };
    let mut parent = own.parent;
    while let Some(ids) = Ids::of(&parent.to_string()) {
        if ids.session != own.session {
            break;
        }
        if ids.group != own.group {
            return true;
        }
        parent = ids.parent;
    }
    false
}

/// To what a process belongs.
#[derive(Debug, PartialEq, Eq)]
struct Ids {
    parent: u32,
    group: u32,
    session: u32,
}

impl Ids {
    /// `None` if there is no such process.
    fn of(process: &str) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
    }

    /// Reads `/proc/PID/stat`: PID (NAME) STATE PARENT GROUP SESSION …, and the name may be anything.
    fn parse(stat: &str) -> Option<Self> {
        let (_, rest) = stat.rsplit_once(')')?;
        let mut numbers = rest.split_ascii_whitespace().skip(1).map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Self {
            parent: next()?,
            group: next()?,
            session: next()?,
        })
    }
}

/// Whether a q is among the keys that were pressed, or nobody can press one any more.
fn is_quit() -> io::Result<bool> {
    let mut keys = [0; 64];
    // Not by std's buffer, of which poll knows nothing.
    match rustix::io::read(io::stdin(), &mut keys) {
        Ok(0) => Ok(true),
        Ok(read) => Ok(keys[..read].iter().any(|key| matches!(key, b'q' | b'Q'))),
        Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => Ok(false),
        // The terminal is gone.
        Err(rustix::io::Errno::IO) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_comes_first_is_told() {
        let mut signals = Signals::watch(true).unwrap();
        let mut wait = |milliseconds| {
            let deadline = Instant::now() + Duration::from_millis(milliseconds);
            signals.wait(deadline, false).unwrap()
        };
        assert_eq!(wait(1), Event::Time);
        for (signal, event) in [
            (SIGWINCH, Event::Resize),
            (SIGTSTP, Event::Stop),
            (SIGQUIT, Event::Quit),
        ] {
            low_level::raise(signal).unwrap();
            assert_eq!(wait(60_000), event);
        }
        // Whatever else comes, it is to end.
        assert_eq!(wait(0), Event::Quit);
    }

    #[test]
    fn reads_to_what_a_process_belongs() {
        let stat = "12 (a) b (c) S 7 8 9 34816 12 4194560\n";
        let ids = Ids {
            parent: 7,
            group: 8,
            session: 9,
        };
        assert_eq!(Ids::parse(stat), Some(ids));
        for nothing in ["", "12 (a) S 7 8", "12 (a) S x 8 9", "12"] {
            assert_eq!(Ids::parse(nothing), None, "{nothing}");
        }
        let own = Ids::of("self").unwrap();
        assert_eq!(Ids::of(&std::process::id().to_string()), Some(own));
        assert_eq!(Ids::of("0"), None);
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! Work that several threads share.

use crate::error::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Says to the other threads that one has failed.
#[derive(Debug, Default)]
pub struct Stop(AtomicBool);

impl Stop {
    /// Whether to begin nothing more.
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Asks the others to stop where a thread panics: they would wait for what it had to do.
struct StopAtPanic<'a>(&'a Stop);

impl Drop for StopAtPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0 .0.store(true, Ordering::Relaxed);
        }
    }
}

/// Runs `work` on `threads` threads, of which this is one, until all have returned; the first error
/// is returned.
///
/// Where no more threads are to be had, fewer do: `work` must take what it does from a common
/// store until that is empty or [`Stop::asked`].
pub fn share(threads: usize, work: impl Fn(&Stop) -> Result<()> + Sync) -> Result<()> {
    let stop = Stop::default();
    let failed: Mutex<Option<Error>> = Mutex::new(None);
    let run = || {
        let _stop = StopAtPanic(&stop);
        if let Err(error) = work(&stop) {
            stop.0.store(true, Ordering::Relaxed);
            let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.get_or_insert(error);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            if thread::Builder::new().spawn_scoped(scope, run).is_err() {
                break;
            }
        }
        run();
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.map_or(Ok(()), Err)
}

// SPDX-License-Identifier: GPL-2.0-only

//! For how long somebody waits for room on a COW device that is nearly full.

use crate::dm::{
    noio::sleep_ms,
    params,
    Bio, //
};
use ::core::sync::atomic::{
    AtomicBool,
    Ordering::SeqCst, //
};
use kernel::time::{
    Instant,
    Monotonic, //
};

/// How long to sleep before something is tried again that cannot be done at the moment.
const MS: u32 = 5;

/// The patience of one who needs chunks: it lasts for as long as the last of a COW device is to last,
/// and ends at once when a device is about to be suspended that waits for him.
pub(super) struct Patience<'a> {
    /// `None` for one who must not wait.
    stop: Option<&'a AtomicBool>,
    /// When he began to wait.
    began: Option<Instant<Monotonic>>,
    /// Whether he may sleep at all.
    may_sleep: bool,
}

impl<'a> Patience<'a> {
    /// Until `stop` is set.
    pub(super) fn until(stop: &'a AtomicBool) -> Self {
        Self {
            stop: Some(stop),
            began: None,
            may_sleep: true,
        }
    }

    /// Of `bio`, which is being mapped: until `stop` is set, and not at all if it says so.
    pub(super) fn of(bio: &Bio, stop: &'a AtomicBool) -> Self {
        Self {
            may_sleep: !bio.is_nowait(),
            ..Self::until(stop)
        }
    }

    /// Of a worker that others wait for.
    pub(super) fn none() -> Self {
        Self {
            stop: None,
            began: None,
            may_sleep: true,
        }
    }

    /// Whether he may sleep, for memory or anything else; if not, his request ends with `EAGAIN`.
    pub(super) fn may_sleep(&self) -> bool {
        self.may_sleep
    }

    /// Whether it is over: then chunks are asked for that are to be had now. Any context.
    pub(super) fn is_over(&self) -> bool {
        let seconds = i64::from(params::full_seconds());
        let waited = self.began.map_or(0, |began| began.elapsed().as_millis());
        waited >= seconds.saturating_mul(1000) || self.stop.is_none_or(|stop| stop.load(SeqCst))
    }

    /// Waits for a better moment: for memory, too, also when it is over. Sleeps.
    pub(super) fn wait(&mut self) {
        self.began.get_or_insert_with(Instant::now);
        sleep_ms(MS);
    }
}

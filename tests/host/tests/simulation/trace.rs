// SPDX-License-Identifier: GPL-2.0-only

//! What happened, if somebody wants to know.

use std::cell::RefCell;

thread_local! {
    static TRACE: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// From now on it is kept.
pub fn start() {
    TRACE.set(Some(Vec::new()));
}

/// What was kept.
pub fn stop() -> Vec<String> {
    TRACE.take().unwrap_or_default()
}

/// Notes what happens.
pub fn note(what: impl FnOnce() -> String) {
    TRACE.with_borrow_mut(|trace| {
        if let Some(trace) = trace {
            trace.push(what());
        }
    });
}

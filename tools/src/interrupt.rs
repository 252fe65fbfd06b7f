// SPDX-License-Identifier: GPL-2.0-only

//! Stops where it is safe when the user asks to.

use crate::error::{Error, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

/// Whether SIGINT or SIGTERM came. The second one kills, as it would have without this.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// One that never happens.
    pub fn never() -> Self {
        Self::default()
    }

    /// Watches the signals from now on.
    pub fn watch() -> Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&asked))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&asked)))
                .map_err(|source| Error::File {
                    path: Path::new("signals").into(),
                    action: "watch",
                    source,
                })?;
        }
        Ok(Self(asked))
    }

    /// Whether the user asked to stop.
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! What `snap_top` shows: samples of all active snapshots, what changed between two of them, and the
//! ways to show that.

mod change;
mod prometheus;
mod screen;
mod short;
mod signals;
mod table;
#[cfg(test)]
pub mod terminal;

pub use change::{Change, Merge};
pub use prometheus::Prometheus;
pub use screen::{size, Screen};
pub use signals::{can_go_on, Event, Signals};
pub use table::Table;

use crate::active::{self, Active};
use crate::error::Result;
use crate::mapper::Mapper;
use std::time::Instant;

/// The active snapshots at one time.
pub struct Sample {
    at: Instant,
    /// Of each the name, the status, and what it has counted so far.
    pub actives: Vec<Active>,
}

impl Sample {
    /// Asks `mapper` for those of these `names`, or for all if there are none.
    pub fn take(mapper: &Mapper, names: &[String]) -> Result<Self> {
        let mut actives = active::all(mapper)?;
        actives.retain(|active| names.is_empty() || names.contains(&active.name));
        Ok(Self::of(actives))
    }

    /// These, now.
    pub fn of(actives: Vec<Active>) -> Self {
        let at = Instant::now();
        Self { at, actives }
    }

    /// What changed since `earlier`, of each snapshot.
    pub fn changes(&self, earlier: Option<&Self>) -> Vec<Change> {
        let change = |now: &Active| {
            let found = earlier.and_then(|earlier| {
                let then = earlier.actives.iter().find(|then| now.continues(then))?;
                Some((then, self.at.saturating_duration_since(earlier.at)))
            });
            Change::of(now, found)
        };
        self.actives.iter().map(change).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::table::tests::snapshot;
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_is_compared_with_itself() {
        let then = Instant::now();
        let at = |seconds, actives| Sample {
            at: then + Duration::from_secs(seconds),
            actives,
        };
        let second = |used| Active {
            start: 8,
            ..snapshot("a", used, 4000)
        };
        let before = at(
            0,
            vec![
                snapshot("a", 800, 4000),
                second(1600),
                snapshot("gone", 16, 80),
                snapshot("made anew", 16, 80),
            ],
        );
        let anew = Active {
            disk: Some(9),
            ..snapshot("made anew", 24, 80)
        };
        let now = at(
            2,
            vec![
                snapshot("a", 1000, 4000),
                second(1600),
                anew,
                snapshot("new", 16, 80),
            ],
        );
        let growth = |changes: Vec<Change>| -> Vec<Option<f64>> {
            changes.into_iter().map(|change| change.growth).collect()
        };
        assert_eq!(
            growth(now.changes(Some(&before))),
            [Some(51_200.0), Some(0.0), None, None]
        );
        assert_eq!(growth(now.changes(None)), [None; 4]);
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! What changed between two samples of a snapshot.

use crate::active::Active;
use crate::figures::Figures;
use crate::format::SECTOR_BYTES;
use crate::stat::Live;
use crate::waits::{Below, Waits};
use std::time::Duration;

/// What changed in an interval. Rates need one; what else is `None` was not told by the target, or
/// did not happen. Without an earlier sample, averages and percentiles are of all that was counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// Bytes a second by which the use of the COW device grew; less than 0 while it is merged.
    pub growth: Option<f64>,
    /// Seconds until the COW device is full, if it grows on like that.
    pub full_in: Option<f64>,
    /// Commits of records, each with a flush, a second.
    pub commits_per_second: Option<f64>,
    /// Exceptions in a commit.
    pub exceptions_per_commit: Option<f64>,
    /// What half of the waits stayed below.
    pub wait_p50: Option<Below>,
    /// What all but one in a hundred of the waits stayed below.
    pub wait_p99: Option<Below>,
    /// How far a merge is.
    pub merge: Option<Merge>,
}

/// How far a merge is.
#[derive(Clone, Debug, PartialEq)]
pub struct Merge {
    /// Chunks that are not merged yet.
    pub left: Option<u64>,
    /// The share that is merged, of what there was when it began or was counted anew.
    pub share: Option<f64>,
    /// Seconds until it is over, if it goes on like that.
    pub done_in: Option<f64>,
}

impl Change {
    /// What changed since a sample of the same snapshot, so much earlier.
    pub fn of(now: &Active, earlier: Option<(&Active, Duration)>) -> Self {
        let earlier = earlier.filter(|(_, passed)| !passed.is_zero());
        let growth = earlier.and_then(|(then, passed)| growth(now, then, passed));
        let mut change = Self {
            growth,
            full_in: growth.and_then(|growth| full_in(now, growth)),
            ..Self::default()
        };
        if let Some(figures) = &now.figures {
            let then = earlier.and_then(|(then, passed)| Some((then.figures.as_ref()?, passed)));
            change.count(figures, then);
        }
        change.merge = now.merging.then(|| merge(now, earlier));
        change
    }

    fn count(&mut self, now: &Figures, earlier: Option<(&Figures, Duration)>) {
        let since = earlier.and_then(|(then, passed)| Some((Counts::since(now, then)?, passed)));
        if let Some((counts, passed)) = &since {
            let commits = counts.commits.map(|commits| commits as f64);
            self.commits_per_second = commits.map(|commits| commits / passed.as_secs_f64());
        }
        // What was counted anew is all that there is, and so it is at the first sample.
        let counts = since.map_or_else(|| Counts::all(now), |(counts, _)| counts);
        if let (Some(commits @ 1..), Some(committed)) = (counts.commits, counts.committed) {
            self.exceptions_per_commit = Some(committed as f64 / commits as f64);
        }
        self.wait_p50 = counts.waits.percentile(50);
        self.wait_p99 = counts.waits.percentile(99);
    }
}

/// What only grows, until it is counted anew.
struct Counts {
    commits: Option<u64>,
    committed: Option<u64>,
    waits: Waits,
}

impl Counts {
    fn all(now: &Figures) -> Self {
        Self {
            commits: now.get("commits"),
            committed: now.get("committed"),
            waits: now.waits().clone(),
        }
    }

    /// `None` if they were counted anew.
    fn since(now: &Figures, earlier: &Figures) -> Option<Self> {
        let added = |name| match (now.get(name), earlier.get(name)) {
            (Some(now), Some(then)) => now.checked_sub(then).map(Some),
            _ => Some(None),
        };
        Some(Self {
            commits: added("commits")?,
            committed: added("committed")?,
            waits: now.waits().since(earlier.waits())?,
        })
    }
}

/// Bytes a second.
fn growth(now: &Active, then: &Active, passed: Duration) -> Option<f64> {
    let (Live::Active(now_used), Live::Active(then_used)) = (&now.state, &then.state) else {
        return None;
    };
    let sectors = now_used.used as f64 - then_used.used as f64;
    // Only a merge takes something from a COW device; else it is another one.
    (sectors >= 0.0 || now.merging).then(|| sectors * SECTOR_BYTES as f64 / passed.as_secs_f64())
}

/// Seconds until a COW device whose use grows by so many bytes a second is full.
fn full_in(now: &Active, growth: f64) -> Option<f64> {
    match &now.state {
        Live::Active(usage) if growth > 0.0 => {
            Some(usage.free() as f64 * SECTOR_BYTES as f64 / growth)
        }
        _ => None,
    }
}

fn merge(now: &Active, earlier: Option<(&Active, Duration)>) -> Merge {
    let left = now.left();
    let merged = now.figures.as_ref().and_then(|f| f.get("merged"));
    let share = match (merged, left) {
        (_, Some(0)) => Some(1.0),
        (Some(merged), Some(left)) => Some(merged as f64 / (merged as f64 + left as f64)),
        _ => None,
    };
    let done_in = earlier.and_then(|(then, passed)| {
        let (left, before) = (left?, then.left()?);
        let merged = before.checked_sub(left).filter(|merged| *merged > 0)?;
        Some(left as f64 * passed.as_secs_f64() / merged as f64)
    });
    Merge {
        left,
        share,
        done_in,
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::{merging, snapshot, with_figures};
    use super::*;
    use Below::Microseconds;

    const TWO: Duration = Duration::from_secs(2);

    #[test]
    fn a_first_sample_has_no_rates() {
        let change = Change::of(&snapshot("a", 800, 4000), None);
        assert_eq!(change, Change::default());
        let counted = with_figures(
            snapshot("a", 800, 4000),
            "commits 4\ncommitted 10\nwaits_below_64_us 3\nwaits_below_128_us 3\n",
        );
        let change = Change::of(&counted, None);
        assert_eq!((change.growth, change.commits_per_second), (None, None));
        assert_eq!(change.exceptions_per_commit, Some(2.5));
        assert_eq!(change.wait_p50, Some(Microseconds(64)));
        assert_eq!(change.wait_p99, Some(Microseconds(128)));
    }

    #[test]
    fn rates_are_of_the_interval() {
        let then = with_figures(
            snapshot("a", 800, 4000),
            "commits 4\ncommitted 10\nwaits_below_64_us 300\n",
        );
        let now = with_figures(
            snapshot("a", 1600, 4000),
            "commits 14\ncommitted 110\nwaits_below_64_us 301\nwaits_longer 5\n",
        );
        let change = Change::of(&now, Some((&then, TWO)));
        assert_eq!(change.growth, Some(204_800.0));
        // 2400 sectors are left, 400 go in a second
        assert_eq!(change.full_in, Some(6.0));
        assert_eq!(change.commits_per_second, Some(5.0));
        assert_eq!(change.exceptions_per_commit, Some(10.0));
        assert_eq!(change.wait_p50, Some(Below::Nothing));
        let still = Change::of(&now, Some((&now, TWO)));
        assert_eq!((still.growth, still.full_in), (Some(0.0), None));
        assert_eq!(still.commits_per_second, Some(0.0));
        assert_eq!((still.exceptions_per_commit, still.wait_p50), (None, None));
        // No time passed.
        let change = Change::of(&now, Some((&then, Duration::ZERO)));
        assert_eq!((change.growth, change.commits_per_second), (None, None));
    }

    #[test]
    fn what_is_counted_anew_has_no_rates() {
        let then = with_figures(snapshot("a", 1600, 4000), "commits 14\ncommitted 110\n");
        // Made anew, or `stats reset`.
        let now = with_figures(snapshot("a", 16, 4000), "commits 2\ncommitted 6\n");
        let change = Change::of(&now, Some((&then, TWO)));
        assert_eq!((change.growth, change.full_in), (None, None));
        assert_eq!(change.commits_per_second, None);
        assert_eq!(change.exceptions_per_commit, Some(3.0));
        let mut invalid = now.clone();
        invalid.state = Live::Other("Invalid".into());
        assert_eq!(Change::of(&invalid, Some((&now, TWO))).growth, None);
        assert_eq!(Change::of(&now, Some((&invalid, TWO))).growth, None);
    }

    #[test]
    fn a_merge_comes_to_its_end() {
        let figures = |left, merged| format!("exceptions {left}\nmerged {merged}\n");
        let then = with_figures(merging("m", 816, 4000), &figures(100, 0));
        let now = with_figures(merging("m", 616, 4000), &figures(75, 25));
        let change = Change::of(&now, Some((&then, TWO)));
        assert_eq!(change.growth, Some(-51_200.0));
        assert_eq!(change.full_in, None);
        let merge = change.merge.unwrap();
        assert_eq!((merge.left, merge.share), (Some(75), Some(0.25)));
        assert_eq!(merge.done_in, Some(6.0));
        // C's: what is left is known, but not what there was.
        let [then, now] = [816, 616].map(|used| merging("m", used, 4000));
        let merge = Change::of(&now, Some((&then, TWO))).merge.unwrap();
        assert_eq!((merge.left, merge.share), (Some(75), None));
        assert_eq!(merge.done_in, Some(6.0));
        let merge = Change::of(&merging("m", 16, 4000), None).merge.unwrap();
        assert_eq!((merge.left, merge.share), (Some(0), Some(1.0)));
        assert_eq!(Change::of(&snapshot("a", 16, 4000), None).merge, None);
    }
}

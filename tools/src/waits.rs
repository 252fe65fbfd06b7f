// SPDX-License-Identifier: GPL-2.0-only

//! How long the copies of a snapshot took, as its target counts them.

/// A histogram: how many took less than a bound, each counted at the smallest bound that there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waits(Vec<Bucket>);

/// A bucket of [`Waits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// What all of it stays below.
    pub below: Below,
    /// How many there are.
    pub count: u64,
}

/// A bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Below {
    /// So many microseconds.
    Microseconds(u64),
    /// None: it took longer than the largest bound.
    Nothing,
}

impl Below {
    /// The microseconds, if it is a bound.
    pub fn microseconds(self) -> Option<u64> {
        match self {
            Self::Microseconds(bound) => Some(bound),
            Self::Nothing => None,
        }
    }
}

impl Waits {
    /// Adds a bucket that no other has the bound of.
    pub fn push(&mut self, below: Below, count: u64) {
        let at = self.0.partition_point(|bucket| bucket.below < below);
        self.0.insert(at, Bucket { below, count });
    }

    /// All buckets that the target told, by their bounds.
    pub fn buckets(&self) -> &[Bucket] {
        &self.0
    }

    /// What was added since `earlier`; `None` if it was counted anew meanwhile.
    pub fn since(&self, earlier: &Self) -> Option<Self> {
        // The target leaves out what is empty.
        let count = |waits: &Self, below| {
            let found = waits.0.iter().find(|bucket| bucket.below == below);
            found.map_or(0, |bucket| bucket.count)
        };
        for bucket in &earlier.0 {
            if count(self, bucket.below) < bucket.count {
                return None;
            }
        }
        let added = self.0.iter().map(|bucket| Bucket {
            below: bucket.below,
            count: bucket.count - count(earlier, bucket.below),
        });
        Some(Self(added.collect()))
    }

    /// What `percent` of all stayed below; `None` if there were none.
    pub fn percentile(&self, percent: u64) -> Option<Below> {
        let all: u128 = self.0.iter().map(|bucket| u128::from(bucket.count)).sum();
        // How many must stay below it, at least one.
        let rank = (all * u128::from(percent)).div_ceil(100).max(1);
        let mut passed = 0;
        let found = self.0.iter().find(|bucket| {
            passed += u128::from(bucket.count);
            passed >= rank
        });
        found.map(|bucket| bucket.below)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Below::{Microseconds, Nothing};

    fn waits(buckets: &[(Below, u64)]) -> Waits {
        let mut waits = Waits::default();
        for (below, count) in buckets {
            waits.push(*below, *count);
        }
        waits
    }

    #[test]
    fn percentiles_are_the_bounds_of_what_is_counted() {
        assert_eq!(Waits::default().percentile(50), None);
        assert_eq!(waits(&[(Microseconds(4), 0)]).percentile(50), None);
        let one = waits(&[(Microseconds(64), 1)]);
        assert_eq!(one.percentile(1), Some(Microseconds(64)));
        assert_eq!(one.percentile(99), Some(Microseconds(64)));
        // Out of order, as no target tells them.
        let many = waits(&[
            (Nothing, 1),
            (Microseconds(1024), 9),
            (Microseconds(16), 50),
            (Microseconds(64), 40),
        ]);
        assert_eq!(many.percentile(50), Some(Microseconds(16)));
        assert_eq!(many.percentile(51), Some(Microseconds(64)));
        assert_eq!(many.percentile(90), Some(Microseconds(64)));
        assert_eq!(many.percentile(99), Some(Microseconds(1024)));
        assert_eq!(many.percentile(100), Some(Nothing));
        assert_eq!(
            waits(&[(Microseconds(1), u64::MAX), (Microseconds(2), u64::MAX)]).percentile(99),
            Some(Microseconds(2))
        );
    }

    #[test]
    fn an_interval_is_what_was_added() {
        let before = waits(&[(Microseconds(16), 50), (Microseconds(64), 40)]);
        let now = waits(&[(Microseconds(16), 50), (Microseconds(64), 41), (Nothing, 3)]);
        let added = now.since(&before).unwrap();
        assert_eq!(
            added,
            waits(&[(Microseconds(16), 0), (Microseconds(64), 1), (Nothing, 3)])
        );
        assert_eq!(added.percentile(50), Some(Nothing));
        assert_eq!(before.since(&now), None);
        assert_eq!(Waits::default().since(&before), None);
        assert_eq!(now.since(&Waits::default()), Some(now));
    }
}

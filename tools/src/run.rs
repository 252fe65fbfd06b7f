// SPDX-License-Identifier: GPL-2.0-only

//! Records that follow each other on both devices.

use crate::format::Exception;

/// `length` records in a row whose old and new chunks both ascend by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first chunk of the origin.
    pub old: u64,
    /// The first chunk of the COW device.
    pub new: u64,
    /// How many chunks, at least 1.
    pub length: u64,
}

impl Run {
    /// A run of outside origin: `None` where it is empty or its last chunks do not fit a `u64`.
    pub fn checked(old: u64, new: u64, length: u64) -> Option<Self> {
        let last = length.checked_sub(1)?;
        old.checked_add(last)?;
        new.checked_add(last)?;
        Some(Self { old, new, length })
    }

    /// The records of the run, in order.
    pub fn records(self) -> impl Iterator<Item = Exception> {
        (0..self.length).map(move |i| Exception {
            old: self.old + i,
            new: self.new + i,
        })
    }

    /// Makes the run longer by `e` if that follows it.
    pub fn append(&mut self, e: Exception) -> bool {
        let follows = Some(e.old) == self.old.checked_add(self.length)
            && Some(e.new) == self.new.checked_add(self.length);
        if follows {
            self.length += 1;
        }
        follows
    }
}

impl From<Exception> for Run {
    fn from(e: Exception) -> Self {
        Self {
            old: e.old,
            new: e.new,
            length: 1,
        }
    }
}

/// Gathers records into runs, in the order they come.
#[derive(Default)]
pub struct Runs {
    open: Option<Run>,
}

impl Runs {
    /// Takes the next record; returns the run that it ends, if it ends one.
    pub fn push(&mut self, e: Exception) -> Option<Run> {
        if self.open.as_mut().is_some_and(|run| run.append(e)) {
            return None;
        }
        self.open.replace(e.into())
    }

    /// The last run.
    pub fn finish(self) -> Option<Run> {
        self.open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathers_what_follows() {
        let list = [(5, 2), (6, 3), (7, 5), (8, 6), (1, 7), (1, 8)];
        let mut runs = Runs::default();
        let mut found: Vec<Run> = list
            .into_iter()
            .filter_map(|(old, new)| runs.push(Exception { old, new }))
            .collect();
        found.extend(runs.finish());
        let lengths: Vec<u64> = found.iter().map(|run| run.length).collect();
        assert_eq!(lengths, [2, 2, 1, 1]);
        let records: Vec<(u64, u64)> = found
            .into_iter()
            .flat_map(Run::records)
            .map(|e| (e.old, e.new))
            .collect();
        assert_eq!(records, list);
    }

    #[test]
    fn ends_at_the_last_chunk_there_can_be() {
        let mut run = Run::from(Exception {
            old: u64::MAX,
            new: 2,
        });
        assert!(!run.append(Exception { old: 0, new: 3 }));
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! Two sets of completions that take turns.

/// Two sets of completions: one gathers those that wait for the next outcome, while those in the
/// other are run with the last one.
///
/// `V` is a set of a fixed size, made beforehand: gathering must not need memory.
///
/// # Invariants
///
/// If there is a spare set, one gathers.
pub struct Rounds<V> {
    gathering: Option<V>,
    spare: Option<V>,
}

impl<V> Rounds<V> {
    /// Takes turns with two empty sets.
    pub fn new(one: V, other: V) -> Self {
        Self {
            gathering: Some(one),
            spare: Some(other),
        }
    }

    /// The set that gathers; `None` while the completions in both are being run.
    pub fn gathering(&mut self) -> Option<&mut V> {
        self.gathering.as_mut()
    }

    /// Takes the set that gathers out, and lets the other gather if it is here.
    pub fn take(&mut self) -> Option<V> {
        core::mem::replace(&mut self.gathering, self.spare.take())
    }

    /// Puts a set back that was taken out, emptied. It gathers if the other was taken out
    /// meanwhile, and is spare if not.
    pub fn put_back(&mut self, set: V) {
        let place = if self.gathering.is_none() {
            &mut self.gathering
        } else {
            &mut self.spare
        };
        *place = Some(set);
    }
}

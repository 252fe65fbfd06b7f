// SPDX-License-Identifier: GPL-2.0-only

//! Taking turns with two sets of those who wait.

/// Two sets, of which one gathers those who wait for the next outcome while the other's members
/// are told of the last.
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

    /// The set that gathers; `None` while the members of both are being told.
    pub fn gathering(&mut self) -> Option<&mut V> {
        self.gathering.as_mut()
    }

    /// Takes the set that gathers out, and lets the other gather if it is here.
    pub fn take(&mut self) -> Option<V> {
        core::mem::replace(&mut self.gathering, self.spare.take())
    }

    /// Puts a set back that was taken out, emptied. It gathers if none does: that is so when the
    /// other was taken out meanwhile, too.
    pub fn put_back(&mut self, set: V) {
        let place = if self.gathering.is_none() {
            &mut self.gathering
        } else {
            &mut self.spare
        };
        *place = Some(set);
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! Bringing exceptions into the order in which their chunks were handed out.

use crate::format::NoMemory;
use crate::memory::{
    Vec,
    When, //
};

/// Hands out tickets, and hands on what was completed with them in the order of the tickets.
///
/// The store records exceptions in the order in which it handed out their chunks. LVM counts on it:
/// it sizes a COW device for a list without gaps.
pub struct Pipeline<T> {
    /// The ticket whose turn it is.
    first: u64,
    /// The next ticket to hand out.
    next: u64,
    /// Tickets whose exceptions are recorded: the first ones.
    recorded: u64,
    /// The ticket behind the last one that was promised.
    promised: u64,
    /// What was completed, by ticket modulo the length, which is a power of two or 0 and at least
    /// the number of tickets that are out.
    ring: Vec<Option<T>>,
}

impl<T> Pipeline<T> {
    /// No tickets are out.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self {
            first: 0,
            next: 0,
            recorded: 0,
            promised: 0,
            ring: Vec::new(),
        }
    }

    /// Tickets that are out: handed out and not yet handed on.
    pub fn outstanding(&self) -> u64 {
        self.next - self.first
    }

    fn index(&self, ticket: u64) -> usize {
        // CAST: The low bits.
        ticket as usize & self.ring.len().wrapping_sub(1)
    }

    /// Makes room for one more ticket.
    pub fn reserve(&mut self, when: When) -> Result<(), NoMemory> {
        // CAST: At most the length of the ring.
        let out = self.outstanding() as usize;
        if out < self.ring.len() {
            return Ok(());
        }
        let length = (out + 1).next_power_of_two().max(16);
        let mut ring = Vec::new();
        ring.reserve(length, when)?;
        for _ in 0..length {
            ring.push(None).map_err(|_| NoMemory)?;
        }
        for ticket in self.first..self.next {
            let from = self.index(ticket);
            // CAST: The low bits.
            let to = ticket as usize & (length - 1);
            if let (Some(from), Some(to)) = (self.ring.get_mut(from), ring.get_mut(to)) {
                *to = from.take();
            }
        }
        self.ring = ring;
        Ok(())
    }

    /// Hands out a ticket, for which [`Pipeline::reserve`] has made room.
    pub fn ticket(&mut self) -> u64 {
        let ticket = self.next;
        self.next += 1;
        ticket
    }

    /// How many tickets were handed out.
    pub fn handed_out(&self) -> u64 {
        self.next
    }

    /// Completes `ticket` with `item`.
    pub fn complete(&mut self, ticket: u64, item: T) {
        let index = self.index(ticket);
        if let Some(place) = self.ring.get_mut(index) {
            *place = Some(item);
        }
    }

    /// What was completed with the ticket whose turn it is, if it was.
    pub fn take_next(&mut self) -> Option<T> {
        let index = self.index(self.first);
        let item = self.ring.get_mut(index)?.take()?;
        self.first += 1;
        Some(item)
    }

    /// How often [`Pipeline::take_next`] has something to return now that is `wanted`, up to the first that is
    /// not; what is beyond `most` is not counted.
    pub fn ready(&self, most: usize, wanted: impl Fn(&T) -> bool) -> usize {
        let places = (self.first..self.next).take(most);
        let place = |ticket: u64| self.ring.get(self.index(ticket));
        places
            .take_while(|ticket| place(*ticket).and_then(Option::as_ref).is_some_and(&wanted))
            .count()
    }

    /// From now on somebody may rely on it that what `ticket` is for will be recorded.
    pub fn promise(&mut self, ticket: u64) {
        self.promised = self.promised.max(ticket + 1);
    }

    /// What was handed on with one more ticket is recorded, or never will be.
    pub fn note_recorded(&mut self) {
        self.recorded += 1;
    }

    /// How many tickets are done with: in their order.
    pub fn recorded(&self) -> u64 {
        self.recorded
    }

    /// How many tickets were handed out and are not done with.
    pub fn unrecorded(&self) -> u64 {
        self.next - self.recorded
    }

    /// How many tickets must be done with before all that was promised is kept; `None` if it is.
    pub fn owed(&self) -> Option<u64> {
        (self.promised > self.recorded).then_some(self.promised)
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! What a snapshot target answers to the message `stats`.

use crate::waits::{Below, Waits};

/// The figures. Documentation/admin-guide.md says what each is; one that a later module adds is told
/// as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    numbers: Vec<(String, u64)>,
    waits: Waits,
}

impl Figures {
    /// Reads an answer: a line for each figure, its name, a space, and a number. `None` if it has
    /// none.
    pub fn parse(answer: &str) -> Option<Self> {
        let mut found = Self::default();
        for line in answer.lines() {
            let Some((name, number)) = line.split_once(' ') else {
                continue;
            };
            let Ok(number) = number.trim().parse() else {
                continue;
            };
            let bound = name
                .strip_prefix("waits_below_")
                .and_then(|rest| rest.strip_suffix("_us"))
                .and_then(|bound| bound.parse().ok());
            match bound {
                Some(bound) => found.waits.push(Below::Microseconds(bound), number),
                None if name == "waits_longer" => found.waits.push(Below::Nothing, number),
                None => found.numbers.push((name.into(), number)),
            }
        }
        (found != Self::default()).then_some(found)
    }

    /// The figure called `name`, if the target tells it.
    pub fn get(&self, name: &str) -> Option<u64> {
        let found = self.numbers.iter().find(|(known, _)| known == name);
        found.map(|(_, number)| *number)
    }

    /// All of them but the waits, in the target's order.
    pub fn numbers(&self) -> impl Iterator<Item = (&str, u64)> {
        self.numbers.iter().map(|(name, n)| (name.as_str(), *n))
    }

    /// How long copies, and writes of whole chunks, took.
    pub fn waits(&self) -> &Waits {
        &self.waits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_an_answer() {
        let found = Figures::parse(
            "chunk_sectors 8\nexceptions 50\nwaits_below_64_us 3\nwaits_longer 1\n\
             origin_snapshots 2\n",
        );
        let found = found.unwrap();
        assert_eq!(found.get("exceptions"), Some(50));
        assert_eq!(found.get("waits_below_64_us"), None);
        let names: Vec<&str> = found.numbers().map(|(name, _)| name).collect();
        assert_eq!(names, ["chunk_sectors", "exceptions", "origin_snapshots"]);
        let waits: Vec<_> = found.waits().buckets().iter().map(|b| b.count).collect();
        assert_eq!(waits, [3, 1]);
    }

    #[test]
    fn takes_what_it_understands() {
        for nothing in ["", "\n", "stats", "a b\nc -1\n", "a 99999999999999999999"] {
            assert_eq!(Figures::parse(nothing), None, "{nothing:?}");
        }
        // A later module's, and a line that was cut.
        let found = Figures::parse("new 1\nwaits_below_x_us 2\nexcept").unwrap();
        assert_eq!(found.numbers().count(), 2);
        assert_eq!(found.get("new"), Some(1));
    }
}

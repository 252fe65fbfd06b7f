// SPDX-License-Identifier: GPL-2.0-only

//! The order in which a snapshot's exceptions are recorded, and who waits for that.

use super::core::{
    Flushes,
    Item,
    Pipeline, //
};
use crate::dm::BioList;

/// Of one snapshot.
pub(super) struct Order {
    /// Exceptions, with their shards.
    pub(super) pipeline: Pipeline<(usize, Item)>,
    /// Flushes of the snapshot that wait for some of them.
    pub(super) flushes: Flushes<BioList>,
}

impl Order {
    /// Nothing is to be recorded.
    pub(super) fn new() -> Self {
        Self {
            pipeline: Pipeline::new(),
            flushes: Flushes::default(),
        }
    }

    /// One more ticket is done with. Returns the flushes that need not wait any more.
    pub(super) fn recorded(&mut self) -> BioList {
        self.pipeline.note_recorded();
        let owed = self.pipeline.owed();
        self.flushes.ready(self.pipeline.recorded(), owed)
    }
}

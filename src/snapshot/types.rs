// SPDX-License-Identifier: GPL-2.0-only

//! What stands in the kernel for the types of [`core`](super::core).

use super::{
    copy_job::CopyJob,
    core::{
        Allocation,
        Bios,
        Incoming,
        NoChunk,
        Types, //
    },
    Leased,
    Snapshot, //
};
use crate::dm::{
    kcopyd::CopyOf,
    Bio,
    BioList,
    MapBio,
    Op, //
};
use kernel::{
    prelude::*,
    time::{
        Instant,
        Monotonic, //
    }, //
};

/// The kernel's.
pub(super) enum Kernel {}

impl Types for Kernel {
    type Snapshot = Leased<Snapshot>;
    type Bio = Bio;
    type Bios = BioList;
    type Job = KBox<CopyOf<CopyJob>>;
    type Moment = Instant<Monotonic>;

    fn now() -> Self::Moment {
        Instant::now()
    }

    fn since(then: &Self::Moment) -> u64 {
        then.elapsed().as_nanos().unsigned_abs()
    }

    fn must_last(bio: &Bio) -> bool {
        bio.is_fua()
    }

    fn end(bio: &Bio) -> u64 {
        bio.sector() + u64::from(bio.sectors())
    }

    fn has_data(bio: &Bio) -> bool {
        bio.op() == Op::Write
    }
}

impl super::core::Snapshot for Leased<Snapshot> {
    fn wants_copies(&self) -> bool {
        let state = self.state();
        state.is_active() && state.is_valid() && !state.is_merging()
    }

    fn sectors(&self) -> u64 {
        self.state().sectors()
    }

    fn allocate(&self, max: u64, now: bool) -> Result<Allocation, NoChunk> {
        Leased::<Snapshot>::allocate(self, max, now)
    }

    fn has_plenty(&self) -> bool {
        Snapshot::has_plenty(self)
    }

    fn promise(&self, ticket: u64) {
        Snapshot::promise(self, ticket);
    }
}

impl Incoming<Bio> for Bio {
    const MAY_CUT: bool = false;

    fn sector(&self) -> u64 {
        Bio::sector(self)
    }

    fn sectors(&self) -> u64 {
        Bio::sectors(self).into()
    }

    fn cut(&mut self, _sectors: u64) {}

    fn must_last(&self) -> bool {
        self.is_fua()
    }

    fn into_bio(self) -> Bio {
        self
    }
}

impl Incoming<Bio> for MapBio<'_> {
    const MAY_CUT: bool = true;

    fn sector(&self) -> u64 {
        Bio::sector(self)
    }

    fn sectors(&self) -> u64 {
        Bio::sectors(self).into()
    }

    fn cut(&mut self, sectors: u64) {
        // Less than the bio has, and that fits.
        if let Ok(sectors) = u32::try_from(sectors) {
            self.accept_partial(sectors);
        }
    }

    fn must_last(&self) -> bool {
        self.is_fua()
    }

    fn into_bio(self) -> Bio {
        MapBio::into_bio(self)
    }
}

impl Bios<Bio> for BioList {
    fn push(&mut self, bio: Bio) {
        BioList::push(self, bio);
    }

    fn pop(&mut self) -> Option<Bio> {
        BioList::pop(self)
    }

    fn append(&mut self, others: &mut Self) {
        BioList::append(self, others);
    }

    fn is_empty(&self) -> bool {
        BioList::is_empty(self)
    }
}

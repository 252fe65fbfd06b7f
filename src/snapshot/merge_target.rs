// SPDX-License-Identifier: GPL-2.0-only

//! The target `snapshot-merge`.

use super::{
    core::{
        span_end,
        Incoming, //
    },
    merger::Merger,
    side::Side,
    tracking::Tracking, //
};
use crate::dm::{
    target::{
        StatusKind,
        Target,
        TargetTable, //
    },
    Device,
    EndedBio,
    MapBio,
    Mapped,
    Op,
    QueueLimits, //
};
use kernel::{
    fmt,
    prelude::*,
    sync::Arc, //
};

/// An origin that a snapshot is being merged into: it shows what it will have in the end.
pub(crate) struct MergeTarget {
    // Stopped before the side is given up.
    merger: Arc<Merger>,
    side: Side,
}

impl MergeTarget {
    /// A write or read of the origin comes.
    fn map_origin(&self, bio: MapBio<'_>) -> Mapped {
        let devices = self.side.devices();
        bio.set_device(&devices.origin);
        let Ok(snapshot) = self.side.snapshot() else {
            return Mapped::Kill(bio.into());
        };
        if !bio.is_write() {
            return Mapped::Remapped(bio.into());
        }
        let patience = self.side.patience(&bio);
        match snapshot.origin().write(bio, patience) {
            Some(bio) => Mapped::Remapped(bio.into()),
            None => Mapped::Submitted,
        }
    }
}

#[vtable]
impl Target for MergeTarget {
    const NAME: &'static CStr = c"snapshot-merge";
    const VERSION: [u32; 3] = [1, 5, 100];

    const TAKES_NOWAIT: bool = true;

    type BioData = Tracking;

    fn new(table: &mut TargetTable<'_>, args: &[&CStr]) -> Result<Pin<KBox<Self>>> {
        let merger = Merger::new()?;
        let side = Side::new(table, args, Some(merger.clone()))?;
        Ok(KBox::pin(Self { merger, side }, GFP_KERNEL)?)
    }

    fn map(&self, mut bio: MapBio<'_>) -> Mapped {
        let devices = self.side.devices();
        if bio.is_preflush() {
            let first = bio.target_nr() == 0;
            bio.set_device(if first { &devices.origin } else { &devices.cow });
            return Mapped::Remapped(bio.into());
        }
        if bio.op() == Op::Discard {
            // Has no effect any more.
            bio.into_bio().end(Ok(()));
            return Mapped::Submitted;
        }
        let sector = Incoming::sector(&bio);
        let left = span_end(sector) - sector;
        if Incoming::sectors(&bio) > left {
            bio.cut(left);
        }
        // One that is invalid is no more than its origin.
        let Some(snapshot) = self.side.usable() else {
            return self.map_origin(bio);
        };
        if bio.is_write() {
            let patience = self.side.patience(&bio);
            return match snapshot.write_merging(bio, devices, patience) {
                Some(bio) => Mapped::Remapped(bio.into()),
                None => Mapped::Submitted,
            };
        }
        match snapshot.read_merging(bio, devices) {
            Ok(bio) => Mapped::Remapped(bio.into()),
            Err(bio) => Mapped::Kill(bio.into()),
        }
    }

    fn end_io(&self, bio: EndedBio<'_>) {
        self.side.end_io(bio);
    }

    fn presuspend(&self) {
        self.side.presuspend();
        self.merger.stop();
    }

    fn preresume(&self) -> Result {
        self.side.preresume()
    }

    fn resume(&self, table: &mut TargetTable<'_>) {
        self.side.resume(table);
        // Not one that was handed over to another table.
        if let Some(snapshot) = self.side.current() {
            // A write must find what was copied for the snapshot before: from here on it looks at what is
            // recorded only.
            snapshot.wait_until_idle();
            self.merger.start(snapshot);
        }
    }

    fn status(&self, kind: StatusKind, out: &mut dyn fmt::Write) {
        // A text that does not fit is cut.
        let _ = self.side.status(kind, out);
    }

    fn message(&self, args: &[&CStr], out: &mut dyn fmt::Write) -> Result {
        self.side.message(args, out)
    }

    fn iterate_devices(&self, visit: &mut dyn FnMut(&Device, u64, u64) -> c_int) -> c_int {
        self.side.iterate_devices(visit)
    }

    fn io_hints(&self, limits: &mut QueueLimits<'_>) {
        self.side.io_hints(limits);
    }
}

impl Drop for MergeTarget {
    fn drop(&mut self) {
        self.merger.stop();
    }
}

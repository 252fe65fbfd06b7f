// SPDX-License-Identifier: GPL-2.0-only

//! The target `snapshot`.

use super::core::{
    shard_of,
    span_end,
    Incoming, //
};
use super::{
    side::Side,
    tracking::Tracking,
    Leased,
    Snapshot, //
};
use crate::dm::{
    kcopyd::{
        self,
        CopyOf,
        Region, //
    },
    noio::until_memory,
    target::{
        StatusKind,
        Target,
        TargetTable, //
    },
    Bio,
    Device,
    EndedBio,
    MapBio,
    Mapped,
    Op,
    QueueLimits, //
};
use kernel::{
    fmt,
    prelude::*, //
};

/// A device that has what its origin had when it was made, and that can be written to.
pub(crate) struct SnapshotTarget(Side);

impl SnapshotTarget {
    fn write(&self, snapshot: &Leased<Snapshot>, mut bio: MapBio<'_>) -> Mapped {
        if snapshot.state().has_overflowed() {
            return Mapped::Kill(bio.into());
        }
        let left = span_end(Incoming::sector(&bio)) - Incoming::sector(&bio);
        if Incoming::sectors(&bio) > left {
            bio.cut(left);
        }
        let patience = self.0.patience(&bio);
        match snapshot.write(bio, self.0.devices(), patience) {
            Some(bio) => Mapped::Remapped(bio.into()),
            None => Mapped::Submitted,
        }
    }

    /// A discard comes; device-mapper has cut it at the chunks.
    fn discard(&self, snapshot: &Leased<Snapshot>, mut bio: MapBio<'_>) -> Mapped {
        let devices = self.0.devices();
        let sector = Incoming::sector(&bio);
        let shard = shard_of(sector);
        if self.0.features().discard_passdown_origin && bio.target_nr() != 0 {
            // Copies nothing: the point is to have more room.
            bio.set_device(&devices.origin);
            let epoch = snapshot.origin().cell(shard).begin_read();
            *bio.data_mut() = Tracking::read(shard, epoch);
            return Mapped::Remapped(bio.into());
        }
        let cell = snapshot.origin().cell(shard);
        let found = cell.shard.lock().find_written(snapshot.slot(), sector);
        let Some(cow) = found else {
            // Nothing to be gained.
            bio.into_bio().end(Ok(()));
            return Mapped::Submitted;
        };
        let count = Incoming::sectors(&bio);
        if count != u64::from(snapshot.state().chunk_sectors()) {
            bio.set_device(&devices.cow);
            bio.set_sector(cow);
            return Mapped::Remapped(bio.into());
        }
        let region = Region {
            device: &devices.cow,
            sector: cow,
            count,
        };
        let job = Zeroing::new(bio.into());
        snapshot.origin().kcopyd().zero(region, job);
        Mapped::Submitted
    }
}

/// A discard that is done by writing zeroes.
struct Zeroing(Option<Bio>);

impl Zeroing {
    /// Sleeps until there is memory.
    fn new(bio: Bio) -> KBox<CopyOf<Self>> {
        let mut job = until_memory(|| CopyOf::new(Self(None)));
        job.0 = Some(bio);
        job
    }
}

impl kcopyd::CopyJob for Zeroing {
    fn done(mut job: KBox<CopyOf<Self>>, _read_failed: bool, write_failed: usize) {
        if let Some(bio) = job.0.take() {
            bio.end(if write_failed == 0 { Ok(()) } else { Err(EIO) });
        }
    }
}

#[vtable]
impl Target for SnapshotTarget {
    const NAME: &'static CStr = c"snapshot";
    const VERSION: [u32; 3] = [1, 16, 100];

    const TAKES_NOWAIT: bool = true;

    type BioData = Tracking;

    fn new(table: &mut TargetTable<'_>, args: &[&CStr]) -> Result<Pin<KBox<Self>>> {
        Ok(KBox::pin(Self(Side::new(table, args, None)?), GFP_KERNEL)?)
    }

    fn map(&self, bio: MapBio<'_>) -> Mapped {
        let Some(snapshot) = self.0.usable() else {
            return Mapped::Kill(bio.into());
        };
        if bio.is_preflush() {
            let Some(bio) = snapshot.flush(bio) else {
                return Mapped::Submitted;
            };
            bio.set_device(&self.0.devices().cow);
            return Mapped::Remapped(bio.into());
        }
        if bio.op() == Op::Discard {
            return if snapshot.state().has_overflowed() {
                Mapped::Kill(bio.into())
            } else {
                self.discard(snapshot, bio)
            };
        }
        if bio.is_write() {
            return self.write(snapshot, bio);
        }
        match snapshot.read(bio, self.0.devices()) {
            Ok(bio) => Mapped::Remapped(bio.into()),
            Err(bio) => Mapped::Kill(bio.into()),
        }
    }

    fn end_io(&self, bio: EndedBio<'_>) {
        self.0.end_io(bio);
    }

    fn presuspend(&self) {
        self.0.presuspend();
    }

    fn postsuspend(&self) {
        self.0.postsuspend();
    }

    fn preresume(&self) -> Result {
        self.0.preresume()
    }

    fn resume(&self, table: &mut TargetTable<'_>) {
        self.0.resume(table);
    }

    fn status(&self, kind: StatusKind, out: &mut dyn fmt::Write) {
        // A text that does not fit is cut.
        let _ = self.0.status(kind, out);
    }

    fn message(&self, args: &[&CStr], out: &mut dyn fmt::Write) -> Result {
        self.0.message(args, out)
    }

    fn iterate_devices(&self, visit: &mut dyn FnMut(&Device, u64, u64) -> c_int) -> c_int {
        self.0.iterate_devices(visit)
    }

    fn io_hints(&self, limits: &mut QueueLimits<'_>) {
        self.0.io_hints(limits);
    }
}

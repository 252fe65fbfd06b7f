// SPDX-License-Identifier: GPL-2.0-only

//! The target `snapshot-origin`.

use super::{
    core::{
        span_end,
        Incoming, //
    },
    messages,
    patience::Patience,
    registry::OriginUse,
    Leased,
    Origin, //
};
use crate::dm::{
    target::{
        StatusKind,
        Target,
        TargetTable, //
    },
    Device,
    MapBio,
    Mapped,
    Op,
    OwnedDevice, //
};
use ::core::sync::atomic::{
    AtomicBool,
    Ordering::SeqCst, //
};
use kernel::{
    fmt,
    prelude::*, //
};

/// A device that passes everything on to another, and keeps what its snapshots need.
pub(crate) struct OriginTarget {
    origin: OriginUse,
    device: OwnedDevice,
    /// The target's length in sectors.
    sectors: u64,
    /// Whether it is about to be suspended, or is: then writes do not wait for a COW device to be
    /// extended.
    suspending: AtomicBool,
}

impl OriginTarget {
    /// A discard comes, within one span. What all snapshots have by themselves is passed on. The rest is
    /// not discarded: nobody is promised that, and to copy it first would only fill the snapshots.
    fn discard(origin: &Leased<Origin>, mut bio: MapBio<'_>) -> Mapped {
        let (start, sectors) = (Incoming::sector(&bio), Incoming::sectors(&bio));
        let (is_covered, until) = origin.is_covered(start, start + sectors);
        bio.cut(until - start);
        if is_covered {
            return Mapped::Remapped(bio.into());
        }
        bio.into_bio().end(Ok(()));
        Mapped::Submitted
    }
}

#[vtable]
impl Target for OriginTarget {
    const NAME: &'static CStr = c"snapshot-origin";
    const VERSION: [u32; 3] = [1, 9, 100];
    const IS_MEASURED: bool = false;

    const TAKES_NOWAIT: bool = true;

    type BioData = ();

    fn new(table: &mut TargetTable<'_>, args: &[&CStr]) -> Result<Pin<KBox<Self>>> {
        let &[path] = args else {
            table.set_error(c"origin: incorrect number of arguments");
            return Err(EINVAL);
        };
        let writable = !table.is_read_only();
        let device = table.get_device(path, writable).inspect_err(|_| {
            table.set_error(c"Cannot get target device");
        })?;
        table.set_num_flush_bios(1);
        table.set_num_discard_bios(1);
        let target = Self {
            origin: OriginUse::new(&device)?,
            device,
            sectors: table.len(),
            suspending: AtomicBool::new(false),
        };
        Ok(KBox::pin(target, GFP_KERNEL)?)
    }

    fn map(&self, mut bio: MapBio<'_>) -> Mapped {
        bio.set_device(&self.device);
        if bio.is_preflush() || !bio.is_write() {
            return Mapped::Remapped(bio.into());
        }
        let Ok(origin) = self.origin.origin() else {
            return Mapped::Kill(bio.into());
        };
        if !origin.has_snapshots() {
            return Mapped::Remapped(bio.into());
        }
        let left = span_end(Incoming::sector(&bio)) - Incoming::sector(&bio);
        if Incoming::sectors(&bio) > left {
            bio.cut(left);
        }
        if bio.op() == Op::Discard {
            return Self::discard(origin, bio);
        }
        let patience = Patience::of(&bio, &self.suspending);
        match origin.write(bio, patience) {
            Some(bio) => Mapped::Remapped(bio.into()),
            None => Mapped::Submitted,
        }
    }

    fn presuspend(&self) {
        self.suspending.store(true, SeqCst);
    }

    fn postsuspend(&self) {
        if let Ok(origin) = self.origin.origin() {
            // What is copied ahead is not to be on its way while devices below are suspended, too.
            origin.wait_for_all();
        }
    }

    fn resume(&self, _table: &mut TargetTable<'_>) {
        self.suspending.store(false, SeqCst);
    }

    fn status(&self, kind: StatusKind, out: &mut dyn fmt::Write) {
        if kind == StatusKind::Table {
            // A text that does not fit is cut.
            let _ = write!(out, "{}", *self.device);
        }
    }

    fn message(&self, args: &[&CStr], out: &mut dyn fmt::Write) -> Result {
        messages::to_origin(self.origin.origin()?, args, out)
    }

    fn iterate_devices(&self, visit: &mut dyn FnMut(&Device, u64, u64) -> c_int) -> c_int {
        visit(&self.device, 0, self.sectors)
    }
}

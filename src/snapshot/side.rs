// SPDX-License-Identifier: GPL-2.0-only

//! One table's view of a snapshot.

use super::{
    arguments::{
        Arguments,
        Features, //
    },
    leased::Leased,
    merger::Merger,
    messages,
    origin::Devices,
    patience::Patience,
    registry::{
        self,
        Joined,
        OriginUse,
        Party,
        Refusal, //
    },
    snapshot::{
        borrowed,
        LoadFailure,
        Snapshot, //
    },
    store::Store,
    tracking::{
        Tracked,
        Tracking, //
    }, //
};
use crate::dm::{
    exception_store::TableLine,
    target::{
        StatusKind,
        TargetTable, //
    },
    Bio,
    Device,
    EndedBio,
    OwnedDevice,
    QueueLimits, //
};
use ::core::sync::atomic::{
    AtomicBool,
    Ordering::SeqCst, //
};
use kernel::{
    fmt,
    prelude::*,
    sync::Arc, //
};

/// What a target of `snapshot` and one of `snapshot-merge` have in common.
pub(crate) struct Side {
    // Taken only when the target goes away.
    snapshot: Option<Leased<Snapshot>>,
    /// The table's own store, if the snapshot came with another.
    unused: Option<Store>,
    party: Arc<Party>,
    features: Features,
    /// The target's length in sectors.
    sectors: u64,
    /// Whether it is about to be suspended, or is: then writes do not wait for a COW device to be
    /// extended.
    suspending: AtomicBool,
    // What follows is given back after the snapshot.
    _use: OriginUse,
    origin: OwnedDevice,
    cow: OwnedDevice,
}

impl Side {
    /// Makes a target of a table line; `merger` is what merges for it, if it is a merge. Sleeps.
    pub(super) fn new(
        table: &mut TargetTable<'_>,
        args: &[&CStr],
        merger: Option<Arc<Merger>>,
    ) -> Result<Self> {
        let merges = merger.is_some();
        let arguments = Arguments::parse(table, args)?;
        let origin = table
            .get_device(arguments.origin, merges)
            .inspect_err(|_| {
                table.set_error(c"Cannot get origin device");
            })?;
        let writable = !table.is_read_only();
        let cow = match table.get_device(arguments.cow, writable) {
            Ok(cow) => cow,
            Err(e) if e == EEXIST => {
                table.set_error(c"COW device cannot be the same as origin device");
                return Err(EINVAL);
            }
            Err(e) => {
                table.set_error(c"Cannot get COW device");
                return Err(e);
            }
        };
        let devices = Devices {
            origin: origin.share(),
            cow: cow.share(),
        };
        let (store, chunk_sectors, supports_overflow) = Self::store(table, &arguments, &devices)
            .map_err(|_| {
                table.set_error(c"Couldn't create exception store");
                EINVAL
            })?;
        if merges && !store.can_merge() {
            table.set_error(c"Snapshot exception store does not support snapshot-merge.");
            return Err(EINVAL);
        }
        let party = Party::new(table.handle(), devices, merger, supports_overflow)?;
        let origin_use = OriginUse::new(&origin)?;
        let (snapshot, joined) =
            registry::join(&origin_use, &party, store).map_err(|refusal| match refusal {
                Refusal::Because(why) => {
                    table.set_error(why);
                    EINVAL
                }
                Refusal::Error(e) => e,
            })?;
        let (first, unused) = match joined {
            Joined::First => (true, None),
            Joined::Handover(store) => (false, Some(store)),
        };
        let side = Self {
            snapshot: Some(snapshot),
            unused,
            party,
            features: arguments.features,
            sectors: table.len(),
            suspending: AtomicBool::new(false),
            _use: origin_use,
            origin,
            cow,
        };
        if first {
            side.snapshot()?
                .load(chunk_sectors)
                .map_err(|failure| match failure {
                    LoadFailure::NoChunkSize => {
                        table.set_error(c"Chunk size not set");
                        EINVAL
                    }
                    LoadFailure::Error(e) => {
                        table.set_error(c"Failed to read snapshot metadata");
                        e
                    }
                })?;
            registry::show(side.snapshot()?, &side.cow);
        }
        table.set_num_flush_bios(if merges { 2 } else { 1 });
        if !merges {
            // Writes are over before their chunks are recorded.
            table.set_flush_supported();
        }
        if side.features.discard_zeroes_cow {
            table.set_num_discard_bios(side.features.count());
            // A discard is cut at the chunks.
            table.set_max_io_len(side.snapshot()?.state().chunk_sectors());
        }
        Ok(side)
    }

    /// The table's store, its chunk size in sectors, and whether userspace supports overflows.
    fn store(
        table: &mut TargetTable<'_>,
        arguments: &Arguments<'_>,
        devices: &Devices,
    ) -> Result<(Store, u32, bool)> {
        let (kind, options) = arguments.kind(table)?;
        let chunk_sectors = arguments.chunk_sectors(
            table,
            devices.cow.logical_block_size(),
            devices.origin.logical_block_size(),
        )?;
        let (store, supports_overflow) = Store::new(borrowed(devices), kind, options)?;
        Ok((store, chunk_sectors, supports_overflow))
    }

    /// The snapshot.
    pub(super) fn snapshot(&self) -> Result<&Leased<Snapshot>> {
        self.snapshot.as_ref().ok_or(ENODEV)
    }

    /// The snapshot, if this table has it and it is valid.
    pub(super) fn usable(&self) -> Option<&Leased<Snapshot>> {
        self.current()
            .filter(|snapshot| snapshot.state().is_valid())
    }

    /// The snapshot, if this table has it, valid or not.
    pub(super) fn current(&self) -> Option<&Leased<Snapshot>> {
        self.snapshot.as_ref().filter(|_| !self.party.is_stale())
    }

    /// The target's devices.
    pub(super) fn devices(&self) -> &Devices {
        &self.party.devices
    }

    /// The target's features.
    pub(super) fn features(&self) -> Features {
        self.features
    }

    /// For how long `bio`, a write to the target, waits for a COW device to be extended.
    pub(super) fn patience(&self, bio: &Bio) -> Patience<'_> {
        Patience::of(bio, &self.suspending)
    }

    /// The target is about to be suspended. Any context.
    pub(super) fn presuspend(&self) {
        self.suspending.store(true, SeqCst);
    }

    /// The target is suspended: what was written is not to depend on a flush any more. Sleeps.
    pub(super) fn postsuspend(&self) {
        if let Some(snapshot) = self.current() {
            snapshot.wait_for_promised();
        }
    }

    /// Whether the target may be resumed. May sleep.
    pub(super) fn preresume(&self) -> Result {
        registry::may_resume(self.snapshot()?, &self.party)
    }

    /// The target is resumed. May sleep.
    pub(super) fn resume(&self, table: &TargetTable<'_>) {
        if let Ok(snapshot) = self.snapshot() {
            registry::resume(snapshot, &self.party, table.table_size());
        }
        self.suspending.store(false, SeqCst);
    }

    /// A bio is over. Any context.
    pub(super) fn end_io(&self, mut bio: EndedBio<'_>) {
        let Ok(snapshot) = self.snapshot() else {
            return;
        };
        let tracked = bio.data::<Tracking>().what();
        match tracked {
            Tracked::No => {}
            Tracked::Read(shard, epoch) => {
                *bio.data_mut() = Tracking::default();
                snapshot.origin().arc().read_ended(shard, epoch);
                // Nobody waits any more until an invalid snapshot has read what it wants to.
                if !snapshot.state().is_valid() {
                    bio.take().end(Err(EIO));
                }
            }
            Tracked::MergeWrite(epoch) => {
                *bio.data_mut() = Tracking::default();
                snapshot.merge_write_ended(epoch);
            }
            Tracked::Full(..) => snapshot.full_write_ended(bio.take()),
        }
    }

    /// Writes what device-mapper shows of the target.
    pub(super) fn status(&self, kind: StatusKind, out: &mut dyn fmt::Write) -> fmt::Result {
        let Ok(snapshot) = self.snapshot() else {
            return Ok(());
        };
        let state = snapshot.state();
        let stale = self.party.is_stale();
        let valid = state.is_valid() && !stale;
        match kind {
            StatusKind::Info => {
                if !valid {
                    return out.write_str("Invalid");
                }
                if state.has_merge_failed() {
                    return out.write_str("Merge failed");
                }
                if state.has_overflowed() {
                    return out.write_str("Overflow");
                }
                match snapshot.usage() {
                    Some(usage) => write!(
                        out,
                        "{}/{} {}",
                        usage.allocated, usage.total, usage.metadata
                    ),
                    None => out.write_str("Unknown"),
                }
            }
            StatusKind::Table => {
                write!(out, "{} {}", *self.origin, *self.cow)?;
                let waits = self.party.waits_for_handover();
                let line = TableLine {
                    chunk_sectors: if waits || stale {
                        0
                    } else {
                        state.chunk_sectors()
                    },
                    userspace_supports_overflow: self.party.supports_overflow,
                };
                let own = self.unused.as_ref().filter(|_| waits);
                own.unwrap_or(snapshot.store()).table_line(&line, out)?;
                let count = self.features.count();
                if count > 0 {
                    write!(out, " {count}")?;
                }
                if self.features.discard_zeroes_cow {
                    out.write_str(" discard_zeroes_cow")?;
                }
                if self.features.discard_passdown_origin {
                    out.write_str(" discard_passdown_origin")?;
                }
                Ok(())
            }
            StatusKind::Ima => {
                let yes_no = |yes| if yes { 'y' } else { 'n' };
                write!(
                    out,
                    ",snap_origin_name={},snap_cow_name={},snap_valid={},snap_merge_failed={},\
                     snapshot_overflowed={};",
                    *self.origin,
                    *self.cow,
                    yes_no(valid),
                    yes_no(state.has_merge_failed()),
                    yes_no(state.has_overflowed())
                )
            }
        }
    }

    /// Does what a message asks for. May sleep.
    pub(super) fn message(&self, args: &[&CStr], out: &mut dyn fmt::Write) -> Result {
        // Whoever has the snapshot now is to be asked.
        let snapshot = self.current().ok_or(ENODEV)?;
        messages::to_snapshot(snapshot, args, out)
    }

    /// The devices that the target uses.
    pub(super) fn iterate_devices(
        &self,
        visit: &mut dyn FnMut(&Device, u64, u64) -> c_int,
    ) -> c_int {
        match visit(&self.origin, 0, self.sectors) {
            0 => visit(&self.cow, 0, self.cow.sectors()),
            other => other,
        }
    }

    /// What the target wants discards to be like.
    pub(super) fn io_hints(&self, limits: &mut QueueLimits<'_>) {
        if let (true, Ok(snapshot)) = (self.features.discard_zeroes_cow, self.snapshot()) {
            let chunk_sectors = snapshot.state().chunk_sectors();
            limits.set_discard_granularity(chunk_sectors.saturating_mul(512));
            limits.set_max_discard_sectors(chunk_sectors);
        }
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        if let Some(snapshot) = self.snapshot.take() {
            registry::leave(snapshot, &self.party);
        }
    }
}

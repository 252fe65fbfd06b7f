// SPDX-License-Identifier: GPL-2.0-only

//! Which origins and snapshots there are, and which tables have them.
//!
//! A reload of a snapshot's table makes a second target with the same origin and COW device, the
//! *destination*. When it is resumed, the snapshot is handed over to it from the *source*, which is
//! *stale* from then on. There is one [`Snapshot`] all the time, so that what is under way goes on.

use super::{
    core::SlotId,
    leased::{
        Leased,
        Owner, //
    },
    merger::Merger,
    origin::{
        Devices,
        Origin, //
    },
    snapshot::Snapshot,
    store::Store,
    DM_MSG_PREFIX, //
};
use crate::dm::{
    debugfs::Shown,
    global::global_mutex,
    message::dm_err,
    noio::NoIo,
    target::TargetHandle,
    Device, //
};
use ::core::ops::{
    Deref,
    DerefMut, //
};
use ::core::sync::atomic::{
    AtomicBool,
    Ordering::SeqCst, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

global_mutex! {
    /// All origins.
    mod origins: KVec<Entry> = KVec::new();
}

/// The origins, locked.
struct Origins {
    origins: origins::Guard,
    // Whoever waits for the lock may have suspended a device: getting memory must not wait for that.
    _noio: NoIo,
}

/// Locks the origins; `None` before [`init`]. Sleeps.
fn lock() -> Option<Origins> {
    let noio = NoIo::new();
    Some(Origins {
        origins: origins::lock()?,
        _noio: noio,
    })
}

impl Deref for Origins {
    type Target = KVec<Entry>;

    fn deref(&self) -> &KVec<Entry> {
        &self.origins
    }
}

impl DerefMut for Origins {
    fn deref_mut(&mut self) -> &mut KVec<Entry> {
        &mut self.origins
    }
}

/// Has to be called when the module is loaded, before there are targets.
pub(crate) fn init() {
    origins::make();
}

/// An origin.
struct Entry {
    /// See [`Device::id`].
    device: usize,
    /// Targets that have it.
    users: usize,
    /// The next snapshot's slot.
    next_slot: u32,
    snapshots: KVec<Shared>,
    /// What is to be seen of it.
    shown: Option<Shown>,
    // Dropped after the snapshots and what is shown, which have leases of it.
    origin: Owner<Origin>,
}

/// A snapshot.
struct Shared {
    /// The COW device: see [`Device::id`].
    cow: usize,
    /// The target that has the snapshot.
    source: Option<Arc<Party>>,
    /// The target that it will be handed over to, or its first one until that is resumed.
    destination: Option<Arc<Party>>,
    /// Targets that had it.
    stale: usize,
    /// What is to be seen of it.
    shown: Option<Shown>,
    // Dropped after what is shown, which has a lease of it.
    snapshot: Owner<Snapshot>,
}

/// A target, as the registry knows it.
pub(super) struct Party {
    /// The target.
    pub(super) handle: Arc<TargetHandle>,
    /// Its devices.
    pub(super) devices: Devices,
    /// What merges for it, if it is a merge.
    merger: Option<Arc<Merger>>,
    /// Whether its table wants to know of overflows.
    pub(super) supports_overflow: bool,
    /// Whether it will be handed a snapshot over that another target has.
    waits: AtomicBool,
    /// Whether the snapshot was handed over to another.
    stale: AtomicBool,
}

impl Party {
    /// A target that has no snapshot yet. May sleep.
    pub(super) fn new(
        handle: Arc<TargetHandle>,
        devices: Devices,
        merger: Option<Arc<Merger>>,
        supports_overflow: bool,
    ) -> Result<Arc<Self>> {
        Ok(Arc::new(
            Self {
                handle,
                devices,
                merger,
                supports_overflow,
                waits: AtomicBool::new(false),
                stale: AtomicBool::new(false),
            },
            GFP_KERNEL,
        )?)
    }

    /// Whether it merges.
    fn merges(&self) -> bool {
        self.merger.is_some()
    }

    /// Whether another target still has the snapshot.
    pub(super) fn waits_for_handover(&self) -> bool {
        self.waits.load(SeqCst)
    }

    /// Whether the snapshot was handed over to another target.
    pub(super) fn is_stale(&self) -> bool {
        self.stale.load(SeqCst)
    }
}

/// A target's use of an origin.
pub(super) struct OriginUse {
    device: usize,
    // Taken only when it goes away.
    origin: Option<Leased<Origin>>,
}

impl OriginUse {
    /// Uses `device` as an origin. May sleep.
    pub(super) fn new(device: &Device) -> Result<Self> {
        let id = device.id();
        let mut origins = lock().ok_or(ENODEV)?;
        if !origins.iter().any(|entry| entry.device == id) {
            let entry = Entry {
                device: id,
                users: 0,
                next_slot: 0,
                snapshots: KVec::new(),
                shown: None,
                origin: Owner::new(Origin::new()?)?,
            };
            origins.push(entry, GFP_KERNEL)?;
        }
        let entry = origins
            .iter_mut()
            .find(|entry| entry.device == id)
            .ok_or(ENODEV)?;
        entry.users += 1;
        let is_hidden = entry.shown.is_none();
        let this = Self {
            device: id,
            origin: entry.origin.lease(),
        };
        drop(origins);
        if is_hidden {
            this.show(device);
        }
        Ok(this)
    }

    /// Lets it be seen. One that cannot be is no worse for it. Sleeps.
    fn show(&self, device: &Device) {
        let Some(origin) = self.origin.clone() else {
            return;
        };
        let shown = Shown::new(format_args!("origin-{device}"), origin).ok();
        let Some(mut origins) = lock() else { return };
        let mut entry = origins.iter_mut().find(|e| e.device == self.device);
        // Somebody else may have been as quick; what is left over goes without the lock.
        let left = match &mut entry {
            Some(entry) if entry.shown.is_none() => core::mem::replace(&mut entry.shown, shown),
            _ => shown,
        };
        drop(origins);
        drop(left);
    }

    /// The origin.
    pub(super) fn origin(&self) -> Result<&Leased<Origin>> {
        self.origin.as_ref().ok_or(ENODEV)
    }
}

impl Drop for OriginUse {
    fn drop(&mut self) {
        self.origin = None;
        // What is seen goes before the registry forgets it, since another of that name may come; and without
        // the lock, since that waits for those who look.
        let shown = lock().and_then(|mut origins| {
            let mut last = origins.iter_mut().filter(|e| e.users == 1);
            last.find(|e| e.device == self.device)?.shown.take()
        });
        drop(shown);
        let Some(mut origins) = lock() else {
            return;
        };
        let Some(index) = origins.iter().position(|e| e.device == self.device) else {
            return;
        };
        let unused = origins.get_mut(index).is_some_and(|entry| {
            entry.users = entry.users.saturating_sub(1);
            entry.users == 0
        });
        let entry = match unused {
            true => KVec::remove(&mut origins, index).ok(),
            false => None,
        };
        if origins.is_empty() {
            // Nobody frees it later.
            *origins = KVec::new();
        }
        drop(origins);
        // Without the lock: it waits until nothing of the origin's runs any more.
        drop(entry);
    }
}

/// Whether a target is the first to have a snapshot.
pub(super) enum Joined {
    /// It is: the snapshot is to be loaded.
    First,
    /// The snapshot will be handed over to it. Its own store is not needed.
    Handover(Store),
}

/// Why a target cannot have a snapshot.
pub(super) enum Refusal {
    /// What device-mapper is to say.
    Because(&'static CStr),
    /// An error of another kind.
    Error(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// A target wants the snapshot of `origin` that is on its COW device. `store` is its own if it is the
/// first. May sleep.
pub(super) fn join(
    origin: &OriginUse,
    party: &Arc<Party>,
    store: Store,
) -> Result<(Leased<Snapshot>, Joined), Refusal> {
    let cow = party.devices.cow.id();
    let mut origins = lock().ok_or(ENODEV)?;
    let entry = origins
        .iter_mut()
        .find(|entry| entry.device == origin.device)
        .ok_or(ENODEV)?;
    let merging = entry
        .snapshots
        .iter()
        .flat_map(|shared| [&shared.source, &shared.destination])
        .flatten()
        .any(|party| party.merges());
    let Some(shared) = entry.snapshots.iter_mut().find(|shared| shared.cow == cow) else {
        // First, since nothing may fail while there are an owner and a lease.
        entry
            .snapshots
            .reserve(1, GFP_KERNEL)
            .map_err(Error::from)?;
        let slot = SlotId(entry.next_slot);
        let snapshot = Snapshot::new(origin.origin()?.clone(), slot, store, party.devices.clone())?;
        let owner = Owner::new(snapshot)?;
        let lease = owner.lease().ok_or(ENODEV)?;
        let shared = Shared {
            cow,
            source: None,
            destination: Some(party.clone()),
            stale: 0,
            shown: None,
            snapshot: owner,
        };
        entry
            .snapshots
            .push(shared, GFP_KERNEL)
            .map_err(Error::from)?;
        entry.next_slot += 1;
        return Ok((lease, Joined::First));
    };
    if shared.destination.is_some() || shared.source.is_none() || shared.stale > 0 {
        return Err(Refusal::Because(
            c"Snapshot cow pairing for exception table handover failed",
        ));
    }
    let lease = shared.snapshot.lease().ok_or(ENODEV)?;
    if party.merges() {
        if merging {
            return Err(Refusal::Because(c"A snapshot is already merging."));
        }
        if !lease.store().can_merge() {
            return Err(Refusal::Because(
                c"Snapshot exception store does not support snapshot-merge.",
            ));
        }
    }
    party.waits.store(true, SeqCst);
    shared.destination = Some(party.clone());
    Ok((lease, Joined::Handover(store)))
}

/// Calls `f` with what is known of a snapshot. May sleep.
fn with_shared<R>(snapshot: &Leased<Snapshot>, f: impl FnOnce(&mut Shared) -> R) -> Option<R> {
    let mut origins = lock()?;
    let shared = origins
        .iter_mut()
        .flat_map(|entry| entry.snapshots.iter_mut())
        .find(|shared| shared.snapshot.owns(snapshot))?;
    Some(f(shared))
}

/// Lets a snapshot be seen that was loaded. One that cannot be is no worse for it. Sleeps.
pub(super) fn show(snapshot: &Leased<Snapshot>, cow: &Device) {
    let shown = Shown::new(format_args!("cow-{cow}"), snapshot.clone()).ok();
    let _ = with_shared(snapshot, |shared| shared.shown = shown);
}

fn is(party: &Arc<Party>, other: &Option<Arc<Party>>) -> bool {
    other
        .as_ref()
        .is_some_and(|other| Arc::ptr_eq(party, other))
}

/// Whether a target of the snapshot may be resumed. May sleep.
pub(super) fn may_resume(snapshot: &Leased<Snapshot>, party: &Arc<Party>) -> Result {
    if !party.merges() && snapshot.tell_merge(|merge| merge.is_lost()) {
        dm_err!("Unable to resume snapshot: what was merged is not known. Deactivate it first.");
        return Err(EINVAL);
    }
    let may = with_shared(snapshot, |shared| {
        let (Some(source), Some(_)) = (&shared.source, &shared.destination) else {
            return true;
        };
        if Arc::ptr_eq(party, source) {
            dm_err!("Unable to resume snapshot source until handover completes.");
            false
        } else if !source.handle.is_suspended() {
            dm_err!("Unable to perform snapshot handover until source is suspended.");
            false
        } else {
            true
        }
    });
    if may == Some(false) {
        return Err(EINVAL);
    }
    Ok(())
}

/// A target of the snapshot, whose table has so many sectors, is resumed. Sleeps.
///
/// A snapshot that becomes active may need what a merge beside it is just about to overwrite, and was
/// not asked for: the merge does not run meanwhile.
pub(super) fn resume(snapshot: &Leased<Snapshot>, party: &Arc<Party>, sectors: u64) {
    let Some(mut origins) = lock() else { return };
    for entry in origins.iter_mut() {
        let found = |shared: &Shared| shared.snapshot.owns(snapshot);
        let Some(index) = entry.snapshots.iter().position(found) else {
            continue;
        };
        let merger = match snapshot.state().is_active() {
            true => None,
            false => entry.merger_beside(index),
        };
        let Some(shared) = entry.snapshots.get_mut(index) else {
            continue;
        };
        match merger {
            Some(merger) => merger.without(|| shared.resume(snapshot, party, sectors)),
            None => shared.resume(snapshot, party, sectors),
        }
    }
}

impl Entry {
    /// What merges another snapshot than that at `index`.
    fn merger_beside(&self, index: usize) -> Option<Arc<Merger>> {
        let others = self.snapshots.iter().enumerate();
        others
            .filter(|(other, _)| *other != index)
            .filter_map(|(_, shared)| shared.source.as_ref())
            .find_map(|party| party.merger.clone())
    }
}

impl Shared {
    fn resume(&mut self, snapshot: &Leased<Snapshot>, party: &Arc<Party>, sectors: u64) {
        if is(party, &self.destination) {
            if let Some(source) = self.source.take() {
                source.stale.store(true, SeqCst);
                self.stale += 1;
            }
            pass_on(snapshot, self);
        }
        if is(party, &self.source) {
            snapshot.state().set_merging(party.merges());
            snapshot.state().set_sectors(sectors);
            snapshot.look_for_room();
            snapshot.state().set_active(true);
        }
    }
}

/// Makes the destination the source.
fn pass_on(snapshot: &Leased<Snapshot>, shared: &mut Shared) {
    let Some(party) = shared.destination.take() else {
        return;
    };
    snapshot.set_devices(Some(party.devices.clone()));
    snapshot.set_handle(Some(party.handle.clone()), party.supports_overflow);
    // As a merge it begins only when its table is resumed: until then the origin may be written to.
    if !party.merges() {
        snapshot.state().set_merging(false);
    }
    snapshot.state().set_merge_failed(false);
    party.waits.store(false, SeqCst);
    shared.source = Some(party);
}

/// A target of the snapshot goes away. Sleeps until nothing is under way that needs its devices.
pub(super) fn leave(snapshot: Leased<Snapshot>, party: &Arc<Party>) {
    let abandoned = with_shared(&snapshot, |shared| {
        if is(party, &shared.source) {
            shared.source = None;
            // Whoever waits for the snapshot has it now. It stays as it is: active, though the new
            // target was not resumed yet.
            pass_on(&snapshot, shared);
        } else if is(party, &shared.destination) {
            shared.destination = None;
        } else {
            shared.stale = shared.stale.saturating_sub(1);
        }
        shared.source.is_none() && shared.destination.is_none()
    });
    if abandoned != Some(true) {
        return;
    }
    snapshot.stop();
    // Before another of this name can come.
    drop(with_shared(&snapshot, |shared| shared.shown.take()));
    let Some(mut origins) = lock() else {
        return;
    };
    let mut found = None;
    for entry in origins.iter_mut() {
        let index = entry.snapshots.iter().position(|shared| {
            // Stale targets have it still: the last of them does the rest.
            shared.stale == 0 && shared.snapshot.owns(&snapshot)
        });
        if let Some(index) = index {
            found = entry.snapshots.remove(index).ok();
        }
    }
    drop(origins);
    if found.is_some() {
        snapshot.unload();
    }
    drop(snapshot);
    // Without the lock: it waits until nothing of the snapshot's runs any more.
    drop(found);
}

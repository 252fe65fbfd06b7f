// SPDX-License-Identifier: GPL-2.0-only

//! The targets `snapshot`, `snapshot-origin` and `snapshot-merge`.
//!
//! | here | what it is |
//! | --- | --- |
//! | [`SnapshotTarget`], [`OriginTarget`], [`MergeTarget`] | what device-mapper maps bios through |
//! | [`side`] | what `snapshot` and `snapshot-merge` have in common: one table's view of a snapshot |
//! | [`Snapshot`] | a snapshot, which may pass from one table to the next |
//! | [`Origin`] | an origin, with the shards that know all of its snapshots' exceptions |
//! | [`registry`] | which origins and snapshots there are, and who may have them |
//! | [`messages`] | what the targets are told and asked |
//! | [`statistics`] | what was counted, for who asks |
//! | [`store`] | the exception stores that a table can ask for |
//! | [`core`] | the concurrent part, without the kernel |
//!
//! # Locks
//!
//! From the outside in; each may be taken with those before it held.
//!
//! | lock | protects |
//! | --- | --- |
//! | [`registry`] (mutex) | which origins and snapshots there are |
//! | `Snapshot::dropping` (mutex) | that a snapshot is invalidated once |
//! | `Merger::wanted` (mutex) | that one at a time starts or stops a merge |
//! | `Merger::snapshot`, `SlowIo`'s `todo` (mutexes) | what is merged, what is to be done for it |
//! | a shard (spinlock) | exceptions and copies under way of its part of an origin |
//! | `Snapshot::merge` (spinlock) | which chunks are being merged, and the writes that wait for that |
//! | `Snapshot::room` (spinlock) | how full the COW device becomes |
//! | `Snapshot::order` (spinlock) | the order in which exceptions are recorded |
//! | the store's own | chunks handed out |
//! | `Copier::pool` (spinlock) | memory that copies pass through, while it is not used |
//! | `Snapshot::devices` (spinlock) | which table's devices a snapshot uses |
//! | `Snapshot::written` (spinlock, interrupts off) | writes of whole chunks that are over |
//!
//! None is held while I/O is submitted or waited for, but for the first three.

mod arguments;
mod copier;
mod copy_job;
// Public for the host, whose tests use more of it.
#[expect(unreachable_pub, dead_code, unused_imports)]
pub(crate) mod core;
mod leased;
mod merge_io;
mod merge_target;
mod merger;
mod messages;
mod order;
mod origin;
mod origin_target;
mod patience;
pub(crate) mod registry;
mod room;
mod side;
mod snapshot_target;
mod state;
mod statistics;
mod store;
mod tracking;
mod types;

// The file has the name of what is in it.
#[expect(clippy::module_inception)]
mod snapshot;

pub(crate) use merge_target::MergeTarget;
pub(crate) use origin_target::OriginTarget;
pub(crate) use snapshot_target::SnapshotTarget;

use leased::Leased;
use origin::Origin;
use snapshot::Snapshot;

/// What every message of the targets begins with.
pub(crate) const DM_MSG_PREFIX: &::core::ffi::CStr = c"device-mapper: snapshots";

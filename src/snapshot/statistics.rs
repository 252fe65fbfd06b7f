// SPDX-License-Identifier: GPL-2.0-only

//! What the targets answer to the message `stats`, and show below debugfs. All of it may sleep.
//!
//! A line for each figure: its name, a space, and a number. Names that begin with `origin_` are the
//! origin's, which all of its snapshots have in common. Documentation/admin-guide.md says what each is.

use super::{
    core::{
        OriginCounts,
        Shard,
        SnapshotCounts, //
    },
    types::Kernel,
    Leased,
    Origin,
    Snapshot, //
};
use crate::dm::{
    debugfs::Show,
    noio::cond_resched, //
};
use crate::store::write_figures;
use kernel::fmt;

/// Writes the figures of an origin.
pub(super) fn write_origin(origin: &Leased<Origin>, out: &mut dyn fmt::Write) -> fmt::Result {
    let mut counts = OriginCounts::default();
    each_shard(origin, |shard| counts.add(shard.origin_counts()));
    let figures = [
        ("origin_snapshots", origin.snapshots()),
        ("origin_writes_passed", counts.writes_passed),
        ("origin_writes_waited", counts.writes_waited),
        ("origin_copies", counts.copies),
        ("origin_copied_sectors", counts.copied_sectors),
        ("origin_copied_together", counts.together),
        ("origin_ahead", counts.ahead),
        ("origin_ahead_used", counts.ahead_used),
        ("origin_ahead_unused", counts.ahead_unused),
        ("origin_chunks_under_way", origin.copying()),
    ];
    write_figures(&figures, out)
}

/// Forgets what was counted for an origin.
pub(super) fn reset_origin(origin: &Leased<Origin>) {
    each_shard(origin, |shard| {
        *shard.origin_counts() = OriginCounts::default()
    });
}

/// Writes the figures of a snapshot, and of its origin.
pub(super) fn write_snapshot(snapshot: &Leased<Snapshot>, out: &mut dyn fmt::Write) -> fmt::Result {
    let mut counts = SnapshotCounts::default();
    let (mut exceptions, mut bytes) = (0, 0);
    each_shard(snapshot.origin(), |shard| {
        let usage = shard.usage(snapshot.slot());
        exceptions += usage.0;
        // CAST: Lossless.
        bytes += usage.1 as u64;
        if let Some(more) = shard.snapshot_counts(snapshot.slot()) {
            counts.add(more);
        }
    });
    let merged = snapshot.tell_merge(|merge| merge.counts());
    let usage = snapshot.usage();
    let sectors = usage
        .as_ref()
        .map_or((0, 0), |usage| (usage.allocated, usage.total));
    let state = snapshot.state();
    let figures = [
        ("chunk_sectors", state.chunk_sectors().into()),
        ("cow_sectors", sectors.1),
        ("cow_sectors_used", sectors.0),
        ("exceptions", exceptions),
        ("table_bytes", bytes),
        ("reads_cow", counts.reads_cow),
        ("reads_origin", counts.reads_origin),
        ("writes_cow", counts.writes_cow),
        ("writes_whole", counts.writes_whole),
        ("writes_waited", counts.writes_waited),
        ("writes_overlaid", counts.writes_overlaid),
        ("copies", counts.copies),
        ("copies_shared", counts.copies_shared),
        ("copied_chunks", counts.copied_chunks),
        ("overflow_keep", state.is_kept().into()),
        ("merging", state.is_merging().into()),
        ("merge_batches", merged.batches),
        ("merged", merged.exceptions),
    ];
    write_figures(&figures, out)?;
    write_figures(&snapshot.store().records(), out)?;
    for (bound, count) in counts.waits.buckets() {
        match bound {
            Some(bound) => writeln!(out, "waits_below_{bound}_us {count}")?,
            None => writeln!(out, "waits_longer {count}")?,
        }
    }
    write_origin(snapshot.origin(), out)
}

/// Forgets what was counted for a snapshot.
pub(super) fn reset_snapshot(snapshot: &Leased<Snapshot>) {
    each_shard(snapshot.origin(), |shard| {
        if let Some(counts) = shard.snapshot_counts(snapshot.slot()) {
            *counts = SnapshotCounts::default();
        }
    });
    snapshot.tell_merge(|merge| merge.forget_counts());
    snapshot.store().forget_counts();
}

impl Show for Leased<Origin> {
    fn show(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write_origin(self, out)
    }
}

impl Show for Leased<Snapshot> {
    fn show(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write_snapshot(self, out)
    }
}

/// Calls `f` with each shard, locked.
fn each_shard(origin: &Leased<Origin>, mut f: impl FnMut(&mut Shard<Kernel>)) {
    for cell in origin.cells() {
        f(&mut cell.shard.lock());
        cond_resched();
    }
}

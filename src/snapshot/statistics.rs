// SPDX-License-Identifier: GPL-2.0-only

//! What the targets answer to the message `stats`.
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
use crate::dm::noio::cond_resched;
use crate::store::CommitCounts;
use kernel::{
    fmt,
    prelude::*, //
};

/// What a message asks for.
enum Asked {
    /// `stats`: the figures.
    Figures,
    /// `stats reset`: that what was counted is forgotten.
    Reset,
}

impl Asked {
    /// `EINVAL` if the targets know no such message.
    fn of(args: &[&CStr]) -> Result<Self> {
        let is = |word: &CStr, name: &[u8]| word.to_bytes().eq_ignore_ascii_case(name);
        match args {
            [first] if is(first, b"stats") => Ok(Self::Figures),
            [first, second] if is(first, b"stats") && is(second, b"reset") => Ok(Self::Reset),
            _ => Err(EINVAL),
        }
    }
}

/// A message to an origin. May sleep.
pub(super) fn origin_message(
    origin: &Leased<Origin>,
    args: &[&CStr],
    out: &mut dyn fmt::Write,
) -> Result {
    match Asked::of(args)? {
        Asked::Figures => {
            // A text that does not fit is cut, and device-mapper asks again with more room.
            let _ = write_origin(origin, out);
        }
        Asked::Reset => each_shard(origin, |shard| *shard.origin_counts() = OriginCounts::NONE),
    }
    Ok(())
}

/// A message to a snapshot, or to what merges it. May sleep.
pub(super) fn snapshot_message(
    snapshot: &Leased<Snapshot>,
    args: &[&CStr],
    out: &mut dyn fmt::Write,
) -> Result {
    match Asked::of(args)? {
        Asked::Figures => {
            // As above.
            let _ = write_snapshot(snapshot, out);
        }
        Asked::Reset => {
            each_shard(snapshot.origin(), |shard| {
                if let Some(counts) = shard.snapshot_counts(snapshot.slot()) {
                    *counts = SnapshotCounts::default();
                }
            });
            snapshot.tell_merge(|merge| merge.forget_counts());
            if let Some(counts) = snapshot.store().commit_counts() {
                counts.reset();
            }
        }
    }
    Ok(())
}

/// Calls `f` with each shard, locked.
fn each_shard(origin: &Leased<Origin>, mut f: impl FnMut(&mut Shard<Kernel>)) {
    for cell in origin.cells() {
        f(&mut cell.shard.lock());
        cond_resched();
    }
}

fn write_origin(origin: &Leased<Origin>, out: &mut dyn fmt::Write) -> fmt::Result {
    let mut counts = OriginCounts::NONE;
    each_shard(origin, |shard| counts.add(shard.origin_counts()));
    let figures = [
        ("origin_snapshots", origin.snapshots()),
        ("origin_writes_passed", counts.writes_passed),
        ("origin_writes_waited", counts.writes_waited),
        ("origin_copies", counts.copies),
        ("origin_copied_sectors", counts.copied_sectors),
        ("origin_chunks_under_way", origin.copying()),
    ];
    write_all(&figures, out)
}

fn write_snapshot(snapshot: &Leased<Snapshot>, out: &mut dyn fmt::Write) -> fmt::Result {
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
    let commits = snapshot.store().commit_counts();
    let (commits, committed) = commits.map_or((0, 0), CommitCounts::get);
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
        ("copies", counts.copies),
        ("copies_shared", counts.copies_shared),
        ("copied_chunks", counts.copied_chunks),
        ("commits", commits),
        ("committed", committed),
        ("merging", state.is_merging().into()),
        ("merge_batches", merged.batches),
        ("merged", merged.exceptions),
    ];
    write_all(&figures, out)?;
    for (bound, count) in counts.waits.buckets() {
        match bound {
            Some(bound) => writeln!(out, "waits_below_{bound}_us {count}")?,
            None => writeln!(out, "waits_longer {count}")?,
        }
    }
    write_origin(snapshot.origin(), out)
}

fn write_all(figures: &[(&str, u64)], out: &mut dyn fmt::Write) -> fmt::Result {
    figures
        .iter()
        .try_for_each(|(name, value)| writeln!(out, "{name} {value}"))
}

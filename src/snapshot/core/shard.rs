// SPDX-License-Identifier: GPL-2.0-only

//! A part of an origin, with the exceptions of all its snapshots.

use super::{
    ahead::{
        AheadLimits,
        Streams, //
    },
    copy::{
        Copied,
        CopiedFor,
        Copy,
        CopyId,
        Finished,
        Item,
        Member,
        Released,
        Spare,
        Start,
        Why,
        MAX_MEMBERS, //
    },
    counts::{
        OriginCounts,
        SnapshotCounts, //
    },
    merge::{
        Merge,
        Run,
        Verdict, //
    },
    slot::{
        Chunk,
        Pending,
        Slot, //
    },
    table::{
        Found,
        Table, //
    },
    Bios,
    Epochs,
    Incoming,
    NoChunk,
    SlotId,
    Snapshot,
    Types, //
};
use crate::format::NoMemory;
use crate::memory::{
    Box,
    Vec,
    When, //
};

/// Sectors copied at once, at most, unless a chunk is larger: 1 MiB.
pub(super) const MAX_COPY_SECTORS: u64 = 2048;

/// What is to become of a write to the origin.
pub enum OriginWrite<T: Types, B> {
    /// It may go to the origin. It may have been cut.
    Submit(B),
    /// It waits for a copy. It may have been cut.
    Waits,
    /// There is no memory for the copies that it needs: so many are to be added to the spare ones.
    NoSpare(B, usize),
    /// There is no memory or no room at the moment: it is to be tried again in a few milliseconds.
    NotNow(B),
    /// This snapshot has no room for a chunk. The write is to be tried again when the snapshot is invalid,
    /// or is to fail if the snapshot is kept.
    Full(B, T::Snapshot),
}

/// What is to become of a write to a snapshot.
pub enum SnapshotWrite<B> {
    /// It goes to the COW device, to this sector. It may have been cut.
    Cow(B, u64),
    /// It replaces whole chunks: it goes to the COW device, to this sector, and when it is over,
    /// it goes to [`Shard::copied`] and is not to be completed before. It may have been cut.
    Full(B, u64, CopyId),
    /// It waits for a copy. It may have been cut.
    Waits,
    /// There is no memory for the copy that it needs: one is to be added to the spare ones. If the
    /// write is to wait for that, it is to be cut to one chunk.
    NoSpare(B),
    /// There is no memory or no room at the moment: it is to be tried again in a few milliseconds. It
    /// may have been cut.
    NotNow(B),
    /// The COW device is full.
    NoRoom(B),
    /// The snapshot is not there any more.
    Gone(B),
}

/// Where a snapshot's sectors are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// From this sector of the COW device on, so many sectors.
    Cow {
        /// The first sector.
        sector: u64,
        /// How many.
        sectors: u64,
    },
    /// From the origin, so many sectors. The read was counted in this epoch.
    Origin {
        /// How many.
        sectors: u64,
        /// For [`Epochs::end`].
        epoch: u64,
    },
    /// The snapshot is not there any more.
    Gone,
}

/// What is to become of a write to a snapshot that is being merged.
pub enum MergeWrite<B> {
    /// It goes to the COW device, to this sector, and was counted in this epoch. It may have been
    /// cut.
    Cow(B, u64, u64),
    /// It goes to the origin, as a write to that. It may have been cut.
    Origin(B),
    /// It waits for chunks that are being merged. It may have been cut.
    Waits,
    /// It fails: nobody knows where it would be found. It may have been cut.
    Lost(B),
}

/// Why a copy did not begin.
enum Trouble<S> {
    NoSpare,
    NotNow,
    Full(S),
    Gone,
}

impl<S> From<NoMemory> for Trouble<S> {
    fn from(_: NoMemory) -> Self {
        Self::NotNow
    }
}

/// What a write waits for.
struct Wait {
    copy: CopyId,
    /// The first sector after those that the copies which were found or begun are for.
    until: u64,
}

/// Some of an origin's spans.
pub struct Shard<T: Types> {
    slots: Vec<Slot<T>>,
    /// Copies under way, by their number.
    copies: Vec<Option<Box<Copy<T>>>>,
    /// Numbers that are free; there is room for all.
    free: Vec<CopyId>,
    /// Copies that wait for an epoch; there is room for all.
    waiting: Vec<(u64, CopyId)>,
    streams: Streams,
    counts: OriginCounts,
}

impl<T: Types> Shard<T> {
    /// Knows no snapshots. Copies are made ahead of writers as far as `ahead` says.
    pub fn new(ahead: AheadLimits) -> Self {
        Self {
            slots: Vec::new(),
            copies: Vec::new(),
            free: Vec::new(),
            waiting: Vec::new(),
            streams: Streams::new(ahead),
            counts: OriginCounts::default(),
        }
    }

    // --- Snapshots that come and go

    /// Makes room for one more snapshot.
    pub fn reserve_slot(&mut self, when: When) -> Result<(), NoMemory> {
        self.slots.reserve(1, when)
    }

    /// Adds a snapshot with chunks of `1 << shift` sectors and these exceptions, for which
    /// [`Shard::reserve_slot`] has made room.
    pub fn add_slot(&mut self, id: SlotId, snapshot: T::Snapshot, shift: u32, table: Table) {
        // There is room: see above.
        let _ = self.slots.push(Slot {
            id,
            snapshot,
            shift,
            table,
            pending: Vec::new(),
            counts: SnapshotCounts::default(),
        });
    }

    /// Whether the snapshot has no copies under way here.
    pub fn is_idle(&self, id: SlotId) -> bool {
        self.slot(id).is_none_or(|slot| slot.pending.is_empty())
    }

    /// Removes a snapshot that is idle. Its table is the caller's to drop, without the lock.
    pub fn remove_slot(&mut self, id: SlotId) -> Option<Table> {
        let index = self.slots.iter().position(|slot| slot.id == id)?;
        self.slots.remove(index).map(|slot| slot.table)
    }

    /// Exceptions that a snapshot has here, and the bytes of memory that they take.
    pub fn usage(&self, id: SlotId) -> (u64, usize) {
        self.slot(id)
            .map_or((0, 0), |slot| (slot.table.chunks(), slot.table.bytes()))
    }

    /// What was counted for the origin.
    pub fn origin_counts(&mut self) -> &mut OriginCounts {
        &mut self.counts
    }

    /// The snapshot that was added as the nth of those that there are.
    pub fn snapshot(&self, nth: usize) -> Option<&T::Snapshot> {
        self.slots.get(nth).map(|slot| &slot.snapshot)
    }

    /// What was counted for a snapshot.
    pub fn snapshot_counts(&mut self, id: SlotId) -> Option<&mut SnapshotCounts> {
        Some(&mut self.slot_mut(id)?.counts)
    }

    fn slot(&self, id: SlotId) -> Option<&Slot<T>> {
        self.slots.iter().find(|slot| slot.id == id)
    }

    fn slot_mut(&mut self, id: SlotId) -> Option<&mut Slot<T>> {
        self.slots.iter_mut().find(|slot| slot.id == id)
    }

    fn copy_mut(&mut self, id: CopyId) -> Option<&mut Copy<T>> {
        // CAST: An index.
        self.copies.get_mut(id.0 as usize)?.as_deref_mut()
    }

    // --- Writes to the origin

    /// A write to the origin comes, within one span.
    ///
    /// One that may not be cut waits until all of it may be overwritten. Copies that have to be
    /// started are in `spare` afterwards, whatever is returned, and whether to copy ahead of the writer.
    pub fn write_origin<B: Incoming<T::Bio>>(
        &mut self,
        mut bio: B,
        spare: &mut Spare<T>,
    ) -> OriginWrite<T, B> {
        let start = bio.sector();
        let end = start + bio.sectors();
        loop {
            let covered = self.covered_until(start, end);
            if covered == end || B::MAY_CUT && covered > start {
                if B::MAY_CUT {
                    spare.ahead |= self.streams.note(start, end, false, &mut self.counts);
                }
                if covered < end {
                    bio.cut(covered - start);
                }
                self.counts.writes_passed += 1;
                return OriginWrite::Submit(bio);
            }
            let needed = self.copies_needed(covered);
            if spare.len() < needed {
                return OriginWrite::NoSpare(bio, needed - spare.len());
            }
            match self.start_copies(covered, end, spare) {
                Ok(Some(wait)) => {
                    if B::MAY_CUT {
                        spare.ahead |= self.streams.note(start, end, true, &mut self.counts);
                        if wait.until < end {
                            bio.cut(wait.until - start);
                        }
                    }
                    if let Some(copy) = self.copy_mut(wait.copy) {
                        copy.origin_bios.push(bio.into_bio());
                    }
                    self.counts.writes_waited += 1;
                    return OriginWrite::Waits;
                }
                // A snapshot was dropped just now.
                Ok(None) | Err(Trouble::Gone) => {}
                Err(Trouble::NoSpare) => return OriginWrite::NoSpare(bio, 1),
                Err(Trouble::NotNow) => return OriginWrite::NotNow(bio),
                Err(Trouble::Full(snapshot)) => return OriginWrite::Full(bio, snapshot),
            }
        }
    }

    /// Whether sectors `start..end` of the origin, within one span, may be overwritten. If not, the
    /// copies that this needs are begun, as [`Shard::write_origin`] does.
    pub fn cover(&mut self, start: u64, end: u64, spare: &mut Spare<T>) -> Cover<T> {
        loop {
            let covered = self.covered_until(start, end);
            if covered == end {
                return Cover::Covered;
            }
            let needed = self.copies_needed(covered);
            if spare.len() < needed {
                return Cover::NoSpare(needed - spare.len());
            }
            match self.start_copies(covered, end, spare) {
                Ok(Some(wait)) => return Cover::Waits(wait.until.min(end)),
                // A snapshot was dropped just now: there is nothing to wait for.
                Ok(None) | Err(Trouble::Gone) => {}
                Err(Trouble::NoSpare) => return Cover::NoSpare(1),
                Err(Trouble::NotNow) => return Cover::NotNow,
                Err(Trouble::Full(snapshot)) => return Cover::Full(snapshot),
            }
        }
    }

    /// Begins a copy ahead of somebody who writes in sequence, for all snapshots that need it. To be called
    /// again until there is nothing to do. Copies that have to be started are in `spare` afterwards,
    /// whatever is returned.
    pub fn copy_ahead(&mut self, spare: &mut Spare<T>) -> Ahead {
        while let Some((stream, from, until)) = self.streams.due() {
            let mut concerned = self.slots.iter().filter(|slot| slot.is_concerned(from));
            let is_fit =
                |slot: &Slot<T>| slot.snapshot.has_plenty() && 1 << slot.shift <= MAX_COPY_SECTORS;
            if !concerned.all(is_fit) {
                self.streams.give_up(stream);
                continue;
            }
            let covered = self.covered_until(from, until);
            let needed = self.copies_needed(covered);
            if covered == until {
                self.streams.copied(stream, until, 0);
                continue;
            }
            if spare.len() < needed {
                return Ahead::NoSpare(needed - spare.len());
            }
            match self.start_copies(covered, until, spare) {
                Ok(Some(wait)) if spare.has_started() => {
                    for start in spare.started.iter_mut() {
                        start.why = Why::Ahead;
                        if let Some(copy) = self.copy_mut(start.copy) {
                            copy.ahead = true;
                        }
                    }
                    // Where chunks are larger than others, the rest of them will be found begun.
                    let sectors = wait.until - covered;
                    self.streams.copied(stream, wait.until, sectors);
                    self.counts.ahead += sectors;
                    return Ahead::Begun;
                }
                // It is being copied for somebody else.
                Ok(Some(wait)) => self.streams.copied(stream, wait.until, 0),
                // A snapshot was dropped just now.
                Ok(None) | Err(Trouble::Gone) => self.streams.copied(stream, until, 0),
                Err(Trouble::NoSpare) => return Ahead::NoSpare(1),
                Err(Trouble::NotNow | Trouble::Full(_)) => self.streams.give_up(stream),
            }
        }
        Ahead::Nothing
    }

    /// Whether the first of the sectors `start..end` of the origin, within one span, may be overwritten,
    /// and up to where the answer is the same. No copy is begun.
    pub fn is_covered(&self, start: u64, end: u64) -> (bool, u64) {
        let covered = self.covered_until(start, end);
        if covered > start {
            return (true, covered);
        }
        let concerned = self.slots.iter().filter(|slot| slot.is_concerned(start));
        let missing = concerned.map(|slot| slot.missing_until(start, end));
        (false, missing.max().unwrap_or(end))
    }

    /// The first sector from `start` on that some snapshot needs and does not have; `end` if there is
    /// none before.
    fn covered_until(&self, start: u64, end: u64) -> u64 {
        let mut until = end;
        for slot in self.slots.iter() {
            if slot.is_concerned(start) {
                let size = slot.snapshot.sectors();
                let covered = slot.covered_until(start, until.min(size));
                // Behind the end of the snapshot there is nothing to copy.
                if covered < size {
                    until = until.min(covered);
                }
            }
        }
        until
    }

    /// For how many copies there must be memory to begin those that a write to `sector` needs.
    fn copies_needed(&self, sector: u64) -> usize {
        let concerned = || self.slots.iter().filter(|slot| slot.is_concerned(sector));
        let sizes = concerned()
            .enumerate()
            .filter(|(n, slot)| concerned().take(*n).all(|other| other.shift != slot.shift))
            .count();
        // Where two could share a copy, they cannot if one gets fewer chunks in a row.
        sizes + usize::from(concerned().count() > sizes)
    }

    /// Begins a copy for each snapshot that needs `sector` and has none under way. `end` is where the
    /// write ends. Returns what to wait for, if anything.
    fn start_copies(
        &mut self,
        sector: u64,
        end: u64,
        spare: &mut Spare<T>,
    ) -> Result<Option<Wait>, Trouble<T::Snapshot>> {
        let mut wait = None;
        let mut until = u64::MAX;
        for index in 0..self.slots.len() {
            let Some(slot) = self.slots.get(index) else {
                break;
            };
            // Read once: a table with another size may be resumed meanwhile.
            let size = slot.snapshot.sectors();
            if !slot.snapshot.wants_copies() || sector >= size {
                continue;
            }
            let old = sector >> slot.shift;
            let shift = slot.shift;
            let chunks = match slot.find(old) {
                Chunk::Recorded { chunks, .. } => chunks,
                Chunk::Pending(pending) => {
                    wait.get_or_insert(pending.copy);
                    pending.chunks
                }
                Chunk::Origin { chunks } => {
                    let chunks = chunks.min(((end.min(size) - 1) >> shift) - old + 1);
                    let (copy, chunks) = self.begin(index, old, chunks, Some(sector), spare)?;
                    wait.get_or_insert(copy);
                    chunks
                }
            };
            until = until.min((old + chunks) << shift);
        }
        Ok(wait.map(|copy| Wait { copy, until }))
    }

    /// Begins a copy of at most `chunks` chunks from `old` on for the snapshot in slot `index`, which
    /// has none of them; returns which copy, and of how many chunks. If it is for a write to the
    /// origin, a copy that is to be started for that already is joined where it is the same, else
    /// (`walk` is `None`) nothing needs to be read.
    fn begin(
        &mut self,
        index: usize,
        old: u64,
        chunks: u64,
        walk: Option<u64>,
        spare: &mut Spare<T>,
    ) -> Result<(CopyId, u64), Trouble<T::Snapshot>> {
        // All that may fail comes before a chunk is handed out.
        let total = self.copies.len() + 1;
        self.waiting.reserve(total, When::Atomic)?;
        self.free.reserve(total, When::Atomic)?;
        if self.free.is_empty() {
            self.copies.reserve(1, When::Atomic)?;
        }
        let slot = self.slots.get_mut(index).ok_or(Trouble::Gone)?;
        slot.pending.reserve(1, When::Atomic)?;
        slot.table.reserve(old, When::Atomic)?;
        if spare.copies.is_empty() || walk.is_some() && spare.jobs.is_empty() {
            slot.table.release(old);
            return Err(Trouble::NoSpare);
        }
        let shift = slot.shift;
        let limit = (MAX_COPY_SECTORS >> shift).max(1);
        let allocation = match slot.snapshot.allocate(chunks.min(limit), spare.now) {
            Ok(allocation) => allocation,
            Err(e) => {
                slot.table.release(old);
                return Err(match e {
                    NoChunk::NotNow => Trouble::NotNow,
                    NoChunk::Full => Trouble::Full(slot.snapshot.clone()),
                });
            }
        };
        let (slot_id, snapshot) = (slot.id, slot.snapshot.clone());
        let member = Member {
            slot: slot_id,
            snapshot: snapshot.clone(),
            ticket: allocation.ticket,
            new: allocation.new,
            good: true,
            bios: T::Bios::default(),
        };
        let sector = old << shift;
        let sectors = allocation.chunks << shift;
        let to = (snapshot, allocation.new << shift);

        let shared = walk.and_then(|_| {
            spare.started.iter_mut().find(|start| {
                let last = start.to.last().is_some_and(Option::is_none);
                let same = start.sector == sector && start.sectors == sectors;
                // The chunk size is to be the same as well: who needs half of it shares no copy.
                let copy = self.copies.get(start.copy.0 as usize);
                let shift_is = copy.and_then(Option::as_ref).map(|copy| copy.shift);
                last && same && shift_is == Some(shift)
            })
        });
        let is_shared = shared.is_some();
        let copy_id = if let Some(start) = shared {
            let id = start.copy;
            let copy = self.copies.get_mut(id.0 as usize).and_then(Option::as_mut);
            let place = copy.and_then(|copy| copy.join(member)).unwrap_or(0);
            if let Some(free) = start.to.get_mut(place) {
                *free = Some(to);
            }
            id
        } else {
            // There is one: see above.
            let Some(mut copy) = spare.copies.pop() else {
                return Err(Trouble::NoSpare);
            };
            copy.old = old;
            copy.chunks = allocation.chunks;
            copy.shift = shift;
            copy.began = T::now();
            copy.join(member);
            let id = self.free.pop().unwrap_or(CopyId(self.copies.len() as u32));
            match self.copies.get_mut(id.0 as usize) {
                Some(free) => *free = Some(copy),
                None => {
                    let _ = self.copies.push(Some(copy));
                }
            }
            if let Some(job) = walk.and_then(|_| spare.jobs.pop()) {
                let mut start = Start {
                    job,
                    copy: id,
                    sector,
                    sectors,
                    chunks: allocation.chunks,
                    why: Why::Origin,
                    to: [const { None }; MAX_MEMBERS],
                };
                start.to[0] = Some(to);
                let _ = spare.started.push(start);
                self.counts.copies += 1;
                self.counts.copied_sectors += sectors;
            }
            id
        };
        if let Some(slot) = self.slots.get_mut(index) {
            if walk.is_some() {
                slot.counts.copies += 1;
                slot.counts.copies_shared += u64::from(is_shared);
                slot.counts.copied_chunks += allocation.chunks;
            } else {
                slot.counts.writes_whole += 1;
            }
            slot.add_pending(Pending {
                old,
                new: allocation.new,
                chunks: allocation.chunks,
                copy: copy_id,
                copied: false,
            });
        }
        Ok((copy_id, allocation.chunks))
    }

    // --- Reads and writes of a snapshot

    /// A snapshot is to be read from `sector` on, `sectors` of them, within one span. Which of them
    /// from where is returned; a read of the origin is counted in `reads`.
    pub fn read_snapshot(&mut self, id: SlotId, sector: u64, sectors: u64, reads: &Epochs) -> Read {
        let Some(slot) = self.slot_mut(id) else {
            return Read::Gone;
        };
        let end = sector + sectors;
        let mut at = sector;
        // The gaps that the table returns end with its regions: go on, a read is seldom in two.
        while at < end {
            let old = at >> slot.shift;
            let (new, chunks) = match slot.find(old) {
                Chunk::Recorded { new, chunks } => (new, chunks),
                Chunk::Pending(pending) if pending.copied => (pending.new, pending.chunks),
                Chunk::Pending(Pending { chunks, .. }) | Chunk::Origin { chunks } => {
                    at = (old + chunks) << slot.shift;
                    continue;
                }
            };
            if at > sector {
                break;
            }
            let offset = sector - (old << slot.shift);
            slot.counts.reads_cow += 1;
            return Read::Cow {
                sector: (new << slot.shift) + offset,
                sectors: sectors.min((chunks << slot.shift) - offset),
            };
        }
        slot.counts.reads_origin += 1;
        Read::Origin {
            sectors: at.min(end) - sector,
            epoch: reads.begin(),
        }
    }

    /// A write to chunks of a snapshot that are copied may be over before they are recorded. `None` if they
    /// are not being copied any more.
    fn promise(&self, id: SlotId, copy: CopyId) -> Option<()> {
        // CAST: An index.
        let copy = self.copies.get(copy.0 as usize)?.as_ref()?;
        let member = copy.member(id)?;
        member.snapshot.promise(member.ticket);
        Some(())
    }

    /// A write to a snapshot comes, within one span.
    ///
    /// A copy that has to be started is in `spare` afterwards.
    pub fn write_snapshot<B: Incoming<T::Bio>>(
        &mut self,
        id: SlotId,
        mut bio: B,
        spare: &mut Spare<T>,
    ) -> SnapshotWrite<B> {
        let Some(index) = self.slots.iter().position(|slot| slot.id == id) else {
            return SnapshotWrite::Gone(bio);
        };
        let Some(slot) = self.slots.get_mut(index) else {
            return SnapshotWrite::Gone(bio);
        };
        let shift = slot.shift;
        let (start, sectors) = (bio.sector(), bio.sectors());
        let old = start >> shift;
        let offset = start - (old << shift);
        let (copy, chunks, full) = match slot.find(old) {
            Chunk::Recorded { new, chunks } => {
                let here = (chunks << shift) - offset;
                if sectors > here && B::MAY_CUT {
                    bio.cut(here);
                }
                slot.counts.writes_cow += 1;
                return SnapshotWrite::Cow(bio, (new << shift) + offset);
            }
            // It is over before the record is written, as the write that the copy was for.
            Chunk::Pending(Pending {
                new,
                chunks,
                copy,
                copied: true,
                ..
            }) if !bio.must_last() => {
                slot.counts.writes_cow += 1;
                if self.promise(id, copy).is_none() {
                    return SnapshotWrite::Gone(bio);
                }
                let here = (chunks << shift) - offset;
                if sectors > here && B::MAY_CUT {
                    bio.cut(here);
                }
                return SnapshotWrite::Cow(bio, (new << shift) + offset);
            }
            Chunk::Pending(Pending { copy, chunks, .. }) => (copy, chunks, None),
            Chunk::Origin { chunks } => {
                if spare.is_empty() {
                    return SnapshotWrite::NoSpare(bio);
                }
                let whole = if offset == 0 { sectors >> shift } else { 0 };
                // What cannot be cut must be all that is replaced.
                let whole = if B::MAY_CUT || whole << shift == sectors {
                    whole
                } else {
                    0
                };
                let begun = if whole > 0 {
                    self.begin(index, old, chunks.min(whole), None, spare)
                } else {
                    let begun = self.begin(index, old, 1, Some(start), spare);
                    if let Some(start) = spare.started.last_mut() {
                        start.why = Why::Snapshot;
                    }
                    begun
                };
                match begun {
                    Ok((copy, chunks)) => (copy, chunks, (whole > 0).then_some(())),
                    Err(Trouble::NoSpare) => return SnapshotWrite::NoSpare(bio),
                    Err(Trouble::NotNow) => {
                        // It will wait, and may not be cut then: no copy is for less than a chunk.
                        let here = (1 << shift) - offset;
                        if B::MAY_CUT && sectors > here {
                            bio.cut(here);
                        }
                        return SnapshotWrite::NotNow(bio);
                    }
                    Err(Trouble::Full(_)) => return SnapshotWrite::NoRoom(bio),
                    Err(Trouble::Gone) => return SnapshotWrite::Gone(bio),
                }
            }
        };
        let here = (chunks << shift) - offset;
        if sectors > here && B::MAY_CUT {
            bio.cut(here);
        }
        let Some(copy_ref) = self.copy_mut(copy) else {
            return SnapshotWrite::Gone(bio);
        };
        copy_ref.must_last |= full.is_some() && bio.must_last();
        let Some(member) = copy_ref.member_mut(id) else {
            return SnapshotWrite::Gone(bio);
        };
        if full.is_some() {
            let sector = member.new << shift;
            return SnapshotWrite::Full(bio, sector, copy);
        }
        member.bios.push(bio.into_bio());
        if let Some(slot) = self.slot_mut(id) {
            slot.counts.writes_waited += 1;
        }
        SnapshotWrite::Waits
    }

    // --- Copies that go on

    /// What a copy is of was read into memory, up to sector `end` of the origin: takes the writes to the
    /// snapshot that wait for the copy and that can be put into the data, in this order, before it is
    /// written. They become a part of the copy, and go to [`Shard::copied`] with it.
    pub fn overlay(&mut self, id: CopyId, end: u64) -> T::Bios {
        let mut taken = T::Bios::default();
        let Some(copy) = self.copy_mut(id) else {
            return taken;
        };
        // What is in memory goes to all members.
        let [Some(member), None, ..] = &mut copy.members else {
            return taken;
        };
        let mut left = T::Bios::default();
        let mut count = 0;
        while let Some(bio) = member.bios.pop() {
            if T::has_data(&bio) && T::end(&bio) <= end {
                taken.push(bio);
                count += 1;
            } else {
                left.push(bio);
            }
        }
        member.bios = left;
        let slot = member.slot;
        if let Some(slot) = self.slot_mut(slot) {
            slot.counts.writes_overlaid += count;
        }
        taken
    }

    /// A copy is done, or failed for the snapshots whose bits are set in `failed`; `stable` if it is on
    /// stable storage. `carried` are the writes to a snapshot that were a part of it, or all of it: they are
    /// over, unless they failed or are to be on stable storage then.
    pub fn copied(
        &mut self,
        id: CopyId,
        failed: usize,
        stable: bool,
        mut carried: T::Bios,
        reads: &Epochs,
    ) -> Copied<T> {
        let mut done = Copied {
            snapshots: [const { None }; MAX_MEMBERS],
            carried: T::Bios::default(),
        };
        let Some(mut copy) = self.take(id) else {
            return done;
        };
        while let Some(bio) = carried.pop() {
            if failed == 0 && !copy.must_last && !T::must_last(&bio) {
                done.carried.push(bio);
            } else {
                copy.carried.push(bio);
            }
        }
        // Who needs it by now begins it again.
        copy.given_up = copy.ahead && failed == usize::MAX;
        let Copy {
            old,
            chunks,
            given_up,
            ..
        } = *copy;
        let members = copy.members.iter_mut().zip(&mut done.snapshots);
        for (n, (member, copied)) in members.enumerate() {
            let Some(member) = member else { break };
            member.good = failed & (1 << n) == 0;
            let mut bios = T::Bios::default();
            if member.good {
                bios = core::mem::take(&mut member.bios);
                if !done.carried.is_empty() || !bios.is_empty() {
                    member.snapshot.promise(member.ticket);
                }
            }
            if let Some(pending) = self
                .slot_mut(member.slot)
                .and_then(|slot| slot.pending_mut(old))
            {
                pending.copied = member.good;
            }
            let item = Item {
                copy: id,
                // CAST: Less than `MAX_MEMBERS`.
                member: n as u8,
                old,
                new: member.new,
                chunks,
                copied: member.good,
                stable,
                given_up,
            };
            *copied = Some(CopiedFor {
                snapshot: member.snapshot.clone(),
                ticket: member.ticket,
                item,
                bios,
            });
        }
        // From now on the snapshots use the COW device. What they read from the origin before must
        // be over when that is overwritten.
        let epoch = reads.close();
        if !reads.is_over(epoch) {
            copy.epoch = Some(epoch);
            // There is room: see `begin`.
            let _ = self.waiting.push((epoch, id));
        }
        self.put(id, copy);
        done
    }

    /// The store has recorded a snapshot's exceptions of a copy, or never will.
    ///
    /// Returns what need not wait any more, if that was the last thing to wait for.
    pub fn recorded(&mut self, id: CopyId, member: u8, success: bool) -> Option<Finished<T>> {
        let mut copy = self.take(id)?;
        if let Some(Some(member)) = copy.members.get_mut(usize::from(member)) {
            member.good &= success;
        }
        copy.unrecorded = copy.unrecorded.saturating_sub(1);
        if copy.unrecorded == 0 && copy.epoch.is_none() {
            return Some(self.finish(id, copy));
        }
        self.put(id, copy);
        None
    }

    /// Takes note of reads that ended; returns a copy that is finished by that. To be called again
    /// until there is none.
    pub fn reads_ended(&mut self, reads: &Epochs) -> Option<Finished<T>> {
        reads.advance();
        loop {
            let over = self
                .waiting
                .iter()
                .position(|(epoch, _)| reads.is_over(*epoch))?;
            let (_, id) = self.waiting.remove(over)?;
            let Some(mut copy) = self.take(id) else {
                continue;
            };
            copy.epoch = None;
            if copy.unrecorded == 0 {
                return Some(self.finish(id, copy));
            }
            self.put(id, copy);
        }
    }

    /// Whether [`Shard::reads_ended`] has something to return.
    pub fn is_due(&self, reads: &Epochs) -> bool {
        self.waiting.iter().any(|(epoch, _)| reads.is_over(*epoch))
    }

    fn take(&mut self, id: CopyId) -> Option<Box<Copy<T>>> {
        self.copies.get_mut(id.0 as usize)?.take()
    }

    fn put(&mut self, id: CopyId, copy: Box<Copy<T>>) {
        if let Some(place) = self.copies.get_mut(id.0 as usize) {
            *place = Some(copy);
        }
    }

    fn finish(&mut self, id: CopyId, mut copy: Box<Copy<T>>) -> Finished<T> {
        let mut finished = Finished {
            origin: core::mem::take(&mut copy.origin_bios),
            snapshots: [const { None }; MAX_MEMBERS],
            carried: core::mem::take(&mut copy.carried),
            recorded: copy.members.iter().flatten().all(|member| member.good),
        };
        let Copy {
            old,
            chunks,
            given_up,
            ..
        } = *copy;
        let took = T::since(&copy.began);
        for (member, out) in copy.members.iter_mut().zip(&mut finished.snapshots) {
            let Some(member) = member.take() else { break };
            if let Some(slot) = self.slot_mut(member.slot) {
                slot.counts.waits.note(took);
                slot.remove_pending(old);
                // Not before: what is in the table may be overwritten on the origin.
                let new = member.new;
                if !member.good || slot.table.insert(old, new, chunks).is_err() {
                    slot.table.release(old);
                }
            }
            *out = Some(Released {
                snapshot: member.snapshot,
                recorded: member.good || given_up,
                bios: member.bios,
            });
        }
        // There is room: see `begin`.
        let _ = self.free.push(id);
        finished
    }

    // --- Merging

    /// A run of exceptions will be removed from the table of a snapshot that is being merged: sees that
    /// it is there, and reserves room if the removal needs some. Returns whether it did; `None` if the
    /// run is not there.
    pub fn reserve_merged(&mut self, id: SlotId, run: &Run) -> Result<Option<bool>, NoMemory> {
        let Some(slot) = self.slot_mut(id) else {
            return Ok(None);
        };
        match slot.table.find(run.old) {
            Found::Run { new, chunks } if new == run.new && chunks >= run.chunks() => {}
            _ => return Ok(None),
        }
        let splits = slot.table.splits(run.old, run.chunks());
        if splits {
            slot.table.reserve(run.old, When::Atomic)?;
        }
        Ok(Some(splits))
    }

    /// Gives up what was reserved for a run.
    pub fn release_merged(&mut self, id: SlotId, run: &Run) {
        if let Some(slot) = self.slot_mut(id) {
            slot.table.release(run.old);
        }
    }

    /// A run is merged: removes it from the table. `reserved` is what [`Shard::reserve_merged`] said.
    ///
    /// Returns whether it was there.
    pub fn merged(&mut self, id: SlotId, run: &Run, reserved: bool) -> bool {
        let Some(slot) = self.slot_mut(id) else {
            return false;
        };
        // What was in the middle of a run then may be at an end now.
        if reserved && !slot.table.splits(run.old, run.chunks()) {
            slot.table.release(run.old);
        }
        slot.table.remove(run.old, run.chunks())
    }

    /// A write comes to a snapshot that is being merged, within one span. One that may not be cut is
    /// all on the COW device or all on the origin. A write to the COW device is counted in `writes`.
    /// The lock of `merge` and `writes` is held too.
    pub fn write_merging<B: Incoming<T::Bio>>(
        &self,
        id: SlotId,
        mut bio: B,
        merge: &mut Merge<T>,
        writes: &Epochs,
    ) -> MergeWrite<B> {
        let Some(slot) = self.slot(id) else {
            return MergeWrite::Origin(bio);
        };
        let shift = slot.shift;
        let (start, sectors) = (bio.sector(), bio.sectors());
        let old = start >> shift;
        let offset = start - (old << shift);
        let (new, chunks) = match slot.table.find(old) {
            Found::Gap { chunks } => (None, chunks),
            Found::Run { new, chunks } => (Some(new), chunks.min(merge.alike(old))),
        };
        let here = (chunks << shift) - offset;
        if B::MAY_CUT && sectors > here {
            bio.cut(here);
        }
        let Some(new) = new else {
            return MergeWrite::Origin(bio);
        };
        let sectors = if B::MAY_CUT {
            sectors.min(here)
        } else {
            sectors
        };
        match merge.write(old, (start + sectors - 1) >> shift) {
            Verdict::Cow => MergeWrite::Cow(bio, (new << shift) + offset, writes.begin()),
            Verdict::Waits(bios) => {
                bios.push(bio.into_bio());
                MergeWrite::Waits
            }
            Verdict::Lost => MergeWrite::Lost(bio),
        }
    }

    /// Where the chunk of `sector` is on the COW device, if a write would go there: the sector. Who writes
    /// there may say so before the chunk is recorded.
    pub fn find_written(&self, id: SlotId, sector: u64) -> Option<u64> {
        let slot = self.slot(id)?;
        let old = sector >> slot.shift;
        let new = match slot.find(old) {
            Chunk::Recorded { new, .. } => new,
            Chunk::Pending(pending) if pending.copied => {
                self.promise(id, pending.copy)?;
                pending.new
            }
            Chunk::Pending(_) | Chunk::Origin { .. } => return None,
        };
        Some((new << slot.shift) + (sector - (old << slot.shift)))
    }

    /// Where a snapshot's sectors from `sector` on are as far as is recorded, `sectors` of them, within
    /// one span. Nothing is counted: for a snapshot that is being merged.
    pub fn find_recorded(&self, id: SlotId, sector: u64, sectors: u64) -> Read {
        let Some(slot) = self.slot(id) else {
            return Read::Gone;
        };
        let old = sector >> slot.shift;
        let offset = sector - (old << slot.shift);
        let here = |chunks: u64| sectors.min((chunks << slot.shift) - offset);
        match slot.table.find(old) {
            Found::Run { new, chunks } => Read::Cow {
                sector: (new << slot.shift) + offset,
                sectors: here(chunks),
            },
            Found::Gap { chunks } => Read::Origin {
                sectors: here(chunks),
                epoch: 0,
            },
        }
    }
}

/// What was done to copy ahead.
pub enum Ahead {
    /// A copy was begun, for each snapshot that needed it.
    Begun,
    /// There is no memory for the copies that are due: so many are to be added to the spare ones.
    NoSpare(usize),
    /// There is nothing to do.
    Nothing,
}

/// Whether sectors of the origin may be overwritten.
pub enum Cover<T: Types> {
    /// They may.
    Covered,
    /// Not before copies that are under way are finished. They are for the first of the sectors, up to
    /// this one.
    Waits(u64),
    /// There is no memory for the copies that this needs: so many are to be added to the spare ones.
    NoSpare(usize),
    /// There is no memory or no room at the moment: ask again in a few milliseconds.
    NotNow,
    /// This snapshot has no room for a chunk: it is to be invalidated, unless it is kept.
    Full(T::Snapshot),
}

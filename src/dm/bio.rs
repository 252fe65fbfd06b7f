// SPDX-License-Identifier: GPL-2.0-only

//! Bios: the I/O that a target is given.
//!
//! A [`Bio`] is owned. Whoever has it submits it, ends it, or keeps it for later; dropped, it ends
//! with an error, so that none can be lost. While the target's `map` runs it is a [`MapBio`], and
//! when it was carried out an [`EndedBio`].
//!
//! C header: [`include/linux/bio.h`](srctree/include/linux/bio.h).

use super::{
    per_bio,
    shim,
    Device, //
};
use core::cell::Cell;
use core::marker::PhantomData;
use core::mem;
use core::ops::Deref;
use core::ptr::NonNull;
use kernel::{
    bindings,
    error::to_result,
    prelude::*,
    types::NotThreadSafe, //
};

const SECTOR_SHIFT: u32 = 9;
const OP_MASK: u32 = (1 << bindings::REQ_OP_BITS) - 1;
const PREFLUSH: u32 = 1 << bindings::req_flag_bits___REQ_PREFLUSH;
const FUA: u32 = 1 << bindings::req_flag_bits___REQ_FUA;
const NOWAIT: u32 = 1 << bindings::req_flag_bits___REQ_NOWAIT;

/// What a bio asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Read its sectors.
    Read,
    /// Write its sectors.
    Write,
    /// Forget its sectors.
    Discard,
    /// Make its sectors read as zeroes.
    WriteZeroes,
    /// Make durable what was completed before; it has no sectors.
    Flush,
    /// Anything else.
    Other,
}

/// A bio that device-mapper gave to a target.
///
/// Wraps `struct bio`. Its sectors are those of the mapped device until the target sets others.
///
/// # Invariants
///
/// The bio is a clone that device-mapper passed to the `map` of one of this module's targets. It is
/// ours, not submitted and not ended.
pub(crate) struct Bio(NonNull<bindings::bio>);

// SAFETY: A bio that is under way nowhere may be handled by any thread, and so may what is beside
// it, which is `Send`: see `per_bio`.
unsafe impl Send for Bio {}

impl Bio {
    /// # Safety
    ///
    /// The caller gives up a bio as the type's invariant describes it.
    pub(super) unsafe fn from_raw(bio: NonNull<bindings::bio>) -> Self {
        // INVARIANT: The caller vouches for it.
        Self(bio)
    }

    pub(super) fn into_raw(self) -> *mut bindings::bio {
        mem::ManuallyDrop::new(self).0.as_ptr()
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::bio {
        self.0.as_ptr()
    }

    fn opf(&self) -> u32 {
        // SAFETY: By the type's invariant the bio is valid and ours.
        unsafe { (*self.as_ptr()).bi_opf }
    }

    /// The first sector.
    pub(crate) fn sector(&self) -> u64 {
        // SAFETY: By the type's invariant the bio is valid and ours.
        unsafe { (*self.as_ptr()).bi_iter.bi_sector }
    }

    /// Moves the bio to another place of the device.
    pub(crate) fn set_sector(&self, sector: u64) {
        // SAFETY: By the type's invariant the bio is valid and ours; `self` is not `Sync`.
        unsafe { (*self.as_ptr()).bi_iter.bi_sector = sector }
    }

    /// How many sectors there are, which may be none.
    pub(crate) fn sectors(&self) -> u32 {
        // SAFETY: By the type's invariant the bio is valid and ours.
        unsafe { (*self.as_ptr()).bi_iter.bi_size >> SECTOR_SHIFT }
    }

    /// What it asks for.
    pub(crate) fn op(&self) -> Op {
        match self.opf() & OP_MASK {
            bindings::req_op_REQ_OP_READ => Op::Read,
            bindings::req_op_REQ_OP_WRITE if self.is_preflush() && self.sectors() == 0 => Op::Flush,
            bindings::req_op_REQ_OP_WRITE => Op::Write,
            bindings::req_op_REQ_OP_DISCARD => Op::Discard,
            bindings::req_op_REQ_OP_WRITE_ZEROES => Op::WriteZeroes,
            bindings::req_op_REQ_OP_FLUSH => Op::Flush,
            _ => Op::Other,
        }
    }

    /// Whether it changes the device, as all do that do not read: `bio_data_dir()`.
    pub(crate) fn is_write(&self) -> bool {
        // SAFETY: By the type's invariant the bio is valid and ours.
        unsafe { shim::dm_shim_bio_is_write(self.as_ptr()) }
    }

    /// Whether what was completed before must be durable before this is carried out.
    pub(crate) fn is_preflush(&self) -> bool {
        self.opf() & PREFLUSH != 0
    }

    /// Whether it must be durable itself when it is over.
    pub(crate) fn is_fua(&self) -> bool {
        self.opf() & FUA != 0
    }

    /// Whether it is to end with `EAGAIN` where it would have to wait, so that `map` must not sleep.
    pub(crate) fn is_nowait(&self) -> bool {
        self.opf() & NOWAIT != 0
    }

    /// Which of several it is that a target wants for each flush, or for each discard.
    pub(crate) fn target_nr(&self) -> u32 {
        // SAFETY: By the type's invariant it is a clone of device-mapper's.
        unsafe { shim::dm_shim_bio_target_nr(self.as_ptr()) }
    }

    /// Directs the bio to `device`, which must be one that its target has opened, or that a
    /// [`DeviceRef`](super::DeviceRef) keeps open until the bio ends: device-mapper waits for the
    /// bios of a target before it closes the target's own devices.
    pub(crate) fn set_device(&self, device: &Device) {
        // SAFETY: By the type's invariant the bio is valid and ours; the device is open.
        unsafe { shim::dm_shim_bio_set_dev(self.as_ptr(), device.as_ptr()) }
    }

    /// The target's data beside the bio. `D` must be its `Target::BioData`.
    pub(crate) fn data<D: Zeroable + Send + 'static>(&self) -> &D {
        // SAFETY: By the type's invariant `map` was called with the bio, which put the data there,
        // and it is ours.
        unsafe { &*per_bio::data(self.as_ptr()) }
    }

    /// The target's data beside the bio. `D` must be its `Target::BioData`.
    pub(crate) fn data_mut<D: Zeroable + Send + 'static>(&mut self) -> &mut D {
        // SAFETY: As for `data`; the bio is borrowed exclusively.
        unsafe { &mut *per_bio::data(self.as_ptr()) }
    }

    /// What became of a bio that was taken when it had ended.
    pub(crate) fn result(&self) -> Result {
        // SAFETY: By the type's invariant the bio is valid and ours.
        to_result(unsafe { shim::dm_shim_bio_error(self.as_ptr()) })
    }

    /// Copies the data of a write, which `to` is as long as.
    pub(crate) fn copy_data(&self, to: &mut [u8]) {
        assert!(self.op() == Op::Write && to.len() >> SECTOR_SHIFT == self.sectors() as usize);
        // SAFETY: By the type's invariant the bio is valid and ours; it is a write, so that it has data, which
        // there is room for.
        unsafe { shim::dm_shim_bio_copy_data(self.as_ptr(), to.as_mut_ptr()) }
    }

    /// Submits the bio to the device it is directed to, which must be another than the one it came
    /// from. Not for a bio that was taken when it had ended. May sleep.
    pub(crate) fn submit(self) {
        // SAFETY: By the type's invariant the bio is ours, and it is given up here.
        unsafe { shim::dm_shim_bio_submit(self.into_raw()) }
    }

    /// Ends the bio, with an error or, if it has none already, successfully. Any context.
    pub(crate) fn end(self, result: Result) {
        let error = result.map_or_else(Error::to_errno, |()| 0);
        // SAFETY: By the type's invariant the bio is ours, and it is given up here.
        unsafe { shim::dm_shim_bio_end(self.into_raw(), error) }
    }
}

impl Drop for Bio {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant the bio is ours, and it is given up here.
        unsafe { shim::dm_shim_bio_end(self.as_ptr(), EIO.to_errno()) }
    }
}

/// A bio while it is being mapped.
///
/// # Invariants
///
/// The bio is the one that the running `map` was called with.
pub(crate) struct MapBio<'a> {
    bio: Bio,
    _map: PhantomData<&'a ()>,
    _this_thread: NotThreadSafe,
}

impl MapBio<'_> {
    /// # Safety
    ///
    /// `bio` must be what device-mapper called the `map` with that runs for the lifetime.
    pub(super) unsafe fn new(bio: Bio) -> Self {
        Self {
            // INVARIANT: The caller vouches for it.
            bio,
            _map: PhantomData,
            _this_thread: NotThreadSafe,
        }
    }

    /// Cuts the bio after `sectors` sectors, at least 1; device-mapper maps the rest as another
    /// bio. Of no effect if it is not longer.
    ///
    /// Not for one of several discards: see [`TargetTable::set_num_discard_bios`].
    ///
    /// [`TargetTable::set_num_discard_bios`]: super::TargetTable::set_num_discard_bios
    pub(crate) fn accept_partial(&mut self, sectors: u32) {
        if (1..self.bio.sectors()).contains(&sectors) {
            // SAFETY: By the type's invariant the bio is being mapped, by this thread since
            // `MapBio` cannot be sent to another, and it is longer than what is left of it.
            unsafe { shim::dm_shim_bio_accept_partial(self.bio.as_ptr(), sectors) }
        }
    }

    /// The target's data beside the bio. `D` must be its `Target::BioData`.
    pub(crate) fn data_mut<D: Zeroable + Send + 'static>(&mut self) -> &mut D {
        self.bio.data_mut()
    }

    /// The bio, as long as it is there after `map` as well.
    pub(crate) fn into_bio(self) -> Bio {
        self.bio
    }
}

impl Deref for MapBio<'_> {
    type Target = Bio;

    fn deref(&self) -> &Bio {
        &self.bio
    }
}

impl From<MapBio<'_>> for Bio {
    fn from(bio: MapBio<'_>) -> Self {
        bio.bio
    }
}

/// What is to become of a bio.
pub(crate) enum Mapped {
    /// It is to be submitted to the device that it is directed to now.
    Remapped(Bio),
    /// The target has seen to it, or will.
    Submitted,
    /// It is to end with an error, of which `end_io` is not told.
    Kill(Bio),
}

/// A bio that was carried out, before its submitter is told.
pub(crate) struct EndedBio<'a> {
    bio: mem::ManuallyDrop<Bio>,
    taken: &'a Cell<bool>,
}

impl<'a> EndedBio<'a> {
    /// `taken` tells what to do with `bio` afterwards: the caller has it, or it was taken.
    ///
    /// # Safety
    ///
    /// `bio` must be one that a target mapped, which has ended, and whose `end_io` runs for the
    /// lifetime.
    pub(super) unsafe fn new(bio: NonNull<bindings::bio>, taken: &'a Cell<bool>) -> Self {
        Self {
            // SAFETY: It is ours until `taken` says what became of it, and is not dropped.
            bio: mem::ManuallyDrop::new(unsafe { Bio::from_raw(bio) }),
            taken,
        }
    }

    /// Whether it changed the device: see [`Bio::is_write`].
    pub(crate) fn is_write(&self) -> bool {
        self.bio.is_write()
    }

    /// The target's data beside the bio. `D` must be its `Target::BioData`.
    pub(crate) fn data<D: Zeroable + Send + 'static>(&self) -> &D {
        self.bio.data()
    }

    /// The target's data beside the bio. `D` must be its `Target::BioData`.
    pub(crate) fn data_mut<D: Zeroable + Send + 'static>(&mut self) -> &mut D {
        self.bio.data_mut()
    }

    /// Keeps the bio, to end it later; then `end_io` is called for it again.
    pub(crate) fn take(self) -> Bio {
        self.taken.set(true);
        mem::ManuallyDrop::into_inner(self.bio)
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! What a target can do.

use super::TargetTable;
use crate::dm::{
    Device,
    EndedBio,
    MapBio,
    Mapped,
    QueueLimits, //
};
use core::fmt;
use kernel::{
    error::VTABLE_DEFAULT_ERROR,
    prelude::*, //
};

/// What userspace wants to know of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatusKind {
    /// How it is: `dmsetup status`.
    Info,
    /// What a table line has after the target's name: `dmsetup table`.
    Table,
    /// What is measured for attestation, beginning with a comma: it follows name and version.
    Ima,
}

/// A target of a mapped device.
///
/// See [the module](super) for the order of calls. Calls may come from several threads at once.
#[vtable]
pub(crate) trait Target: Sized + Send + Sync + 'static {
    /// What it is called in a table.
    const NAME: &'static CStr;
    /// Its version: major, minor, patch level.
    const VERSION: [u32; 3];

    /// Whether there is something to measure for attestation: [`StatusKind::Ima`].
    const IS_MEASURED: bool = true;

    /// Whether [`Self::map`] does not sleep for a bio that says so: [`Bio::is_nowait`]. Else no such bio
    /// comes.
    ///
    /// [`Bio::is_nowait`]: crate::dm::Bio::is_nowait
    const TAKES_NOWAIT: bool = false;

    /// What it keeps beside each bio. All bytes are zero when [`Self::map`] is called; it must
    /// have nothing to drop, and be aligned to no more than 8 bytes.
    type BioData: Zeroable + Send + 'static;

    /// Makes a target from its table line: `args` is what follows the name. The reason for an error
    /// is for [`TargetTable::set_error`]. May sleep.
    fn new(table: &mut TargetTable<'_>, args: &[&CStr]) -> Result<Pin<KBox<Self>>>;

    /// Decides what becomes of a bio, whose sectors are those of the mapped device: the target
    /// begins at [`TargetTable::begin`].
    ///
    /// May sleep, but must not wait for bios that the same thread submitted, which includes all
    /// that this call submits: they are under way only when it has returned. Nor may it wait for
    /// memory that only I/O would free: it allocates in the scope of a
    /// [`NoIo`](crate::dm::noio::NoIo).
    fn map(&self, bio: MapBio<'_>) -> Mapped;

    /// Sees a bio that was carried out, or that [`Bio::end`](crate::dm::Bio::end) ended. Any
    /// context.
    fn end_io(&self, _bio: EndedBio<'_>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The device is about to be suspended; bios still come. May sleep.
    fn presuspend(&self) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The device is suspended: all bios have ended. May sleep.
    fn postsuspend(&self) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Whether the device can be resumed with this table. May sleep.
    fn preresume(&self) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The device is about to be resumed with this table. May sleep.
    fn resume(&self, _table: &mut TargetTable<'_>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Writes what userspace wants to know. Must not wait for I/O: the device may be suspended.
    fn status(&self, _kind: StatusKind, _out: &mut dyn fmt::Write) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Does what a message asks for, of which there is at least one word, and writes the answer,
    /// if there is any. May sleep.
    fn message(&self, _args: &[&CStr], _out: &mut dyn fmt::Write) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Calls `visit` for each part of a device that the target uses, with its first sector and its
    /// length, until that returns something else than 0, and returns what it returned last.
    fn iterate_devices(&self, _visit: &mut dyn FnMut(&Device, u64, u64) -> c_int) -> c_int {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Changes the limits of the device, which were made from those of the devices it uses.
    fn io_hints(&self, _limits: &mut QueueLimits<'_>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

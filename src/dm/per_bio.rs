// SPDX-License-Identifier: GPL-2.0-only

//! What a target keeps beside each bio: `dm_per_bio_data()`.
//!
//! The data and, after it, which type it has, where it is found whatever the type.

use super::shim;
use core::any::TypeId;
use core::mem::{
    align_of,
    needs_drop,
    size_of, //
};
use kernel::{
    bindings,
    prelude::*, //
};

/// The data of type `D` and its tag.
#[repr(C)]
struct PerBio<D> {
    data: D,
    tag: TypeId,
}

/// The bytes that device-mapper is to provide for data of type `D`.
pub(super) const fn bytes<D>() -> usize {
    const {
        // What device-mapper aligns to; then the tag is at the end.
        assert!(align_of::<PerBio<D>>() <= align_of::<u64>());
        assert!(!needs_drop::<D>());
        assert!(size_of::<PerBio<D>>() == size_of::<D>().next_multiple_of(8) + size_of::<TypeId>());
    }
    size_of::<PerBio<D>>()
}

/// Puts zeroed data beside a bio.
///
/// # Safety
///
/// `bio` must be a clone of device-mapper's, ours, for a target that has [`bytes`] of `D` beside its
/// bios.
pub(super) unsafe fn init<D: Zeroable + Send + 'static>(bio: *mut bindings::bio) {
    // SAFETY: The caller vouches for the bio and the room beside it.
    unsafe {
        let this: *mut PerBio<D> = shim::dm_shim_bio_data(bio, bytes::<D>()).cast();
        (&raw mut (*this).data).write_bytes(0, 1);
        (&raw mut (*this).tag).write(TypeId::of::<D>());
    }
}

/// Where the data is that [`init`] put there with the same `D`; panics if it was another.
///
/// # Safety
///
/// `bio` must be a clone of device-mapper's that [`init`] was called for, and ours.
pub(super) unsafe fn data<D: Zeroable + Send + 'static>(bio: *mut bindings::bio) -> *mut D {
    // SAFETY: The caller vouches that there is a tag beside the bio.
    let tag = unsafe { *shim::dm_shim_bio_data(bio, size_of::<TypeId>()).cast::<TypeId>() };
    assert!(tag == TypeId::of::<D>());
    // SAFETY: The tag says that the data before it is a `D`.
    unsafe { shim::dm_shim_bio_data(bio, bytes::<D>()).cast() }
}

// SPDX-License-Identifier: GPL-2.0-only

//! What dm-snapshot's C core shares with an exception store.
//!
//! Declared and checked as in [`crate::dm::ffi`]: by `src/dm/abi.c` where the kernel's source is at
//! hand, since header packages lack the private header.
//!
//! # Control flow integrity
//!
//! A kernel with `CONFIG_CFI` lets C call a function only if the id of its type is that of C's
//! pointer type. The ids are made from names, so that what is passed must be declared as in C: a
//! function pointer as such, without an `Option` around it, and an enumeration by a `repr(C)` type
//! of its name. `scripts/check-kcfi` compares the ids.
//!
//! C header: [`drivers/md/dm-exception-store.h`](srctree/drivers/md/dm-exception-store.h).

use crate::dm::ffi::{
    dm_dev,
    Sector, //
};
use kernel::bindings;
use kernel::ffi::{
    c_char,
    c_int,
    c_long,
    c_uint,
    c_void, //
};

/// `chunk_t`.
pub(super) type ChunkNr = u64;

/// `struct dm_snapshot` of `drivers/md/dm-snap.c`.
#[repr(C)]
pub(super) struct dm_snapshot {
    _opaque: [u8; 0],
}

/// `struct dm_exception` of `drivers/md/dm-exception-store.h`.
#[repr(C)]
pub(super) struct dm_exception {
    pub(super) hash_list: bindings::hlist_node,
    pub(super) old_chunk: ChunkNr,
    pub(super) new_chunk: ChunkNr,
}

/// `struct dm_exception_store` of `drivers/md/dm-exception-store.h`.
#[repr(C)]
pub(super) struct dm_exception_store {
    pub(super) type_: *mut dm_exception_store_type,
    pub(super) snap: *mut dm_snapshot,
    pub(super) chunk_size: c_uint,
    pub(super) chunk_mask: c_uint,
    pub(super) chunk_shift: c_uint,
    pub(super) context: *mut c_void,
    pub(super) userspace_supports_overflow: bool,
}

/// Reports an exception found by `read_metadata` to dm-snapshot.
pub(super) type AddExceptionFn =
    unsafe extern "C" fn(context: *mut c_void, old: ChunkNr, new: ChunkNr) -> c_int;

/// Tells dm-snapshot what became of a commit.
pub(super) type CommitCallbackFn = unsafe extern "C" fn(context: *mut c_void, success: c_int);

/// `struct dm_exception_store_type` of `drivers/md/dm-exception-store.h`.
#[repr(C)]
pub(super) struct dm_exception_store_type {
    pub(super) name: *const c_char,
    pub(super) module: *mut bindings::module,
    pub(super) ctr:
        Option<unsafe extern "C" fn(store: *mut dm_exception_store, options: *mut c_char) -> c_int>,
    pub(super) dtr: Option<unsafe extern "C" fn(store: *mut dm_exception_store)>,
    pub(super) read_metadata: Option<
        unsafe extern "C" fn(
            store: *mut dm_exception_store,
            callback: AddExceptionFn,
            callback_context: *mut c_void,
        ) -> c_int,
    >,
    pub(super) prepare_exception:
        Option<unsafe extern "C" fn(store: *mut dm_exception_store, e: *mut dm_exception) -> c_int>,
    pub(super) commit_exception: Option<
        unsafe extern "C" fn(
            store: *mut dm_exception_store,
            e: *mut dm_exception,
            valid: c_int,
            callback: CommitCallbackFn,
            callback_context: *mut c_void,
        ),
    >,
    pub(super) prepare_merge: Option<
        unsafe extern "C" fn(
            store: *mut dm_exception_store,
            last_old_chunk: *mut ChunkNr,
            last_new_chunk: *mut ChunkNr,
        ) -> c_int,
    >,
    pub(super) commit_merge:
        Option<unsafe extern "C" fn(store: *mut dm_exception_store, nr_merged: c_int) -> c_int>,
    pub(super) drop_snapshot: Option<unsafe extern "C" fn(store: *mut dm_exception_store)>,
    pub(super) status: Option<
        unsafe extern "C" fn(
            store: *mut dm_exception_store,
            status: status_type_t,
            result: *mut c_char,
            maxlen: c_uint,
        ) -> c_uint,
    >,
    pub(super) usage: Option<
        unsafe extern "C" fn(
            store: *mut dm_exception_store,
            total_sectors: *mut Sector,
            sectors_allocated: *mut Sector,
            metadata_sectors: *mut Sector,
        ),
    >,
    pub(super) list: bindings::list_head,
}

/// `status_type_t` of `linux/device-mapper.h`, an enumeration.
///
/// A structure, since a newer kernel may pass a value that an `enum` would not have. It is passed
/// as the integer is.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct status_type_t(c_uint);

/// `STATUSTYPE_TABLE` of `status_type_t`.
pub(super) const STATUSTYPE_TABLE: status_type_t = status_type_t(1);
/// `STATUSTYPE_IMA` of `status_type_t`.
pub(super) const STATUSTYPE_IMA: status_type_t = status_type_t(2);

// Pointers to structures of the kernel, of which some are empty in this configuration.
#[expect(improper_ctypes)]
extern "C" {
    pub(super) fn dm_snap_origin(snap: *mut dm_snapshot) -> *mut dm_dev;
    pub(super) fn dm_snap_cow(snap: *mut dm_snapshot) -> *mut dm_dev;
    pub(super) fn dm_exception_store_type_register(type_: *mut dm_exception_store_type) -> c_int;
    pub(super) fn dm_exception_store_type_unregister(type_: *mut dm_exception_store_type) -> c_int;

    pub(super) fn copy_from_kernel_nofault(
        dst: *mut c_void,
        src: *const c_void,
        size: usize,
    ) -> c_long;
}

/// Holds the declarations above to the figures that `abi.c` checked on the C side.
mod abi {
    use super::*;
    use core::mem::{
        offset_of,
        size_of, //
    };

    const _: () = {
        assert!(size_of::<status_type_t>() == size_of::<c_uint>());

        assert!(size_of::<dm_exception>() == 32);
        assert!(offset_of!(dm_exception, old_chunk) == 16);
        assert!(offset_of!(dm_exception, new_chunk) == 24);

        assert!(size_of::<dm_exception_store>() == 48);
        assert!(offset_of!(dm_exception_store, type_) == 0);
        assert!(offset_of!(dm_exception_store, snap) == 8);
        assert!(offset_of!(dm_exception_store, chunk_size) == 16);
        assert!(offset_of!(dm_exception_store, chunk_mask) == 20);
        assert!(offset_of!(dm_exception_store, chunk_shift) == 24);
        assert!(offset_of!(dm_exception_store, context) == 32);
        assert!(offset_of!(dm_exception_store, userspace_supports_overflow) == 40);

        assert!(size_of::<dm_exception_store_type>() == 112);
        assert!(offset_of!(dm_exception_store_type, name) == 0);
        assert!(offset_of!(dm_exception_store_type, module) == 8);
        assert!(offset_of!(dm_exception_store_type, ctr) == 16);
        assert!(offset_of!(dm_exception_store_type, dtr) == 24);
        assert!(offset_of!(dm_exception_store_type, read_metadata) == 32);
        assert!(offset_of!(dm_exception_store_type, prepare_exception) == 40);
        assert!(offset_of!(dm_exception_store_type, commit_exception) == 48);
        assert!(offset_of!(dm_exception_store_type, prepare_merge) == 56);
        assert!(offset_of!(dm_exception_store_type, commit_merge) == 64);
        assert!(offset_of!(dm_exception_store_type, drop_snapshot) == 72);
        assert!(offset_of!(dm_exception_store_type, status) == 80);
        assert!(offset_of!(dm_exception_store_type, usage) == 88);
        assert!(offset_of!(dm_exception_store_type, list) == 96);
    };
}

// SPDX-License-Identifier: GPL-2.0-only

//! What the `bindings` crate does not have of device-mapper.
//!
//! Declared by hand, since it is a handful. Two compilers keep it honest: `abi.c` beside this file
//! asserts every size, offset and prototype against the kernel's headers, and the assertions at
//! the end of this file hold the Rust declarations to the same figures.

use kernel::bindings;
use kernel::ffi::{
    c_char,
    c_int,
    c_uint,
    c_ulong,
    c_ushort,
    c_void, //
};

/// `sector_t`.
pub(super) type Sector = u64;

/// `struct dm_dev` of `linux/device-mapper.h`.
#[repr(C)]
pub(super) struct dm_dev {
    pub(super) bdev: *mut bindings::block_device,
    pub(super) bdev_file: *mut bindings::file,
    pub(super) dax_dev: *mut c_void,
    pub(super) mode: c_uint,
    /// "major:minor", ended by a NUL.
    pub(super) name: [c_char; 16],
}

/// `struct dm_io_region` of `linux/dm-io.h`.
#[repr(C)]
pub(super) struct dm_io_region {
    pub(super) bdev: *mut bindings::block_device,
    pub(super) sector: Sector,
    pub(super) count: Sector,
}

/// `struct page_list` of `linux/dm-io.h`.
#[repr(C)]
pub(super) struct page_list {
    pub(super) next: *mut page_list,
    pub(super) page: *mut bindings::page,
}

/// `DM_IO_PAGE_LIST` of `enum dm_io_mem_type`.
pub(super) const DM_IO_PAGE_LIST: c_uint = 0;
/// `DM_IO_VMA` of `enum dm_io_mem_type`.
pub(super) const DM_IO_VMA: c_uint = 2;

/// `struct dm_io_memory` of `linux/dm-io.h`; `ptr` is a union of pointers there.
#[repr(C)]
pub(super) struct dm_io_memory {
    pub(super) type_: c_uint,
    pub(super) offset: c_uint,
    pub(super) ptr: *mut c_void,
}

/// `io_notify_fn`.
pub(super) type IoNotifyFn =
    unsafe extern "C" fn(error: c_ulong, unsup: c_ulong, context: *mut c_void);

/// `struct dm_io_notify` of `linux/dm-io.h`.
#[repr(C)]
pub(super) struct dm_io_notify {
    pub(super) fn_: Option<IoNotifyFn>,
    pub(super) context: *mut c_void,
}

/// `struct dm_io_client` of `drivers/md/dm-io.c`.
#[repr(C)]
pub(super) struct dm_io_client {
    _opaque: [u8; 0],
}

/// `struct dm_io_request` of `linux/dm-io.h`.
#[repr(C)]
pub(super) struct dm_io_request {
    pub(super) bi_opf: bindings::blk_opf_t,
    pub(super) mem: dm_io_memory,
    pub(super) notify: dm_io_notify,
    pub(super) client: *mut dm_io_client,
}

// Pointers to structures of the kernel, of which some are empty in this configuration.
#[expect(improper_ctypes)]
extern "C" {
    pub(super) fn dm_io_client_create() -> *mut dm_io_client;
    pub(super) fn dm_io_client_destroy(client: *mut dm_io_client);
    pub(super) fn dm_io(
        io_req: *mut dm_io_request,
        num_regions: c_uint,
        region: *mut dm_io_region,
        sync_error_bits: *mut c_ulong,
        sync_unsup_bits: *mut c_ulong,
        ioprio: c_ushort,
    ) -> c_int;
}

/// Holds the declarations above to the figures that `abi.c` checked on the C side.
///
/// They are those of 64-bit kernels. 32-bit Arm has Rust support as well: the build stops here.
mod abi {
    use super::*;
    use core::mem::{
        offset_of,
        size_of, //
    };

    const _: () = {
        assert!(size_of::<dm_dev>() == 48);
        assert!(offset_of!(dm_dev, bdev) == 0);
        assert!(offset_of!(dm_dev, bdev_file) == 8);
        assert!(offset_of!(dm_dev, name) == 28);

        assert!(size_of::<dm_io_region>() == 24);
        assert!(offset_of!(dm_io_region, bdev) == 0);
        assert!(offset_of!(dm_io_region, sector) == 8);
        assert!(offset_of!(dm_io_region, count) == 16);

        assert!(size_of::<page_list>() == 16);
        assert!(offset_of!(page_list, next) == 0);
        assert!(offset_of!(page_list, page) == 8);

        assert!(size_of::<dm_io_request>() == 48);
        assert!(offset_of!(dm_io_request, bi_opf) == 0);
        assert!(offset_of!(dm_io_request, mem) == 8);
        assert!(offset_of!(dm_io_memory, type_) == 0);
        assert!(offset_of!(dm_io_memory, offset) == 4);
        assert!(offset_of!(dm_io_memory, ptr) == 8);
        assert!(offset_of!(dm_io_request, notify) == 24);
        assert!(offset_of!(dm_io_notify, fn_) == 0);
        assert!(offset_of!(dm_io_notify, context) == 8);
        assert!(offset_of!(dm_io_request, client) == 40);
    };
}

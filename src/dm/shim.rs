// SPDX-License-Identifier: GPL-2.0-only

//! The Rust side of `shim.c`, which says what each of these does.
//!
//! Structures have C's names, so that the types of functions that are called through a pointer
//! are the same to both compilers (kCFI).

use super::ffi::{
    dm_dev,
    dm_io_region,
    Sector, //
};
use kernel::bindings;
use kernel::ffi::{
    c_char,
    c_int,
    c_uint,
    c_ulong,
    c_void, //
};

/// `struct dm_target` of `linux/device-mapper.h`.
#[repr(C)]
pub(super) struct dm_target {
    _opaque: [u8; 0],
}

/// `struct dm_kcopyd_client` of `drivers/md/dm-kcopyd.c`.
#[repr(C)]
pub(super) struct dm_kcopyd_client {
    _opaque: [u8; 0],
}

/// `struct dm_kcopyd_throttle` of `linux/dm-kcopyd.h`.
#[repr(C)]
pub(super) struct dm_kcopyd_throttle {
    _opaque: [u8; 0],
}

/// `struct dm_shim_type` of `shim.c`: a registered `struct target_type`.
#[repr(C)]
pub(super) struct dm_shim_type {
    _opaque: [u8; 0],
}

/// `struct dm_shim_ops` of `shim.c`.
#[repr(C)]
pub(super) struct dm_shim_ops {
    pub(super) ctr: Option<
        unsafe extern "C" fn(ti: *mut dm_target, argc: c_uint, argv: *mut *mut c_char) -> c_int,
    >,
    pub(super) dtr: Option<unsafe extern "C" fn(ti: *mut dm_target, target: *mut c_void)>,
    pub(super) map:
        Option<unsafe extern "C" fn(target: *mut c_void, bio: *mut bindings::bio) -> c_int>,
    pub(super) end_io:
        Option<unsafe extern "C" fn(target: *mut c_void, bio: *mut bindings::bio) -> c_int>,
    pub(super) presuspend: Option<unsafe extern "C" fn(target: *mut c_void)>,
    pub(super) postsuspend: Option<unsafe extern "C" fn(target: *mut c_void)>,
    pub(super) preresume: Option<unsafe extern "C" fn(target: *mut c_void) -> c_int>,
    pub(super) resume: Option<unsafe extern "C" fn(ti: *mut dm_target, target: *mut c_void)>,
    pub(super) status: Option<
        unsafe extern "C" fn(
            target: *mut c_void,
            kind: c_uint,
            result: *mut c_char,
            maxlen: c_uint,
        ),
    >,
    pub(super) message: Option<
        unsafe extern "C" fn(
            target: *mut c_void,
            argc: c_uint,
            argv: *mut *mut c_char,
            result: *mut c_char,
            maxlen: c_uint,
        ) -> c_int,
    >,
    pub(super) iterate_devices:
        Option<unsafe extern "C" fn(target: *mut c_void, visit: *mut c_void) -> c_int>,
    pub(super) io_hints:
        Option<unsafe extern "C" fn(target: *mut c_void, limits: *mut bindings::queue_limits)>,
    pub(super) takes_nowait: bool,
}

/// `dm_kcopyd_notify_fn`.
pub(super) type KcopydNotifyFn =
    unsafe extern "C" fn(read_err: c_int, write_err: c_ulong, context: *mut c_void);

/// `DM_MAPIO_SUBMITTED`.
pub(super) const DM_MAPIO_SUBMITTED: c_int = 0;
/// `DM_MAPIO_REMAPPED`.
pub(super) const DM_MAPIO_REMAPPED: c_int = 1;
/// `DM_MAPIO_KILL`.
pub(super) const DM_MAPIO_KILL: c_int = 4;
/// `DM_ENDIO_DONE`.
pub(super) const DM_ENDIO_DONE: c_int = 0;
/// `DM_ENDIO_INCOMPLETE`.
pub(super) const DM_ENDIO_INCOMPLETE: c_int = 1;
/// `STATUSTYPE_TABLE` of `status_type_t`.
pub(super) const STATUSTYPE_TABLE: c_uint = 1;
/// `STATUSTYPE_IMA` of `status_type_t`.
pub(super) const STATUSTYPE_IMA: c_uint = 2;
/// `DM_KCOPYD_MAX_REGIONS`.
pub(super) const DM_KCOPYD_MAX_REGIONS: usize = 8;

// Pointers to structures of the kernel, of which some are empty in this configuration.
#[expect(improper_ctypes)]
extern "C" {
    pub(super) fn dm_shim_copy_ahead() -> bool;
    pub(super) fn dm_shim_cow_threshold() -> c_uint;
    pub(super) fn dm_shim_full_seconds() -> c_uint;
    pub(super) fn dm_shim_overflow_keep() -> bool;
    pub(super) fn dm_shim_copy_is_throttled() -> bool;
    pub(super) fn dm_shim_copy_throttle() -> *mut dm_kcopyd_throttle;

    pub(super) fn dm_shim_register(
        name: *const c_char,
        version: *const c_uint,
        module: *mut bindings::module,
        ops: *const dm_shim_ops,
        error: *mut c_int,
    ) -> *mut dm_shim_type;
    pub(super) fn dm_shim_unregister(type_: *mut dm_shim_type);

    pub(super) fn dm_shim_visit(
        context: *mut c_void,
        dev: *mut dm_dev,
        start: Sector,
        len: Sector,
    ) -> c_int;

    pub(super) fn dm_shim_set_private(
        ti: *mut dm_target,
        target: *mut c_void,
        per_bio_bytes: c_uint,
    );
    pub(super) fn dm_shim_set_error(ti: *mut dm_target, error: *const c_char);
    pub(super) fn dm_shim_begin(ti: *const dm_target) -> Sector;
    pub(super) fn dm_shim_len(ti: *const dm_target) -> Sector;
    pub(super) fn dm_shim_table_size(ti: *const dm_target) -> Sector;
    pub(super) fn dm_shim_table_writable(ti: *const dm_target) -> bool;
    pub(super) fn dm_shim_table_event(ti: *mut dm_target);
    pub(super) fn dm_shim_suspended(ti: *mut dm_target) -> bool;
    pub(super) fn dm_shim_set_flush_supported(ti: *mut dm_target);
    pub(super) fn dm_shim_set_num_flush_bios(ti: *mut dm_target, count: c_uint);
    pub(super) fn dm_shim_set_num_discard_bios(ti: *mut dm_target, count: c_uint);
    pub(super) fn dm_shim_set_max_io_len(ti: *mut dm_target, sectors: u32);
    pub(super) fn dm_shim_device_number(path: *const c_char, number: *mut u32) -> c_int;
    pub(super) fn dm_shim_get_device(
        ti: *mut dm_target,
        path: *const c_char,
        write: bool,
        dev: *mut *mut dm_dev,
    ) -> c_int;
    pub(super) fn dm_shim_put_device(ti: *mut dm_target, dev: *mut dm_dev);

    pub(super) fn dm_shim_bdev_flush(bdev: *mut bindings::block_device) -> c_int;
    pub(super) fn dm_shim_bdev_has_cache(bdev: *mut bindings::block_device) -> bool;
    pub(super) fn dm_shim_bdev_has_fua(bdev: *mut bindings::block_device) -> bool;

    pub(super) fn dm_shim_bio_set_dev(bio: *mut bindings::bio, bdev: *mut bindings::block_device);
    pub(super) fn dm_shim_bio_is_write(bio: *const bindings::bio) -> bool;
    pub(super) fn dm_shim_bio_target_nr(bio: *const bindings::bio) -> c_uint;
    pub(super) fn dm_shim_bio_accept_partial(bio: *mut bindings::bio, sectors: c_uint);
    pub(super) fn dm_shim_bio_data(bio: *mut bindings::bio, bytes: usize) -> *mut c_void;
    pub(super) fn dm_shim_bio_error(bio: *const bindings::bio) -> c_int;
    pub(super) fn dm_shim_bio_copy_data(bio: *mut bindings::bio, to: *mut u8);
    pub(super) fn dm_shim_bio_submit(bio: *mut bindings::bio);
    pub(super) fn dm_shim_bio_end(bio: *mut bindings::bio, error: c_int);

    pub(super) fn dm_shim_kcopyd_create(throttle: *mut dm_kcopyd_throttle)
        -> *mut dm_kcopyd_client;
    pub(super) fn dm_shim_kcopyd_destroy(client: *mut dm_kcopyd_client);
    pub(super) fn dm_shim_kcopyd_copy(
        client: *mut dm_kcopyd_client,
        from: *mut dm_io_region,
        count: c_uint,
        to: *mut dm_io_region,
        done: Option<KcopydNotifyFn>,
        context: *mut c_void,
    );

    pub(super) fn dm_shim_spin_lock_irqsave(lock: *mut bindings::spinlock_t) -> c_ulong;
    pub(super) fn dm_shim_spin_trylock_irqsave(
        lock: *mut bindings::spinlock_t,
        flags: *mut c_ulong,
    ) -> bool;
    pub(super) fn dm_shim_spin_unlock_irqrestore(lock: *mut bindings::spinlock_t, flags: c_ulong);
    pub(super) fn dm_shim_wait_event(
        queue: *mut bindings::wait_queue_head_t,
        met: Option<unsafe extern "C" fn(context: *mut c_void) -> bool>,
        context: *mut c_void,
    );
    pub(super) fn dm_shim_wake_up_all(queue: *mut bindings::wait_queue_head_t);
    pub(super) fn dm_shim_cond_resched();
    pub(super) fn dm_shim_yield();
    pub(super) fn dm_shim_sleep_ms(ms: c_uint);
}

// SPDX-License-Identifier: GPL-2.0-only

//! Presents an [`ExceptionStore`] to dm-snapshot's C core.

use super::{
    ffi::{self, dm_exception, dm_exception_store, dm_exception_store_type},
    CommitCallback,
};
use crate::dm::{
    exception_store::{Devices, ExceptionStore, NewStore, TableLine},
    ffi::Sector,
    Device,
};
use crate::format::Exception;
use core::marker::PhantomData;
use core::ptr::{self, addr_of_mut};
use kernel::{
    error::{from_result, to_result},
    ffi::{c_char, c_int, c_uint, c_void},
    fmt::{self, Write},
    prelude::*,
    str::CStr,
    types::ForeignOwnable,
};

/// How a store hangs in `struct dm_exception_store`'s `context`.
type Owned<T> = Pin<KBox<T>>;

/// The functions of `struct dm_exception_store_type` for the store `T`.
///
/// Common to all: dm-snapshot passes a `struct dm_exception_store` that is live for the call,
/// whose `snap` is the snapshot that has it now, and, after `ctr` succeeded and before `dtr`,
/// whose `context` is what `ctr` put there. The devices of that snapshot are open for the call.
pub(super) struct Adapter<T>(PhantomData<T>);

impl<T: ExceptionStore<CommitCallback>> Adapter<T> {
    /// A type with these functions, unregistered, named `name`, whose users pin `module`.
    pub(super) fn store_type(
        name: &'static CStr,
        module: &'static ThisModule,
    ) -> dm_exception_store_type {
        dm_exception_store_type {
            name: name.as_char_ptr(),
            module: module.as_ptr(),
            ctr: Some(Self::ctr),
            dtr: Some(Self::dtr),
            read_metadata: Some(Self::read_metadata),
            prepare_exception: Some(Self::prepare_exception),
            commit_exception: Some(Self::commit_exception),
            prepare_merge: if T::HAS_PREPARE_MERGE {
                Some(Self::prepare_merge)
            } else {
                None
            },
            commit_merge: if T::HAS_COMMIT_MERGE {
                Some(Self::commit_merge)
            } else {
                None
            },
            drop_snapshot: Some(Self::drop_snapshot),
            status: Some(Self::status),
            usage: Some(Self::usage),
            list: kernel::bindings::list_head::default(),
        }
    }

    /// The store behind `store`.
    ///
    /// # Safety
    ///
    /// `store` must be live for `'a`, after `ctr` and before `dtr`.
    unsafe fn store<'a>(store: *mut dm_exception_store) -> &'a T {
        // SAFETY: The caller vouches that `ctr` put an `Owned<T>` there, and that `dtr`, the only
        // one to take it out again, was not called. It is borrowed shared only.
        Pin::get_ref(unsafe { Owned::<T>::borrow((*store).context) })
    }

    /// The devices of the snapshot that has `store` now.
    ///
    /// # Safety
    ///
    /// `store` must be live, and its snapshot must be for `'a`.
    unsafe fn devices<'a>(store: *mut dm_exception_store) -> Devices<'a> {
        // SAFETY: The caller vouches for the store and the snapshot, which holds both devices for
        // as long as it lives.
        unsafe {
            let snap = (*store).snap;
            Devices {
                origin: Device::from_raw(ffi::dm_snap_origin(snap)),
                cow: Device::from_raw(ffi::dm_snap_cow(snap)),
            }
        }
    }

    /// Makes the store when a table is loaded.
    ///
    /// # Safety
    ///
    /// `store` must be live and without a context; `options` must be null or a string.
    unsafe extern "C" fn ctr(store: *mut dm_exception_store, options: *mut c_char) -> c_int {
        from_result(|| {
            let options = if options.is_null() {
                None
            } else {
                // SAFETY: By the safety requirements, `options` is a string that lives for the
                // call.
                Some(unsafe { CStr::from_char_ptr(options) })
            };
            // SAFETY: By the safety requirements.
            let devices = unsafe { Self::devices(store) };
            let NewStore {
                store: new,
                userspace_supports_overflow,
            } = T::new(devices, options)?;
            // SAFETY: By the safety requirements, `store` is live, and nobody else has it yet.
            unsafe {
                (*store).context = new.into_foreign();
                if userspace_supports_overflow {
                    (*store).userspace_supports_overflow = true;
                }
            }
            Ok(0)
        })
    }

    /// Drops the store when its table goes away.
    ///
    /// # Safety
    ///
    /// `store` must be live after `ctr`, with no exception pending, and not be used after this.
    unsafe extern "C" fn dtr(store: *mut dm_exception_store) {
        // SAFETY: By the safety requirements, the context is what `ctr` put there, and no other
        // call for it is under way or to come.
        drop(unsafe { Owned::<T>::from_foreign((*store).context) });
    }

    /// Loads the store.
    ///
    /// # Safety
    ///
    /// As for all; `callback` may be called with `callback_context` during the call.
    unsafe extern "C" fn read_metadata(
        store: *mut dm_exception_store,
        callback: Option<ffi::AddExceptionFn>,
        callback_context: *mut c_void,
    ) -> c_int {
        from_result(|| {
            let callback = callback.ok_or(EINVAL)?;
            let mut add = |e: Exception| {
                // SAFETY: By the safety requirements.
                to_result(unsafe { callback(callback_context, e.old, e.new) })
            };
            // SAFETY: By the safety requirements.
            let (this, devices) = unsafe { (Self::store(store), Self::devices(store)) };
            // SAFETY: By the safety requirements, `store` is live.
            let chunk_sectors = unsafe { (*store).chunk_size };
            let found = this.read_metadata(devices, chunk_sectors, &mut add)?;
            if !found.chunk_sectors.is_power_of_two() {
                return Err(EINVAL);
            }
            // SAFETY: `store` is live, and only this thread writes to it now. The snapshot is
            // registered already, so that writes to its origin may read these fields meanwhile, in
            // `__origin_write()`; what they make of them they drop when they see that the snapshot is
            // not active yet. Hence the volatile writes, which cannot tear.
            unsafe {
                addr_of_mut!((*store).chunk_size).write_volatile(found.chunk_sectors);
                addr_of_mut!((*store).chunk_mask).write_volatile(found.chunk_sectors - 1);
                addr_of_mut!((*store).chunk_shift)
                    .write_volatile(found.chunk_sectors.trailing_zeros());
            }
            Ok(i16::from(!found.valid))
        })
        .into()
    }

    /// Hands out a chunk.
    ///
    /// # Safety
    ///
    /// As for all; `e` must be ours to write to.
    unsafe extern "C" fn prepare_exception(
        store: *mut dm_exception_store,
        e: *mut dm_exception,
    ) -> c_int {
        from_result(|| {
            // SAFETY: By the safety requirements.
            let (this, devices) = unsafe { (Self::store(store), Self::devices(store)) };
            let new_chunk = this.prepare_exception(devices)?;
            // SAFETY: By the safety requirements, `e` is ours to write to.
            unsafe { (*e).new_chunk = new_chunk };
            Ok(0)
        })
    }

    /// Records an exception.
    ///
    /// # Safety
    ///
    /// As for all; `e` must be live for the call, and `callback` may be called once with
    /// `callback_context`, until `dtr`, from any process context.
    unsafe extern "C" fn commit_exception(
        store: *mut dm_exception_store,
        e: *mut dm_exception,
        valid: c_int,
        callback: Option<ffi::CommitCallbackFn>,
        callback_context: *mut c_void,
    ) {
        let Some(callback) = callback else { return };
        // SAFETY: By the safety requirements.
        let done = unsafe { CommitCallback::new(callback, callback_context) };
        // SAFETY: By the safety requirements.
        let (this, devices) = unsafe { (Self::store(store), Self::devices(store)) };
        // SAFETY: By the safety requirements, `e` is live.
        let exception = unsafe {
            Exception {
                old: (*e).old_chunk,
                new: (*e).new_chunk,
            }
        };
        this.commit_exception(devices, exception, valid != 0, done);
    }

    /// Finds what to merge next.
    ///
    /// # Safety
    ///
    /// As for all; the two chunk numbers must be ours to write to.
    unsafe extern "C" fn prepare_merge(
        store: *mut dm_exception_store,
        last_old_chunk: *mut ffi::ChunkNr,
        last_new_chunk: *mut ffi::ChunkNr,
    ) -> c_int {
        let result = (|| {
            // SAFETY: By the safety requirements.
            let (this, devices) = unsafe { (Self::store(store), Self::devices(store)) };
            let Some(run) = this.prepare_merge(devices)? else {
                return Ok(0);
            };
            // SAFETY: By the safety requirements, both are ours to write to.
            unsafe {
                *last_old_chunk = run.last.old;
                *last_new_chunk = run.last.new;
            }
            c_int::try_from(run.count).map_err(|_| EOVERFLOW)
        })();
        result.unwrap_or_else(|e: Error| e.to_errno())
    }

    /// Forgets what was merged.
    ///
    /// # Safety
    ///
    /// As for all.
    unsafe extern "C" fn commit_merge(store: *mut dm_exception_store, nr_merged: c_int) -> c_int {
        from_result(|| {
            // SAFETY: By the safety requirements.
            let (this, devices) = unsafe { (Self::store(store), Self::devices(store)) };
            this.commit_merge(devices, u32::try_from(nr_merged).map_err(|_| EINVAL)?)?;
            Ok(0)
        })
    }

    /// Marks the snapshot invalid.
    ///
    /// # Safety
    ///
    /// As for all.
    unsafe extern "C" fn drop_snapshot(store: *mut dm_exception_store) {
        // SAFETY: By the safety requirements.
        let (this, devices) = unsafe { (Self::store(store), Self::devices(store)) };
        this.drop_snapshot(devices);
    }

    /// Reports how full the store is.
    ///
    /// # Safety
    ///
    /// As for all; the three numbers of sectors must be ours to write to.
    unsafe extern "C" fn usage(
        store: *mut dm_exception_store,
        total_sectors: *mut Sector,
        sectors_allocated: *mut Sector,
        metadata_sectors: *mut Sector,
    ) {
        // SAFETY: By the safety requirements.
        let (this, devices) = unsafe { (Self::store(store), Self::devices(store)) };
        let usage = this.usage(devices);
        // SAFETY: By the safety requirements, all three are ours to write to.
        unsafe {
            *total_sectors = usage.total;
            *sectors_allocated = usage.allocated;
            *metadata_sectors = usage.metadata;
        }
    }

    /// Writes the store's part of a status line and returns its length.
    ///
    /// # Safety
    ///
    /// As for all; the `maxlen` bytes at `result` must be ours to write to.
    unsafe extern "C" fn status(
        store: *mut dm_exception_store,
        status: c_uint,
        result: *mut c_char,
        maxlen: c_uint,
    ) -> c_uint {
        let mut out = BoundedStr {
            start: result,
            room: maxlen as usize,
            len: 0,
            _text: PhantomData,
        };
        match status {
            ffi::STATUSTYPE_TABLE => {
                // SAFETY: By the safety requirements.
                let this = unsafe { Self::store(store) };
                // SAFETY: By the safety requirements, `store` is live.
                let line = unsafe {
                    TableLine {
                        chunk_sectors: (*store).chunk_size,
                        userspace_supports_overflow: (*store).userspace_supports_overflow,
                    }
                };
                // A text that does not fit is cut, as `DMEMIT` does.
                let _ = this.table_line(&line, &mut out);
            }
            ffi::STATUSTYPE_IMA => {
                let _ = out.write_str("");
            }
            _ => {}
        }
        // CAST: At most `maxlen`.
        out.len as c_uint
    }
}

/// Text in memory of dm-snapshot's, always ended by a NUL and cut where it does not fit.
///
/// # Invariants
///
/// The `room` bytes at `start` may be written to for `'a`; `len` is less than `room`, or both are
/// zero.
struct BoundedStr<'a> {
    start: *mut c_char,
    room: usize,
    len: usize,
    _text: PhantomData<&'a mut [c_char]>,
}

impl fmt::Write for BoundedStr<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        if self.room == 0 {
            return Err(fmt::Error);
        }
        let fits = s.len().min(self.room - 1 - self.len);
        // SAFETY: By the type's invariant there is room for `fits` bytes and a NUL after the
        // `len` that are there.
        unsafe {
            let end = self.start.add(self.len);
            ptr::copy_nonoverlapping(s.as_ptr(), end.cast(), fits);
            *end.add(fits) = 0;
        }
        // INVARIANT: `fits` left room for the NUL.
        self.len += fits;
        if fits == s.len() {
            Ok(())
        } else {
            Err(fmt::Error)
        }
    }
}

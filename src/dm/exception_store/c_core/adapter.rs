// SPDX-License-Identifier: GPL-2.0-only

//! Presents an [`ExceptionStore`] to dm-snapshot's C core.

use super::{
    ffi::{
        self,
        dm_exception,
        dm_exception_store,
        dm_exception_store_type, //
    },
    CommitCallback, //
};
use crate::dm::{
    exception_store::{
        Copied,
        Devices,
        ExceptionStore,
        ExceptionTable,
        NewStore,
        TableLine, //
    },
    ffi::Sector,
    Device, //
};
use crate::format::Exception;
use core::marker::PhantomData;
use core::ptr;
use kernel::{
    error::{
        from_result,
        to_result, //
    },

    fmt::{
        self,
        Write, //
    },
    prelude::*,

    types::ForeignOwnable, //
};

/// How a store hangs in `struct dm_exception_store`'s `context`.
type Owned<T> = Pin<KBox<T>>;

/// The functions of `struct dm_exception_store_type` for the store `T`.
///
/// What dm-snapshot promises of the `struct dm_exception_store` that it passes to each of them is
/// what their safety requirements name:
///
/// - *live*: the structure, the snapshot that its `snap` points to, and that snapshot's two open
///   devices stay what they are until the call returns. Which snapshot that is changes between
///   calls: a handover moves a store to another.
/// - *made*: `ctr` succeeded and `dtr` was not called; neither of the two is called meanwhile.
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
    /// For `'a`, `store` must be live and made.
    unsafe fn store<'a>(store: *mut dm_exception_store) -> &'a T {
        // SAFETY: `store` is live, so that it can be read; it is made, so that its context is the
        // `Owned<T>` that `ctr` put there, which `dtr`, the only one to take it out again, does not
        // for `'a`. Everybody borrows it shared.
        Pin::get_ref(unsafe { Owned::<T>::borrow((*store).context) })
    }

    /// The devices of the snapshot that has `store` now.
    ///
    /// # Safety
    ///
    /// For `'a`, `store` must be live.
    unsafe fn devices<'a>(store: *mut dm_exception_store) -> Devices<'a> {
        // SAFETY: `store` is live: it can be read, `snap` is a snapshot, which is all that the two
        // functions need, and its devices, which came from `dm_get_device()`, are not put for `'a`.
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
    /// - `store` must be live, and nobody else may use it until this returns. It is made if this
    ///   returns 0.
    /// - `options` must be null or a string that stays as it is until this returns.
    unsafe extern "C" fn ctr(store: *mut dm_exception_store, options: *mut c_char) -> c_int {
        from_result(|| {
            let options = if options.is_null() {
                None
            } else {
                // SAFETY: `options` is not null, so it is a string that outlives the borrow.
                Some(unsafe { CStr::from_char_ptr(options) })
            };
            // SAFETY: `store` is live until this returns.
            let devices = unsafe { Self::devices(store) };
            let NewStore {
                store: new,
                userspace_supports_overflow,
            } = T::new(devices, options)?;
            // SAFETY: `store` is live, and nobody else uses it.
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
    /// `store` must be made and point to memory that is valid until this returns. No call for it
    /// may be under way, and none may follow.
    unsafe extern "C" fn dtr(store: *mut dm_exception_store) {
        // SAFETY: `store` can be read, and is made, so that its context is the `Owned<T>` that
        // `ctr` put there. No call borrows that, and none will take it out a second time.
        drop(unsafe { Owned::<T>::from_foreign((*store).context) });
    }

    /// Loads the store.
    ///
    /// # Safety
    ///
    /// - `store` must be live and made; no other thread may write to it until this returns.
    /// - Until this returns, `callback` may be called with `callback_context` any number of times.
    unsafe extern "C" fn read_metadata(
        store: *mut dm_exception_store,
        callback: ffi::AddExceptionFn,
        callback_context: *mut c_void,
    ) -> c_int {
        from_result(|| {
            // INVARIANT: `callback` may be called with `callback_context` until this returns, and
            // `table` does not outlive it.
            let mut table = CoreTable {
                add: callback,
                context: callback_context,
                _call: PhantomData,
            };
            // SAFETY: `store` is live and made until this returns.
            let (this, devices) = unsafe { (Self::store(store), Self::devices(store)) };
            // SAFETY: `store` is live, and nobody writes to the field meanwhile.
            let chunk_sectors = unsafe { (*store).chunk_size };
            let found = this.read_metadata(devices, chunk_sectors, &mut table)?;
            if !found.chunk_sectors.is_power_of_two() {
                return Err(EINVAL);
            }
            // SAFETY: `store` is live, and no other thread writes to it. The snapshot is registered
            // already, so that writes to its origin may read these fields meanwhile, in
            // `__origin_write()`; what they make of them they drop when they see that the snapshot
            // is not active yet. Hence the volatile writes, which cannot tear.
            unsafe {
                (&raw mut (*store).chunk_size).write_volatile(found.chunk_sectors);
                (&raw mut (*store).chunk_mask).write_volatile(found.chunk_sectors - 1);
                (&raw mut (*store).chunk_shift)
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
    /// - `store` must be live and made.
    /// - `e` must be live until this returns, and nobody else may use it meanwhile.
    unsafe extern "C" fn prepare_exception(
        store: *mut dm_exception_store,
        e: *mut dm_exception,
    ) -> c_int {
        from_result(|| {
            // SAFETY: `store` is live and made until this returns.
            let (this, devices) = unsafe { (Self::store(store), Self::devices(store)) };
            let (new_chunk, _) = this.prepare_exceptions(devices, 1)?;
            // SAFETY: `e` is live, and nobody else uses it.
            unsafe { (*e).new_chunk = new_chunk };
            Ok(0)
        })
    }

    /// Records an exception.
    ///
    /// # Safety
    ///
    /// - `store` must be live and made.
    /// - `e` must be live until this calls `callback`, and nobody may write to it meanwhile.
    /// - `callback` may be called with `callback_context` once, from any process context, before
    ///   `dtr` is called.
    unsafe extern "C" fn commit_exception(
        store: *mut dm_exception_store,
        e: *mut dm_exception,
        valid: c_int,
        callback: ffi::CommitCallbackFn,
        callback_context: *mut c_void,
    ) {
        // SAFETY: `callback` may be called once, and nobody here calls it but for `done`.
        let done = unsafe { CommitCallback::new(callback, callback_context) };
        // SAFETY: `store` is live and made until this returns.
        let (this, devices) = unsafe { (Self::store(store), Self::devices(store)) };
        // SAFETY: `e` is live, since `done` was not completed yet, and nobody writes to it.
        let exception = unsafe {
            Exception {
                old: (*e).old_chunk,
                new: (*e).new_chunk,
            }
        };
        let copied = if valid != 0 {
            Copied::Cached
        } else {
            Copied::No
        };
        this.commit_exception(devices, exception, copied, false, done);
    }

    /// Finds what to merge next.
    ///
    /// # Safety
    ///
    /// - `store` must be live and made.
    /// - The two chunk numbers must be valid until this returns, and nobody else may use them
    ///   meanwhile.
    unsafe extern "C" fn prepare_merge(
        store: *mut dm_exception_store,
        last_old_chunk: *mut ffi::ChunkNr,
        last_new_chunk: *mut ffi::ChunkNr,
    ) -> c_int {
        let result = (|| {
            // SAFETY: `store` is live and made until this returns.
            let (this, devices) = unsafe { (Self::store(store), Self::devices(store)) };
            let Some(run) = this.prepare_merge(devices)? else {
                return Ok(0);
            };
            // SAFETY: Both are valid, and nobody else uses them.
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
    /// `store` must be live and made.
    unsafe extern "C" fn commit_merge(store: *mut dm_exception_store, nr_merged: c_int) -> c_int {
        from_result(|| {
            // SAFETY: `store` is live and made until this returns.
            let (this, devices) = unsafe { (Self::store(store), Self::devices(store)) };
            this.commit_merge(devices, u32::try_from(nr_merged).map_err(|_| EINVAL)?)?;
            Ok(0)
        })
    }

    /// Marks the snapshot invalid.
    ///
    /// # Safety
    ///
    /// `store` must be live and made.
    unsafe extern "C" fn drop_snapshot(store: *mut dm_exception_store) {
        // SAFETY: `store` is live and made until this returns.
        let (this, devices) = unsafe { (Self::store(store), Self::devices(store)) };
        this.drop_snapshot(devices);
    }

    /// Reports how full the store is.
    ///
    /// # Safety
    ///
    /// - `store` must be live and made.
    /// - The three numbers of sectors must be valid until this returns, and nobody else may use
    ///   them meanwhile.
    unsafe extern "C" fn usage(
        store: *mut dm_exception_store,
        total_sectors: *mut Sector,
        sectors_allocated: *mut Sector,
        metadata_sectors: *mut Sector,
    ) {
        // SAFETY: `store` is live and made until this returns.
        let (this, devices) = unsafe { (Self::store(store), Self::devices(store)) };
        let usage = this.usage(devices);
        // SAFETY: All three are valid, and nobody else uses them.
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
    /// - `store` must be live and made, and nobody may write to it until this returns.
    /// - The `maxlen` bytes at `result` must be valid until this returns, and nobody else may use
    ///   them meanwhile.
    unsafe extern "C" fn status(
        store: *mut dm_exception_store,
        status: ffi::status_type_t,
        result: *mut c_char,
        maxlen: c_uint,
    ) -> c_uint {
        // INVARIANT: The bytes at `result` may be written to until this returns, and `out` does not
        // outlive it. No text is there yet.
        let mut out = BoundedStr {
            start: result,
            room: maxlen as usize,
            len: 0,
            _text: PhantomData,
        };
        match status {
            ffi::STATUSTYPE_TABLE => {
                // SAFETY: `store` is live and made until this returns.
                let this = unsafe { Self::store(store) };
                // SAFETY: `store` is live, and nobody writes to it meanwhile.
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

/// dm-snapshot's table of exceptions, while a store is loaded.
///
/// # Invariants
///
/// For `'a`, `add` may be called with `context`.
struct CoreTable<'a> {
    add: ffi::AddExceptionFn,
    context: *mut c_void,
    _call: PhantomData<&'a mut c_void>,
}

impl ExceptionTable for CoreTable<'_> {
    const TAKES_ANY_ORDER: bool = false;

    fn begin(&mut self, _chunk_sectors: u32) -> Result {
        Ok(())
    }

    fn insert(&mut self, exception: Exception) -> Result {
        // SAFETY: By the type's invariant.
        to_result(unsafe { (self.add)(self.context, exception.old, exception.new) })
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

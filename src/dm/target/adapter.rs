// SPDX-License-Identifier: GPL-2.0-only

//! Presents a [`Target`] to `shim.c`, and with it to device-mapper.
//!
//! device-mapper promises, and each function relies on:
//!
//! - Between a `ctr` that succeeded and `dtr` it calls the others, with what `ctr` left in
//!   `private`; none of them is running when it calls `dtr`, and no bio is under way then.
//! - `map` gets a clone that is the target's to submit or end, and `end_io` one that was mapped and
//!   has ended.

use super::{
    result_buffer::ResultBuffer,
    StatusKind,
    Target,
    TargetHandle,
    TargetTable, //
};
use crate::dm::{
    bio::{
        Bio,
        EndedBio,
        MapBio,
        Mapped, //
    },
    ffi::dm_dev,
    owned_device::OpenDevices,
    per_bio,
    shim::{
        self,
        dm_shim_ops,
        dm_target, //
    },
    Device,
    QueueLimits, //
};
use core::cell::Cell;
use core::fmt::Write;
use core::marker::PhantomData;
use core::ptr::{
    self,
    NonNull, //
};
use kernel::{
    bindings,
    error::from_result,

    prelude::*,

    sync::Arc, //
};

/// The functions that `shim.c` calls for `T`.
pub(super) struct Adapter<T>(PhantomData<T>);

/// What `private` of a target points to.
struct Private<T> {
    target: Pin<KBox<T>>,
    handle: Arc<TargetHandle>,
    devices: OpenDevices,
}

impl<T: Target> Adapter<T> {
    /// The functions; those that `T` does not have are not there.
    pub(super) const OPS: &'static dm_shim_ops = &dm_shim_ops {
        ctr: Some(Self::ctr),
        dtr: Some(Self::dtr),
        map: Some(Self::map),
        end_io: if T::HAS_END_IO {
            Some(Self::end_io)
        } else {
            None
        },
        presuspend: if T::HAS_PRESUSPEND {
            Some(Self::presuspend)
        } else {
            None
        },
        postsuspend: if T::HAS_POSTSUSPEND {
            Some(Self::postsuspend)
        } else {
            None
        },
        preresume: if T::HAS_PRERESUME {
            Some(Self::preresume)
        } else {
            None
        },
        resume: if T::HAS_RESUME {
            Some(Self::resume)
        } else {
            None
        },
        status: if T::HAS_STATUS {
            Some(Self::status)
        } else {
            None
        },
        message: if T::HAS_MESSAGE {
            Some(Self::message)
        } else {
            None
        },
        iterate_devices: if T::HAS_ITERATE_DEVICES {
            Some(Self::iterate_devices)
        } else {
            None
        },
        io_hints: if T::HAS_IO_HINTS {
            Some(Self::io_hints)
        } else {
            None
        },
        takes_nowait: T::TAKES_NOWAIT,
    };

    /// The target behind `private`.
    ///
    /// # Safety
    ///
    /// `private` must be what `ctr` left, and `dtr` must not be called for `'a`.
    unsafe fn target<'a>(private: *mut c_void) -> &'a T {
        // SAFETY: The caller vouches that it points to this, which is borrowed shared only.
        unsafe { &(*private.cast::<Private<T>>()).target }
    }

    /// The words of a table line or a message.
    ///
    /// # Safety
    ///
    /// There must be `argc` strings at `argv`, which live for `'a`.
    unsafe fn words<'a>(argc: c_uint, argv: *mut *mut c_char) -> Result<KVec<&'a CStr>> {
        let mut words = KVec::with_capacity(argc as usize, GFP_KERNEL)?;
        for index in 0..argc as usize {
            // SAFETY: The caller vouches for the strings.
            let word = unsafe { CStr::from_char_ptr(*argv.add(index)) };
            words.push(word, GFP_KERNEL)?;
        }
        Ok(words)
    }

    /// Makes the target when a table is loaded.
    ///
    /// # Safety
    ///
    /// `ti` must be live and new, and there must be `argc` strings at `argv`.
    unsafe extern "C" fn ctr(ti: *mut dm_target, argc: c_uint, argv: *mut *mut c_char) -> c_int {
        from_result(|| {
            let target_ti = NonNull::new(ti).ok_or(EINVAL)?;
            // SAFETY: By the safety requirements; the words are used in this call only.
            let args = unsafe { Self::words(argc, argv) }?;
            let private = KBox::<Private<T>>::new_uninit(GFP_KERNEL)?;
            // SAFETY: `ti` lives until `dtr`, which calls `kill`, or until this function fails,
            // which does.
            let handle = unsafe { TargetHandle::new(target_ti) }?;
            let mut devices = OpenDevices::new()?;
            // SAFETY: `ctr` is this function.
            let mut table = unsafe { TargetTable::new(target_ti, &handle, Some(&mut devices)) };
            match T::new(&mut table, &args) {
                Ok(target) => {
                    let private = KBox::write(
                        private,
                        Private {
                            target,
                            handle,
                            devices,
                        },
                    );
                    let bytes = per_bio::bytes::<T::BioData>() as c_uint;
                    // SAFETY: `ti` is live. `dtr` takes what is given up to it here.
                    unsafe {
                        shim::dm_shim_set_private(ti, KBox::into_raw(private).cast(), bytes);
                    }
                    Ok(0)
                }
                Err(e) => {
                    handle.kill();
                    // SAFETY: `ti` is the target that these were opened with, in its constructor.
                    unsafe { devices.close(ti) };
                    Err(e)
                }
            }
        })
    }

    /// Drops the target when its table goes away.
    ///
    /// # Safety
    ///
    /// `private` must be what `ctr` left for `ti`, and not be used after this.
    unsafe extern "C" fn dtr(ti: *mut dm_target, private: *mut c_void) {
        // SAFETY: `ctr` gave it up, and nobody else has it any more.
        let private = unsafe { KBox::from_raw(private.cast::<Private<T>>()) };
        let Private {
            target,
            handle,
            devices,
        } = KBox::into_inner(private);
        handle.kill();
        drop(target);
        // SAFETY: `ti` is the target that these were opened with, in its destructor.
        unsafe { devices.close(ti) };
    }

    /// Decides what becomes of a bio.
    ///
    /// # Safety
    ///
    /// `private` must be what `ctr` left; `bio` is given up to this function, except as the value
    /// that it returns says.
    unsafe extern "C" fn map(private: *mut c_void, bio: *mut bindings::bio) -> c_int {
        // SAFETY: By the safety requirements. `ctr` asked for room for the data.
        let mapped = unsafe {
            per_bio::init::<T::BioData>(bio);
            let ours = Bio::from_raw(NonNull::new_unchecked(bio));
            Self::target(private).map(MapBio::new(ours))
        };
        match mapped {
            Mapped::Submitted => shim::DM_MAPIO_SUBMITTED,
            Mapped::Remapped(other) if other.as_ptr() == bio => {
                other.into_raw();
                shim::DM_MAPIO_REMAPPED
            }
            Mapped::Kill(other) if other.as_ptr() == bio => {
                other.into_raw();
                shim::DM_MAPIO_KILL
            }
            // Another bio than this one; this one is kept or ended.
            Mapped::Remapped(other) => {
                other.submit();
                shim::DM_MAPIO_SUBMITTED
            }
            Mapped::Kill(_) => shim::DM_MAPIO_SUBMITTED,
        }
    }

    /// Sees a bio that was carried out.
    ///
    /// # Safety
    ///
    /// `private` must be what `ctr` left; `bio` must be one that was mapped and has ended. It is
    /// given up to this function if that returns `DM_ENDIO_INCOMPLETE`.
    unsafe extern "C" fn end_io(private: *mut c_void, bio: *mut bindings::bio) -> c_int {
        let taken = Cell::new(false);
        // SAFETY: By the safety requirements; `taken` tells whether it was given up.
        unsafe {
            Self::target(private).end_io(EndedBio::new(NonNull::new_unchecked(bio), &taken));
        }
        if taken.get() {
            shim::DM_ENDIO_INCOMPLETE
        } else {
            shim::DM_ENDIO_DONE
        }
    }

    /// # Safety
    ///
    /// `private` must be what `ctr` left.
    unsafe extern "C" fn presuspend(private: *mut c_void) {
        // SAFETY: By the safety requirements.
        unsafe { Self::target(private) }.presuspend();
    }

    /// # Safety
    ///
    /// `private` must be what `ctr` left.
    unsafe extern "C" fn postsuspend(private: *mut c_void) {
        // SAFETY: By the safety requirements.
        unsafe { Self::target(private) }.postsuspend();
    }

    /// # Safety
    ///
    /// `private` must be what `ctr` left.
    unsafe extern "C" fn preresume(private: *mut c_void) -> c_int {
        from_result(|| {
            // SAFETY: By the safety requirements.
            unsafe { Self::target(private) }.preresume()?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// `private` must be what `ctr` left for `ti`.
    unsafe extern "C" fn resume(ti: *mut dm_target, private: *mut c_void) {
        // SAFETY: By the safety requirements; `resume` is this function.
        unsafe {
            let handle = &(*private.cast::<Private<T>>()).handle;
            let mut table = TargetTable::new(NonNull::new_unchecked(ti), handle, None);
            Self::target(private).resume(&mut table);
        }
    }

    /// Writes what userspace wants to know.
    ///
    /// # Safety
    ///
    /// `private` must be what `ctr` left; there must be `maxlen` bytes at `result`.
    unsafe extern "C" fn status(
        private: *mut c_void,
        kind: c_uint,
        result: *mut c_char,
        maxlen: c_uint,
    ) {
        // SAFETY: By the safety requirements.
        let (this, out) = unsafe {
            (
                Self::target(private),
                ResultBuffer::new(result, maxlen as usize),
            )
        };
        let Some(mut out) = out else { return };
        let kind = match kind {
            shim::STATUSTYPE_TABLE => StatusKind::Table,
            shim::STATUSTYPE_IMA if !T::IS_MEASURED => return,
            shim::STATUSTYPE_IMA => {
                // As `DMEMIT_TARGET_NAME_VERSION` has it. Writing to this buffer cannot fail.
                let [major, minor, patch] = T::VERSION;
                let name = T::NAME.to_str().unwrap_or("");
                let _ = write!(
                    out,
                    "target_name={name},target_version={major}.{minor}.{patch}"
                );
                StatusKind::Ima
            }
            _ => StatusKind::Info,
        };
        this.status(kind, &mut out);
    }

    /// Does what a message asks for. Returns 1 if there is an answer.
    ///
    /// # Safety
    ///
    /// `private` must be what `ctr` left; there must be `argc` strings at `argv` and `maxlen` bytes
    /// at `result`.
    unsafe extern "C" fn message(
        private: *mut c_void,
        argc: c_uint,
        argv: *mut *mut c_char,
        result: *mut c_char,
        maxlen: c_uint,
    ) -> c_int {
        from_result(|| {
            // SAFETY: By the safety requirements; the words are used in this call only.
            let args = unsafe { Self::words(argc, argv) }?;
            // SAFETY: By the safety requirements.
            let out = unsafe { ResultBuffer::new(result, maxlen as usize) };
            let mut out = out.ok_or(EINVAL)?;
            // SAFETY: By the safety requirements.
            unsafe { Self::target(private) }.message(&args, &mut out)?;
            Ok(i16::from(!out.is_empty()))
        })
        .into()
    }

    /// Visits the devices.
    ///
    /// # Safety
    ///
    /// `private` must be what `ctr` left; `visit` must be what `dm_shim_visit()` takes.
    unsafe extern "C" fn iterate_devices(private: *mut c_void, visit: *mut c_void) -> c_int {
        let mut call = |device: &Device, start: u64, len: u64| -> c_int {
            let device: *const dm_dev = ptr::from_ref(device).cast();
            // SAFETY: By the safety requirements; the device is open while it is borrowed. What
            // device-mapper does with it changes nothing.
            unsafe { shim::dm_shim_visit(visit, device.cast_mut(), start, len) }
        };
        // SAFETY: By the safety requirements.
        unsafe { Self::target(private) }.iterate_devices(&mut call)
    }

    /// Changes the device's limits.
    ///
    /// # Safety
    ///
    /// `private` must be what `ctr` left; `limits` must be valid and ours.
    unsafe extern "C" fn io_hints(private: *mut c_void, limits: *mut bindings::queue_limits) {
        // SAFETY: By the safety requirements.
        unsafe { Self::target(private).io_hints(&mut QueueLimits::from_raw(limits)) };
    }
}

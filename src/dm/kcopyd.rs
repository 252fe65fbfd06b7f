// SPDX-License-Identifier: GPL-2.0-only

//! kcopyd: copying from one device to others.
//!
//! C header: [`include/linux/dm-kcopyd.h`](srctree/include/linux/dm-kcopyd.h).

use super::{
    ffi::dm_io_region,
    owned_device::DeviceRef,
    shim::{
        self,
        dm_kcopyd_client,
        dm_kcopyd_throttle,
        DM_KCOPYD_MAX_REGIONS, //
    }, //
};
use core::ops::{
    Deref,
    DerefMut, //
};
use core::ptr::{
    self,
    NonNull, //
};
use kernel::{
    error::from_err_ptr,

    prelude::*, //
};

/// Limits the part of the time that copying keeps devices busy, for all clients that share it.
pub(crate) struct Throttle(NonNull<dm_kcopyd_throttle>);

impl Throttle {
    /// The one that the module's parameter `snapshot_copy_throttle` sets.
    pub(crate) fn of_module() -> Self {
        // SAFETY: It returns the address of a static variable, which is never null.
        Self(unsafe { NonNull::new_unchecked(shim::dm_shim_copy_throttle()) })
    }
}

/// Some sectors of a device.
#[derive(Clone, Copy)]
pub(crate) struct Region<'a> {
    /// Where they are; kept open until they are copied.
    pub(crate) device: &'a DeviceRef,
    /// The first of them.
    pub(crate) sector: u64,
    /// How many they are.
    pub(crate) count: u64,
}

impl Region<'_> {
    /// What C makes of `count` sectors from the region's first on.
    fn raw(&self, count: u64) -> dm_io_region {
        dm_io_region {
            bdev: self.device.as_ptr(),
            sector: self.sector,
            count,
        }
    }
}

/// What is to be done when something is copied.
pub(crate) trait CopyJob: Sized + Send + 'static {
    /// Called once for each copy, in kcopyd's thread, which serves all copies of the client: others
    /// wait while this runs. May sleep.
    ///
    /// With `read_failed` no copy is good; with bit n of `write_failed` the one at `to[n]` is not.
    fn done(job: KBox<CopyOf<Self>>, read_failed: bool, write_failed: usize);
}

/// A job, with room for the references that keep its devices open while it is under way. It is made
/// beforehand, so that starting a copy needs no memory.
pub(crate) struct CopyOf<J> {
    devices: [Option<DeviceRef>; DM_KCOPYD_MAX_REGIONS + 1],
    job: J,
}

impl<J> CopyOf<J> {
    /// Makes a job. May sleep.
    pub(crate) fn new(job: J) -> Result<KBox<Self>> {
        Ok(KBox::new(
            Self {
                devices: [const { None }; DM_KCOPYD_MAX_REGIONS + 1],
                job,
            },
            GFP_KERNEL,
        )?)
    }
}

impl<J: CopyJob> CopyOf<J> {
    /// kcopyd is done.
    ///
    /// # Safety
    ///
    /// `context` must be a `KBox<Self>` that is given up to this function.
    unsafe extern "C" fn copied(read_err: c_int, write_err: c_ulong, context: *mut c_void) {
        // SAFETY: By the safety requirements.
        let mut job = unsafe { KBox::from_raw(context.cast::<Self>()) };
        job.devices.fill_with(|| None);
        J::done(job, read_err != 0, write_err);
    }
}

impl<J> Deref for CopyOf<J> {
    type Target = J;

    fn deref(&self) -> &J {
        &self.job
    }
}

impl<J> DerefMut for CopyOf<J> {
    fn deref_mut(&mut self) -> &mut J {
        &mut self.job
    }
}

/// A kcopyd client: a thread, and the memory to copy through.
///
/// Dropping it waits for all its copies, so that [`CopyJob::done`] must not do that.
///
/// # Invariants
///
/// `client` came from `dm_kcopyd_client_create()` and was not destroyed.
pub(crate) struct Kcopyd {
    client: NonNull<dm_kcopyd_client>,
}

// SAFETY: A client may be used and destroyed by any thread.
unsafe impl Send for Kcopyd {}
// SAFETY: A client may be used by many threads at once: it is lists under locks.
unsafe impl Sync for Kcopyd {}

impl Kcopyd {
    /// Creates a client. May sleep.
    pub(crate) fn new(throttle: &Throttle) -> Result<Self> {
        // SAFETY: A throttle is a static variable, so that it outlives the client.
        let client = from_err_ptr(unsafe { shim::dm_shim_kcopyd_create(throttle.0.as_ptr()) })?;
        Ok(Self {
            // INVARIANT: Created just now.
            client: NonNull::new(client).ok_or(ENOMEM)?,
        })
    }

    /// Copies the sectors of `from` to where each of `to` begins, of which there are from one to
    /// `DM_KCOPYD_MAX_REGIONS`, and calls the job when that is over.
    ///
    /// Cannot fail, but waits until kcopyd has memory for it: may sleep.
    pub(crate) fn copy<J: CopyJob>(
        &self,
        from: Region<'_>,
        to: &[Region<'_>],
        job: KBox<CopyOf<J>>,
    ) {
        self.start(Some(from), from.count, to, job);
    }

    /// Writes zeroes to `region`, by `WRITE_ZEROES` where the device offers it, and calls the job
    /// when that is over. Otherwise like [`Self::copy`].
    pub(crate) fn zero<J: CopyJob>(&self, region: Region<'_>, job: KBox<CopyOf<J>>) {
        self.start(None, region.count, &[region], job);
    }

    fn start<J: CopyJob>(
        &self,
        from: Option<Region<'_>>,
        count: u64,
        to: &[Region<'_>],
        mut job: KBox<CopyOf<J>>,
    ) {
        assert!((1..=DM_KCOPYD_MAX_REGIONS).contains(&to.len()));
        let mut targets = [const {
            dm_io_region {
                bdev: ptr::null_mut(),
                sector: 0,
                count: 0,
            }
        }; DM_KCOPYD_MAX_REGIONS];
        for (target, region) in targets.iter_mut().zip(to) {
            *target = region.raw(count);
        }
        for (held, region) in job
            .devices
            .iter_mut()
            .zip(Iterator::chain(to.iter(), &from))
        {
            *held = Some(region.device.clone());
        }
        let mut source = from.map(|region| region.raw(count));
        // SAFETY: The client is live, and waits for its copies before it goes away. kcopyd copies
        // the regions, of which there are as many as it is told; their devices stay open until
        // the job lets go of them, which it does when kcopyd is done. Then it calls
        // `CopyOf::copied` once, with the job that is given up to it here.
        unsafe {
            shim::dm_shim_kcopyd_copy(
                self.client.as_ptr(),
                source.as_mut().map_or(ptr::null_mut(), ptr::from_mut),
                to.len() as c_uint,
                targets.as_mut_ptr(),
                Some(CopyOf::<J>::copied),
                KBox::into_raw(job).cast(),
            )
        }
    }
}

impl Drop for Kcopyd {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant the client is live. It waits for the copies under way,
        // and nobody can start more.
        unsafe { shim::dm_shim_kcopyd_destroy(self.client.as_ptr()) }
    }
}

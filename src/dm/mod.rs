// SPDX-License-Identifier: GPL-2.0-only

//! Safe wrappers over the parts of device-mapper that exception stores and targets need.
//!
//! Everything `unsafe` of the modules lives here. The layer knows nothing of the stores and targets
//! above it.
//!
//! | here | stands for |
//! | --- | --- |
//! | [`BlockDevice`] | `struct block_device`: an open device |
//! | [`Device`] | `struct dm_dev`: a device that a table opened |
//! | [`io`] | dm-io: reads and writes of a device's metadata |
//! | [`Workqueue`] | a single-threaded `struct workqueue_struct` |
//! | [`exception_store`] | `struct dm_exception_store_type` and its registry |
//! | [`message`] | device-mapper's log messages |
//! | [`debugfs`] | files below debugfs |
//! | [`fatal_signal_pending`] | the C function of this name |
//!
//! And for targets:
//!
//! | here | stands for |
//! | --- | --- |
//! | `target` | `struct target_type` and `struct dm_target` |
//! | `Bio` | `struct bio`; `BioList` those that wait |
//! | `OwnedDevice` | `dm_get_device()`; `DeviceRef` for whoever uses the device meanwhile |
//! | `kcopyd` | copies from one device to others |
//! | `io` | `dm_io()`; `Transfer` copies through memory of ours |
//! | `IrqSpinLock` | `spin_lock_irqsave()` |
//! | `WaitQueue` | `wait_event()` |
//! | `noio`, `plugged` | `memalloc_noio_save()`, `struct blk_plug` |
//! | `params` | the module's parameters |
//! | `Traced` | the events of `trace.h` |
//! | `shim` | the C functions of `shim.c` that all these call |

mod block_device;
pub(crate) mod debugfs;
mod device;
pub(crate) mod exception_store;
mod ffi;
#[cfg(any(CONFIG_DEBUG_FS, not(under_c_core)))]
pub(crate) mod global;
pub(crate) mod io;
pub(crate) mod message;
#[cfg(any(CONFIG_DEBUG_FS, not(under_c_core)))]
pub(crate) mod noio;
mod signal;
mod workqueue;

pub(crate) use block_device::BlockDevice;
#[cfg(not(under_c_core))]
pub(crate) use block_device::Keeping;
pub(crate) use device::{
    Device,
    HeldDevice, //
};
pub(crate) use signal::fatal_signal_pending;
pub(crate) use workqueue::Workqueue;

// What targets need, which the kernel's own dm-snapshot has for the stores under it.
#[cfg(not(under_c_core))]
mod bio;
#[cfg(not(under_c_core))]
mod bio_list;
#[cfg(not(under_c_core))]
mod irq_lock;
#[cfg(not(under_c_core))]
pub(crate) mod kcopyd;
#[cfg(not(under_c_core))]
mod owned_device;
#[cfg(not(under_c_core))]
pub(crate) mod params;
#[cfg(not(under_c_core))]
mod per_bio;
#[cfg(not(under_c_core))]
mod plug;
#[cfg(not(under_c_core))]
mod queue_limits;
#[cfg(not(under_c_core))]
mod shim;
#[cfg(not(under_c_core))]
pub(crate) mod target;
#[cfg(not(under_c_core))]
mod trace;
#[cfg(not(under_c_core))]
mod wait_queue;

#[cfg(not(under_c_core))]
pub(crate) use {
    bio::{
        Bio,
        EndedBio,
        MapBio,
        Mapped,
        Op, //
    },
    bio_list::BioList,
    irq_lock::IrqSpinLock,
    owned_device::{
        DeviceRef,
        OwnedDevice, //
    },
    plug::plugged,
    queue_limits::QueueLimits,
    trace::Traced,
    wait_queue::WaitQueue, //
};

/// `EUCLEAN`, "structure needs cleaning": what is on the disk, or in a list, makes no sense.
///
/// The `kernel` crate of Linux 7.2 does not have it.
pub(crate) fn unclean() -> kernel::error::Error {
    kernel::error::Error::from_errno(-(kernel::bindings::EUCLEAN as i32))
}

// SPDX-License-Identifier: GPL-2.0-only

//! The persistent exception store.

mod commits;
mod counts;
mod cow;
mod header;
mod known;
// Public for the host's tests, which compile these files too.
#[expect(unreachable_pub)]
mod metadata;
mod persistent;
mod platform;
mod table_receiver;
#[cfg(not(under_c_core))]
mod transient;

pub(crate) use persistent::Persistent;
#[cfg(not(under_c_core))]
pub(crate) use {
    counts::{
        write_figures,
        Figure,
        NO_RECORDS, //
    },
    transient::Transient, //
};

use crate::dm::{
    message::dm_err,
    unclean,
    Device, //
};
use crate::format::{
    Fault,
    FaultClass, //
};
use core::ffi::CStr;
use kernel::prelude::*;
use metadata::DeviceInfo;

/// What every message of the store begins with.
pub(crate) const DM_MSG_PREFIX: &CStr = c"device-mapper: persistent snapshot";

/// Logs what is wrong with the metadata on `cow`, and says it as an error number.
fn report(cow: &Device, error: metadata::Error<Error>) -> Error {
    match error {
        metadata::Error::Io(e) => e,
        metadata::Error::Fault(fault) => refuse(cow, fault),
    }
}

/// Logs a fault of the metadata on `cow`, and says it as an error number.
pub(crate) fn refuse(cow: &Device, fault: Fault) -> Error {
    dm_err!("{}: {}", cow, fault);
    match fault.class() {
        FaultClass::Memory => ENOMEM,
        FaultClass::Interrupted => EINTR,
        FaultClass::Foreign => ENXIO,
        FaultClass::Argument => EINVAL,
        FaultClass::Damage => unclean(),
    }
}

fn info(device: &Device) -> DeviceInfo {
    DeviceInfo {
        sectors: device.sectors(),
        logical_block: device.logical_block_size(),
        physical_block: device.physical_block_size(),
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! Log messages in device-mapper's style: `device-mapper: snapshots: …`, or what the module's
//! `DM_MSG_PREFIX` says.

use crate::DM_MSG_PREFIX;
use core::fmt;
use kernel::print::{call_printk, format_strings};

/// Logs an error, like `DMERR`.
pub(crate) fn error(args: fmt::Arguments<'_>) {
    // SAFETY: The format string is one of `format_strings`, and the prefix ends with a NUL.
    unsafe { call_printk(&format_strings::ERR, DM_MSG_PREFIX, args) }
}

/// Logs a warning, like `DMWARN`.
pub(crate) fn warn(args: fmt::Arguments<'_>) {
    // SAFETY: The format string is one of `format_strings`, and the prefix ends with a NUL.
    unsafe { call_printk(&format_strings::WARNING, DM_MSG_PREFIX, args) }
}

/// Logs information, like `DMINFO`.
#[cfg(under_c_core)]
pub(crate) fn info(args: fmt::Arguments<'_>) {
    // SAFETY: The format string is one of `format_strings`, and the prefix ends with a NUL.
    unsafe { call_printk(&format_strings::INFO, DM_MSG_PREFIX, args) }
}

/// `DMERR` with the arguments of `format_args!`; ends the line.
macro_rules! dm_err {
    ($f:literal $($rest:tt)*) => {
        $crate::dm::message::error(core::format_args!(concat!($f, "\n") $($rest)*))
    };
}

/// `DMWARN` with the arguments of `format_args!`; ends the line.
macro_rules! dm_warn {
    ($f:literal $($rest:tt)*) => {
        $crate::dm::message::warn(core::format_args!(concat!($f, "\n") $($rest)*))
    };
}

/// `DMINFO` with the arguments of `format_args!`; ends the line.
#[cfg(under_c_core)]
macro_rules! dm_info {
    ($f:literal $($rest:tt)*) => {
        $crate::dm::message::info(core::format_args!(concat!($f, "\n") $($rest)*))
    };
}

#[cfg(under_c_core)]
pub(crate) use dm_info;
pub(crate) use {dm_err, dm_warn};

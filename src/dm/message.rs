// SPDX-License-Identifier: GPL-2.0-only

//! Log messages in device-mapper's style: `device-mapper: snapshots: …`. What stands before the colon
//! is the `DM_MSG_PREFIX` that is in scope where the message is: the store has one and the targets have
//! another, whichever module they are in.

use core::{
    ffi::CStr,
    fmt, //
};
use kernel::print::{
    call_printk,
    format_strings, //
};

/// Logs an error, like `DMERR`.
pub(crate) fn error(prefix: &CStr, args: fmt::Arguments<'_>) {
    // SAFETY: The format string is one of `format_strings`, and the prefix ends with a NUL.
    unsafe { call_printk(&format_strings::ERR, prefix.to_bytes_with_nul(), args) }
}

/// Logs a warning, like `DMWARN`.
pub(crate) fn warn(prefix: &CStr, args: fmt::Arguments<'_>) {
    // SAFETY: The format string is one of `format_strings`, and the prefix ends with a NUL.
    unsafe { call_printk(&format_strings::WARNING, prefix.to_bytes_with_nul(), args) }
}

/// Logs information, like `DMINFO`.
#[cfg(under_c_core)]
pub(crate) fn info(prefix: &CStr, args: fmt::Arguments<'_>) {
    // SAFETY: The format string is one of `format_strings`, and the prefix ends with a NUL.
    unsafe { call_printk(&format_strings::INFO, prefix.to_bytes_with_nul(), args) }
}

/// `DMERR` with the arguments of `format_args!`; ends the line.
macro_rules! dm_err {
    ($f:literal $($rest:tt)*) => {
        $crate::dm::message::error(
            DM_MSG_PREFIX,
            core::format_args!(concat!($f, "\n") $($rest)*),
        )
    };
}

/// `DMWARN` with the arguments of `format_args!`; ends the line.
macro_rules! dm_warn {
    ($f:literal $($rest:tt)*) => {
        $crate::dm::message::warn(
            DM_MSG_PREFIX,
            core::format_args!(concat!($f, "\n") $($rest)*),
        )
    };
}

/// `DMINFO` with the arguments of `format_args!`; ends the line.
#[cfg(under_c_core)]
macro_rules! dm_info {
    ($f:literal $($rest:tt)*) => {
        $crate::dm::message::info(
            DM_MSG_PREFIX,
            core::format_args!(concat!($f, "\n") $($rest)*),
        )
    };
}

#[cfg(under_c_core)]
pub(crate) use dm_info;
pub(crate) use {
    dm_err,
    dm_warn, //
};

// SPDX-License-Identifier: GPL-2.0-only

//! Log messages in device-mapper's style: `device-mapper: persistent snapshot: …`.

use core::fmt;
use kernel::print::{call_printk, format_strings};

const PREFIX: &[u8] = b"device-mapper: persistent snapshot\0";

/// Logs an error, like `DMERR`.
pub(crate) fn error(args: fmt::Arguments<'_>) {
    // SAFETY: The format string is one of `format_strings`, and the prefix ends with a NUL.
    unsafe { call_printk(&format_strings::ERR, PREFIX, args) }
}

/// Logs a warning, like `DMWARN`.
pub(crate) fn warn(args: fmt::Arguments<'_>) {
    // SAFETY: The format string is one of `format_strings`, and the prefix ends with a NUL.
    unsafe { call_printk(&format_strings::WARNING, PREFIX, args) }
}

/// Logs information, like `DMINFO`.
pub(crate) fn info(args: fmt::Arguments<'_>) {
    // SAFETY: The format string is one of `format_strings`, and the prefix ends with a NUL.
    unsafe { call_printk(&format_strings::INFO, PREFIX, args) }
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
macro_rules! dm_info {
    ($f:literal $($rest:tt)*) => {
        $crate::dm::message::info(core::format_args!(concat!($f, "\n") $($rest)*))
    };
}

pub(crate) use {dm_err, dm_info, dm_warn};

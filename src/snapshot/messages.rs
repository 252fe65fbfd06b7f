// SPDX-License-Identifier: GPL-2.0-only

//! The messages that the targets know: `dmsetup message NAME 0 …`.

use super::{
    statistics,
    Leased,
    Origin,
    Snapshot, //
};
use kernel::{
    fmt,
    prelude::*, //
};

/// What a message asks for.
enum Asked {
    /// `stats`: the figures.
    Figures,
    /// `stats reset`: that what was counted is forgotten.
    Reset,
    /// `overflow keep` or `overflow invalidate`: what becomes of a snapshot that is full.
    Overflow {
        /// Whether it is kept.
        keep: bool,
    },
}

impl Asked {
    /// `EINVAL` if the targets know no such message.
    fn of(args: &[&CStr]) -> Result<Self> {
        let is = |word: &CStr, name: &[u8]| word.to_bytes().eq_ignore_ascii_case(name);
        match args {
            [first] if is(first, b"stats") => Ok(Self::Figures),
            [first, second] if is(first, b"stats") && is(second, b"reset") => Ok(Self::Reset),
            [first, second] if is(first, b"overflow") && is(second, b"keep") => {
                Ok(Self::Overflow { keep: true })
            }
            [first, second] if is(first, b"overflow") && is(second, b"invalidate") => {
                Ok(Self::Overflow { keep: false })
            }
            _ => Err(EINVAL),
        }
    }
}

/// A message to an origin. May sleep.
pub(super) fn to_origin(
    origin: &Leased<Origin>,
    args: &[&CStr],
    out: &mut dyn fmt::Write,
) -> Result {
    match Asked::of(args)? {
        Asked::Figures => {
            // A text that does not fit is cut, and device-mapper asks again with more room.
            let _ = statistics::write_origin(origin, out);
        }
        Asked::Reset => statistics::reset_origin(origin),
        // Each snapshot has its own.
        Asked::Overflow { .. } => return Err(EINVAL),
    }
    Ok(())
}

/// A message to a snapshot, or to what merges it. May sleep.
pub(super) fn to_snapshot(
    snapshot: &Leased<Snapshot>,
    args: &[&CStr],
    out: &mut dyn fmt::Write,
) -> Result {
    match Asked::of(args)? {
        Asked::Figures => {
            // As above.
            let _ = statistics::write_snapshot(snapshot, out);
        }
        Asked::Reset => statistics::reset_snapshot(snapshot),
        Asked::Overflow { keep } => snapshot.state().set_kept(keep),
    }
    Ok(())
}

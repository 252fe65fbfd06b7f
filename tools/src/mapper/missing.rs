// SPDX-License-Identifier: GPL-2.0-only

//! What there is instead of device-mapper in a program that was built without asking it.

use super::{Mapped, Target};
use crate::error::{Error, Result};

/// Device-mapper, which cannot be had.
pub enum Mapper {}

impl Mapper {
    /// Says that this program cannot ask device-mapper.
    pub fn open() -> Result<Self> {
        Err(Error::Refused(
            "this program was built without asking device-mapper; install it with --features live \
             for active snapshots"
                .into(),
        ))
    }

    /// All mapped devices.
    pub fn devices(&self) -> Result<Vec<Mapped>> {
        match *self {}
    }

    /// The targets of dm-snapshot in the live table of the device called `name`.
    pub fn targets(&self, _name: &str) -> Result<Option<Vec<Target>>> {
        match *self {}
    }
}

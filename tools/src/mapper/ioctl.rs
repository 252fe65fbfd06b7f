// SPDX-License-Identifier: GPL-2.0-only

//! Device-mapper, asked through its ioctl.

use super::{Kind, Mapped, Target};
use crate::error::{Error, Result};
use devicemapper::errors::Error as CoreError;
use devicemapper::{DevId, DmError, DmFlags, DmName, DmOptions, DM};
use std::io;

/// The device through which device-mapper is asked.
const CONTROL: &str = "/dev/mapper/control";

/// The patch level from which on a target is this project's.
const PATCH_LEVEL: u32 = 100;

/// No such device: it went away, or never was.
const ENXIO: i32 = 6;

/// A line of a table or its status: first sector, length, target, text.
type Line = (u64, u64, String, String);

/// Device-mapper, which only root may ask.
pub struct Mapper(DM);

impl Mapper {
    /// Opens device-mapper's control device.
    pub fn open() -> Result<Self> {
        match DM::new() {
            Ok(dm) => Ok(Self(dm)),
            Err(DmError::Core(CoreError::ContextInit(why))) => {
                Err(Error::Refused(format!("{CONTROL}: cannot open: {why}")))
            }
            Err(error) => Err(refused(CONTROL, &error)),
        }
    }

    /// All mapped devices.
    pub fn devices(&self) -> Result<Vec<Mapped>> {
        let devices = self.0.list_devices().map_err(|e| refused(CONTROL, &e))?;
        let mapped = devices.into_iter().map(|(name, number, _)| Mapped {
            name: name.to_string(),
            number: number.to_string(),
        });
        Ok(mapped.collect())
    }

    /// The targets of dm-snapshot in the live table of the device called `name`; `None` if there is
    /// no such device, or none any more.
    pub fn targets(&self, name: &str) -> Result<Option<Vec<Target>>> {
        let Some(status) = self.lines(name, DmFlags::DM_NOFLUSH)? else {
            return Ok(None);
        };
        if !status.iter().any(|line| Kind::of(&line.2).is_some()) {
            // Of no other target is the table anybody's business: a crypt target's has keys.
            return Ok(Some(Vec::new()));
        }
        let Some(table) = self.lines(name, DmFlags::DM_STATUS_TABLE)? else {
            return Ok(None);
        };
        let mut found = Vec::new();
        for ((start, _, target, status), (_, _, same, table)) in status.into_iter().zip(table) {
            // Another table may have come between the two.
            let Some(kind) = Kind::of(&target).filter(|_| target == same) else {
                continue;
            };
            let answer = match kind {
                Kind::Origin => None,
                Kind::Snapshot | Kind::Merge if self.is_ours(&target)? => self.answer(name, start),
                Kind::Snapshot | Kind::Merge => None,
            };
            found.push(Target {
                device: name.into(),
                start,
                kind,
                status,
                table,
                answer,
            });
        }
        Ok(Some(found))
    }

    /// The lines of the live table; `None` as above.
    fn lines(&self, name: &str, flags: DmFlags) -> Result<Option<Vec<Line>>> {
        let id = DmName::new(name).map_err(|e| refused(name, &e))?;
        let options = DmOptions::default().set_flags(flags);
        match self.0.table_status(&DevId::Name(id), options) {
            Ok((_, lines)) => Ok(Some(lines)),
            Err(error) if number_of(&error) == Some(ENXIO) => Ok(None),
            Err(error) => Err(refused(name, &error)),
        }
    }

    /// Whether the target of this name is this project's. The kernel logs an error for each message
    /// to its own, which know none.
    fn is_ours(&self, target: &str) -> Result<bool> {
        let versions = self.0.list_versions().map_err(|e| refused(CONTROL, &e))?;
        let is_ours =
            |(name, _, _, patch): &(String, u32, u32, u32)| name == target && *patch >= PATCH_LEVEL;
        Ok(versions.iter().any(is_ours))
    }

    /// What the target at `sector` answers to `stats`. Whatever keeps it from that, the status is
    /// known without it.
    fn answer(&self, name: &str, sector: u64) -> Option<String> {
        let id = DmName::new(name).ok()?;
        let answer = self
            .0
            .target_msg(&DevId::Name(id), Some(sector), "stats")
            .ok()?;
        answer.1
    }
}

/// The error number, where an ioctl failed.
fn number_of(error: &DmError) -> Option<i32> {
    match error {
        DmError::Core(CoreError::Ioctl(.., number)) => Some(**number as i32),
        _ => None,
    }
}

/// The crate's own words for a failed ioctl are a dump of its arguments.
fn refused(name: &str, error: &DmError) -> Error {
    let why = match (number_of(error), error) {
        (Some(number), _) => io::Error::from_raw_os_error(number).to_string(),
        (None, DmError::Core(CoreError::UdevSync(_))) => "udev is not running".into(),
        (None, error) => error.to_string(),
    };
    Error::Refused(format!("{name}: cannot ask device-mapper: {why}"))
}

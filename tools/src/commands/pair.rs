// SPDX-License-Identifier: GPL-2.0-only

//! A snapshot and another one of the same origin, or that itself, as a command line names them.

use super::refuse_own_cow;
use crate::cow::{Cow, Origin};
use crate::delta::Other;
use crate::device::{Access, Device};
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::interrupt::Interrupt;
use crate::lvm::{Named, Volumes};
use crate::snapshot::Snapshot;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the command line says.
pub struct Pair<'a> {
    /// The COW device of the one.
    pub cow: &'a Path,
    /// That of the other, if there is one.
    pub other: Option<&'a Path>,
    /// Their origin.
    pub origin: Option<&'a Path>,
    /// Its size in sectors.
    pub origin_size: Option<u64>,
    /// What to say where no origin is known, if one must be.
    pub needs_origin: Option<&'static str>,
    /// Whether those marked invalid are taken.
    pub trust_invalid: bool,
}

impl Pair<'_> {
    /// Opens both.
    pub fn open(
        &self,
        volumes: &Volumes,
        interrupt: &Interrupt,
    ) -> Result<(Snapshot, Option<Snapshot>)> {
        if let Some(other) = self.other {
            let is_same = Identity::of_path(self.cow).overlaps(&Identity::of_path(other));
            if is_same || self.cow == other {
                return Err(Error::Refused(format!(
                    "{} and {} are the same COW device: a snapshot does not differ from itself",
                    self.cow.display(),
                    other.display()
                )));
            }
        }
        let cows: Vec<&Path> = [Some(self.cow), self.other].into_iter().flatten().collect();
        let named = volumes.cows(&cows)?;
        let origin = self.known_origin(&named, volumes)?;
        if let (Some(what), None) = (self.needs_origin, &origin) {
            return Err(Error::Refused(what.into()));
        }
        if let Some(origin) = &origin {
            for named in &named {
                refuse_own_cow(origin, &named.cow)?;
            }
        }
        let origin = origin.map(|path| Device::open(&path, Access::Read));
        // One opening for both: a device is opened exclusively.
        let origin = origin.transpose()?.map(Arc::new);
        let snapshot = self.snapshot(&named[0].cow, origin.clone(), interrupt)?;
        let other = named.get(1);
        let other = other.map(|other| self.snapshot(&other.cow, origin, interrupt));
        Ok((snapshot, other.transpose()?))
    }

    /// The origin, where one is given or known; both snapshots must have the same.
    fn known_origin(&self, named: &[Named], volumes: &Volumes) -> Result<Option<PathBuf>> {
        if let [Named { origin: one, .. }, Named { origin: two, .. }] = named {
            if one != two {
                return Err(Error::Refused(
                    "the two are snapshots of different origins, or only one is given by LVM's name"
                        .into(),
                ));
            }
        }
        let origin = volumes.origin(&named[0], self.origin)?;
        if origin.is_some() && self.origin_size.is_some() {
            return Err(Error::Refused(
                "LVM knows the snapshot's origin; leave out --origin-size".into(),
            ));
        }
        Ok(origin)
    }

    fn snapshot(
        &self,
        cow: &Path,
        origin: Option<Arc<Device>>,
        interrupt: &Interrupt,
    ) -> Result<Snapshot> {
        let size = match origin.as_deref() {
            Some(origin) => Origin::of(origin)?,
            None => Origin::of_size(self.origin_size)?,
        };
        let cow = Cow::open(cow, Access::Read, size)?.watching(interrupt);
        Snapshot::new(cow, origin, self.origin_size, self.trust_invalid)
    }
}

/// What the one is compared with.
pub fn other(other: &Option<Snapshot>) -> Other<'_> {
    other.as_ref().map_or(Other::Origin, Other::Snapshot)
}

// SPDX-License-Identifier: GPL-2.0-only

//! Snapshots of one origin, as a command line names them.

use super::refuse_own_cow;
use crate::cow::{Cow, Origin};
use crate::device::{Access, Device};
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::interrupt::Interrupt;
use crate::lvm::{Named, Volumes};
use crate::snapshot::Snapshot;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One or two snapshots of the same origin, to be opened together.
pub struct Siblings<'a> {
    /// The COW devices, or LVM's names of the snapshots.
    pub cows: Vec<&'a Path>,
    /// The origin, where LVM does not know it.
    pub origin: Option<&'a Path>,
    /// The origin's size in sectors, where the device is not at hand.
    pub origin_size: Option<u64>,
    /// What to say where there is no origin, if that will not do.
    pub needs_origin: Option<&'static str>,
    /// Open snapshots that are marked invalid.
    pub trust_invalid: bool,
}

impl Siblings<'_> {
    /// Opens them, in their order.
    pub fn open(&self, volumes: &Volumes, interrupt: &Interrupt) -> Result<Vec<Snapshot>> {
        if let [one, two] = self.cows[..] {
            if one == two || Identity::of_path(one).overlaps(&Identity::of_path(two)) {
                return Err(Error::Refused(format!(
                    "{} and {} are the same COW device: a snapshot does not differ from itself",
                    one.display(),
                    two.display()
                )));
            }
        }
        let named = volumes.cows(&self.cows)?;
        let origin = self.known_origin(&named, volumes)?;
        if let (None, Some(message)) = (&origin, self.needs_origin) {
            return Err(Error::Refused(message.into()));
        }
        if let Some(origin) = &origin {
            for named in &named {
                refuse_own_cow(origin, &named.cow)?;
            }
        }
        let origin = origin.map(|path| Device::open(&path, Access::Read));
        // One opening for all: a device is opened exclusively.
        let origin = origin.transpose()?.map(Arc::new);
        let open = |named: &Named| self.snapshot(&named.cow, origin.clone(), interrupt);
        named.iter().map(open).collect()
    }

    /// The origin, where one is given or known; all snapshots must have the same.
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

// SPDX-License-Identifier: GPL-2.0-only

//! The snapshots that are active, as device-mapper tells of them.

use crate::error::{Error, Result};
use crate::figures::Figures;
use crate::mapper::{Kind, Mapped, Mapper, Target};
use crate::stat::Live;
use std::fs;

/// An active snapshot, or a device that merges one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Active {
    /// The device-mapper name.
    pub name: String,
    /// Its first sector in the device: 0, unless the device's table has several targets.
    pub start: u64,
    /// The number that the kernel gave the device's disk, and gives no other, if it tells.
    pub disk: Option<u64>,
    /// The number of the device that is its COW device.
    pub cow_number: String,
    /// The number of the device that is its origin, `254:1`.
    pub origin_number: String,
    /// What the origin is called: the device through which it is written, if there is one.
    pub origin: String,
    /// Whether it is being merged into its origin.
    pub merging: bool,
    /// Sectors in a chunk; 0 if unknown.
    pub chunk_size: u64,
    /// Its status.
    pub state: Live,
    /// What it says of itself, if it knows how.
    pub figures: Option<Figures>,
}

impl Active {
    /// `None` if the target is no snapshot.
    fn of(target: &Target) -> Option<Self> {
        if target.kind == Kind::Origin {
            return None;
        }
        // ORIGIN COW P CHUNKSIZE
        let mut words = target.table.split_ascii_whitespace();
        let origin = words.next().unwrap_or_default();
        let cow = words.next().unwrap_or_default();
        let chunk_size = words.nth(1).and_then(|word| word.parse().ok());
        let figures = target.answer.as_deref().and_then(Figures::parse);
        Some(Self {
            name: target.device.clone(),
            start: target.start,
            disk: None,
            cow_number: cow.into(),
            origin_number: origin.into(),
            origin: origin.into(),
            merging: target.kind == Kind::Merge,
            chunk_size: chunk_size.unwrap_or(0),
            state: Live::parse(&target.status, &target.table),
            figures,
        })
    }

    /// Whether it is what `earlier` was, and no snapshot that was made since with the same name.
    pub fn continues(&self, earlier: &Self) -> bool {
        (&self.name, self.start, self.disk) == (&earlier.name, earlier.start, earlier.disk)
            && self.merging == earlier.merging
            && self.origin_number == earlier.origin_number
            && self.cow_number == earlier.cow_number
    }

    /// Chunks that a merge has not merged yet, if that is known.
    pub fn left(&self) -> Option<u64> {
        let told = self.figures.as_ref().and_then(|f| f.get("exceptions"));
        told.or_else(|| match &self.state {
            Live::Active(usage) => usage
                .used
                .saturating_sub(usage.metadata)
                .checked_div(self.chunk_size),
            Live::Other(_) => None,
        })
    }
}

/// Asks for the snapshot called `name`.
pub fn active(mapper: &Mapper, name: &str) -> Result<Active> {
    let refused = |what| Error::Refused(format!("{name}: {what}"));
    let targets = mapper.targets(name)?;
    let targets = targets.ok_or_else(|| refused("there is no such file or active device"))?;
    only_one(&targets).map_err(refused)
}

/// The snapshot among a device's `targets`, or what is wrong.
fn only_one(targets: &[Target]) -> std::result::Result<Active, &'static str> {
    let mut found = targets.iter().filter_map(Active::of);
    let first = found.next().ok_or("it is no snapshot")?;
    match found.next() {
        Some(_) => Err("it has several snapshots, of which snap_top tells"),
        None => Ok(first),
    }
}

/// Asks for all that are active, by their names. What goes away meanwhile is left out.
pub fn all(mapper: &Mapper) -> Result<Vec<Active>> {
    let devices = mapper.devices()?;
    let mut targets = Vec::new();
    for device in &devices {
        targets.extend(mapper.targets(&device.name)?.unwrap_or_default());
    }
    Ok(with_names(&devices, &targets))
}

/// The snapshots among `targets`, which know what their origins are called.
fn with_names(devices: &[Mapped], targets: &[Target]) -> Vec<Active> {
    let mut found: Vec<Active> = targets.iter().filter_map(Active::of).collect();
    for active in &mut found {
        let device = devices.iter().find(|device| device.name == active.name);
        active.disk = device.and_then(|device| disk(&device.number));
        // What stands above the origin, as LVM arranges it: VG-LV on VG-LV-real.
        let above = targets.iter().find(|target| {
            let is_above = matches!(target.kind, Kind::Origin | Kind::Merge);
            let below = target.table.split_ascii_whitespace().next();
            is_above && below == Some(&active.origin_number)
        });
        let same = |device: &&Mapped| device.number == active.origin_number;
        let name = above.map(|target| target.device.clone());
        let name = name.or_else(|| Some(devices.iter().find(same)?.name.clone()));
        if let Some(name) = name.or_else(|| kernel_name(&active.origin_number)) {
            active.origin = name;
        }
    }
    found.sort_by(|a, b| (&a.name, a.start).cmp(&(&b.name, b.start)));
    found
}

/// The number of a block device's disk. It is read from sysfs: device-mapper does not tell.
fn disk(number: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/sys/dev/block/{number}/diskseq")).ok()?;
    text.trim().parse().ok()
}

/// The kernel's name of the block device with this number, `sda1`.
fn kernel_name(number: &str) -> Option<String> {
    let device = fs::read_link(format!("/sys/dev/block/{number}")).ok()?;
    Some(device.file_name()?.to_str()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stat::Usage;

    fn target(device: &str, kind: Kind, status: &str, table: &str) -> Target {
        Target {
            device: device.into(),
            start: 0,
            kind,
            status: status.into(),
            table: table.into(),
            answer: None,
        }
    }

    #[test]
    fn names_the_origin_by_what_it_is_written_through() {
        let devices = ["vg-lv", "vg-lv-real", "vg-snap", "vg-other"];
        let devices: Vec<Mapped> = devices
            .into_iter()
            .enumerate()
            .map(|(minor, name)| Mapped {
                name: name.into(),
                number: format!("254:{minor}"),
            })
            .collect();
        let snap = |name, table| target(name, Kind::Snapshot, "16/80 16", table);
        let real = snap("vg-snap", "254:1 254:7 P 8");
        let origins = |targets: &[Target]| -> Vec<String> {
            let found = with_names(&devices, targets);
            found.into_iter().map(|active| active.origin).collect()
        };
        let origin = target("vg-lv", Kind::Origin, "", "254:1");
        assert_eq!(origins(&[real.clone(), origin]), ["vg-lv"]);
        let merge = target("vg-lv", Kind::Merge, "16/80 16", "254:1 254:9 P 8");
        assert_eq!(origins(&[merge, real.clone()]), ["vg-lv", "vg-lv"]);
        assert_eq!(origins(&[real]), ["vg-lv-real"]);
        assert_eq!(origins(&[snap("x", "4095:9 254:7 P 8")]), ["4095:9"]);
        assert_eq!(origins(&[target("x", Kind::Origin, "", "254:1")]), [""; 0]);
    }

    #[test]
    fn several_in_a_device_are_told_apart() {
        let second = Target {
            start: 8,
            ..target("two", Kind::Snapshot, "16/80 16", "254:1 254:3 P 8")
        };
        let first = target("two", Kind::Snapshot, "16/80 16", "254:1 254:2 P 8");
        let origin = target("two", Kind::Origin, "", "254:1");
        let found = with_names(&[], &[second.clone(), first.clone()]);
        assert_eq!([found[0].start, found[1].start], [0, 8]);
        assert!(!found[0].continues(&found[1]));
        assert!(only_one(&[first.clone(), second.clone()]).is_err());
        assert!(only_one(&[origin.clone()]).is_err() && only_one(&[]).is_err());
        assert_eq!(only_one(&[origin, second]).unwrap().start, 8);
    }

    #[test]
    fn a_name_may_be_anothers_by_now() {
        let of = |kind, table: &str, disk| Active {
            disk,
            ..Active::of(&target("a", kind, "16/80 16", table)).unwrap()
        };
        let then = of(Kind::Snapshot, "254:1 254:2 P 8", Some(7));
        assert!(then.continues(&then));
        for other in [
            of(Kind::Snapshot, "254:1 254:2 P 8", Some(8)),
            of(Kind::Snapshot, "254:1 254:3 P 8", Some(7)),
            of(Kind::Snapshot, "254:4 254:2 P 8", Some(7)),
            of(Kind::Merge, "254:1 254:2 P 8", Some(7)),
        ] {
            assert!(!other.continues(&then), "{other:?}");
        }
    }

    #[test]
    fn reads_a_target() {
        let mut merge = target("m", Kind::Merge, "800/4000 32", "254:1 254:2 PO 8");
        let of_c = Active::of(&merge).unwrap();
        assert_eq!((of_c.chunk_size, of_c.merging), (8, true));
        assert_eq!((of_c.left(), &of_c.figures), (Some(96), &None));
        let usage = Usage {
            chunk_size: 8,
            total: 4000,
            used: 800,
            metadata: 32,
        };
        assert_eq!(of_c.state, Live::Active(usage));
        merge.answer = Some("exceptions 95\nmerged 5\n".into());
        let ours = Active::of(&merge).unwrap();
        assert_eq!(ours.left(), Some(95));
        let failed = target("m", Kind::Merge, "Merge failed", "254:1 254:2 P 0");
        assert_eq!(Active::of(&failed).unwrap().left(), None);
    }
}

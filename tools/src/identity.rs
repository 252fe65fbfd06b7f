// SPDX-License-Identifier: GPL-2.0-only

//! Which bytes a file or device stands for, whatever it is called.
//!
//! A loop device is the file behind it, a partition a part of its disk, and both can be reached by
//! several names. Two names of the same bytes must be known for such before one of them is
//! written.

use rustix::fs::{major, makedev, minor};
use std::fs::{self, Metadata};
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The bytes that a file or device stands for: its own, and those below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity(Vec<Part>);

/// Bytes of one file or block device.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    owner: Owner,
    bytes: Range<u64>,
    /// Whether it is exactly these bytes, and not just some of them.
    exact: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// Device number of the file system, inode.
    File(u64, u64),
    /// The block device's own number.
    Device(u64),
}

impl Identity {
    /// How many devices may lie one below the other.
    const MAX_DEPTH: u32 = 16;

    /// That of the file or device of which `meta` tells.
    pub fn new(meta: &Metadata) -> Self {
        let owner = Owner::of(meta);
        let sectors = match owner {
            Owner::File(..) => None,
            Owner::Device(number) => read_number(&directory_of(number).join("size")),
        };
        let bytes = sectors.map_or(u64::MAX, |sectors| sectors.saturating_mul(512));
        let mut parts = Vec::new();
        add(&mut parts, owner, 0..bytes, true, Self::MAX_DEPTH);
        Self(parts)
    }

    /// Whether it can be known: what a block device is a part of, or holds, is in sysfs.
    pub fn is_told(meta: &Metadata) -> bool {
        match Owner::of(meta) {
            Owner::File(..) => true,
            Owner::Device(number) => directory_of(number).is_dir(),
        }
    }

    /// That of what `path` names, links followed; of nothing where there is no such file.
    pub fn of_path(path: &Path) -> Self {
        fs::metadata(path).map_or_else(|_| Self::default(), |meta| Self::new(&meta))
    }

    /// Whether a write to one may change the other.
    ///
    /// Two logical volumes on one disk share no byte as far as can be known: device-mapper sees
    /// to that.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().any(|a| {
            other.0.iter().any(|b| {
                a.owner == b.owner
                    && (a.exact || b.exact)
                    && a.bytes.start < b.bytes.end
                    && b.bytes.start < a.bytes.end
            })
        })
    }
}

impl Owner {
    fn of(meta: &Metadata) -> Self {
        if meta.file_type().is_block_device() {
            Self::Device(meta.rdev())
        } else {
            Self::File(meta.dev(), meta.ino())
        }
    }
}

/// Adds `bytes` of `owner`, and what they are on the devices and files below.
fn add(parts: &mut Vec<Part>, owner: Owner, bytes: Range<u64>, exact: bool, depth: u32) {
    parts.push(Part {
        owner,
        bytes: bytes.clone(),
        exact,
    });
    let Owner::Device(number) = owner else {
        return;
    };
    if depth == 0 {
        return;
    }
    let directory = directory_of(number);
    let shifted = |by: u64| bytes.start.saturating_add(by)..bytes.end.saturating_add(by);
    if let Some(start) = read_number(&directory.join("partition"))
        .and_then(|_| read_number(&directory.join("start")))
    {
        // The link leads to the partition's directory in its disk's.
        let disk = fs::canonicalize(&directory)
            .ok()
            .and_then(|directory| read_device(&directory.join("../dev")));
        if let Some(disk) = disk {
            let bytes = shifted(start.saturating_mul(512));
            add(parts, Owner::Device(disk), bytes, exact, depth - 1);
        }
    } else if let Ok(file) = fs::read(directory.join("loop/backing_file")) {
        let offset = read_number(&directory.join("loop/offset")).unwrap_or(0);
        if let Ok(meta) = fs::metadata(backing_path(&file)) {
            add(parts, Owner::of(&meta), shifted(offset), exact, depth - 1);
        }
    } else if let Ok(below) = fs::read_dir(directory.join("slaves")) {
        for entry in below.flatten() {
            if let Some(number) = read_device(&entry.path().join("dev")) {
                add(parts, Owner::Device(number), 0..u64::MAX, false, depth - 1);
            }
        }
    }
}

/// The name of the COW device, where the block device of `meta` is not that but the snapshot, as
/// LVM makes it.
pub fn cow_of_snapshot(meta: &Metadata) -> Option<String> {
    match Owner::of(meta) {
        Owner::Device(number) => cow_below(&directory_of(number)),
        Owner::File(..) => None,
    }
}

/// The same, of the device of which `directory` in sysfs tells.
fn cow_below(directory: &Path) -> Option<String> {
    let below = fs::read_dir(directory.join("slaves")).ok()?;
    let cow = below.flatten().find(|entry| {
        let uuid = fs::read_to_string(entry.path().join("dm/uuid")).unwrap_or_default();
        uuid.starts_with("LVM-") && uuid.trim().ends_with("-cow")
    })?;
    let name = fs::read_to_string(cow.path().join("dm/name")).ok()?;
    Some(name.trim().into())
}

/// What sysfs has of a block device.
pub fn directory_of(number: u64) -> PathBuf {
    let (major, minor) = (major(number), minor(number));
    format!("/sys/dev/block/{major}:{minor}").into()
}

/// The loop device that holds the file of `meta`, if there is one.
pub fn holding_loop(meta: &Metadata) -> Option<PathBuf> {
    let owner = Owner::of(meta);
    let devices = fs::read_dir("/sys/block").ok()?;
    let holds = |path: &Path| {
        let file = fs::read(path.join("loop/backing_file")).ok()?;
        let meta = fs::metadata(backing_path(&file)).ok()?;
        (Owner::of(&meta) == owner).then_some(())
    };
    let device = devices
        .flatten()
        .find(|entry| holds(&entry.path()).is_some())?;
    Some(Path::new("/dev").join(device.file_name()))
}

/// The path in a `backing_file`, which ends with a newline.
fn backing_path(line: &[u8]) -> PathBuf {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    OsStr::from_bytes(line.strip_suffix(b"\n").unwrap_or(line)).into()
}

fn read_number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The device number in a file `dev` of sysfs.
fn read_device(path: &Path) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some(makedev(major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(parts: &[(Owner, Range<u64>, bool)]) -> Identity {
        let parts = parts.iter().map(|(owner, bytes, exact)| Part {
            owner: *owner,
            bytes: bytes.clone(),
            exact: *exact,
        });
        Identity(parts.collect())
    }

    #[test]
    fn knows_a_snapshot_from_its_cow_device() {
        let dir = tempfile::tempdir().unwrap();
        let below = |device: &str, uuid: &str| {
            let dm = dir.path().join(device).join("slaves/dm-7/dm");
            fs::create_dir_all(&dm).unwrap();
            fs::write(dm.join("uuid"), format!("{uuid}\n")).unwrap();
            fs::write(dm.join("name"), "vg-snap-cow\n").unwrap();
            cow_below(&dir.path().join(device))
        };
        assert_eq!(below("snap", "LVM-abc-cow"), Some("vg-snap-cow".into()));
        assert_eq!(below("origin", "LVM-abc-real"), None);
        assert_eq!(below("mine", "abc-cow"), None);
        assert_eq!(cow_below(dir.path()), None);
    }

    #[test]
    fn knows_the_same_bytes() {
        let disk = Owner::Device(7);
        let whole = identity(&[(disk, 0..1000, true)]);
        let first = identity(&[(Owner::Device(8), 0..500, true), (disk, 0..500, true)]);
        let second = identity(&[(Owner::Device(9), 0..500, true), (disk, 500..1000, true)]);
        assert!(whole.overlaps(&first) && second.overlaps(&whole) && first.overlaps(&first));
        assert!(!first.overlaps(&second));
        let volume = |number| {
            let own = (Owner::Device(number), 0..100, true);
            identity(&[own, (disk, 0..u64::MAX, false)])
        };
        assert!(!volume(20).overlaps(&volume(21)));
        assert!(volume(20).overlaps(&whole) && volume(20).overlaps(&volume(20)));
        let none = Identity::default();
        assert!(!none.overlaps(&whole) && !none.overlaps(&none));
    }
}

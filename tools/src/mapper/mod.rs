// SPDX-License-Identifier: GPL-2.0-only

//! Device-mapper, asked for the snapshots that are active.
//!
//! Two ways to make one type: with the feature `live` it asks through device-mapper's ioctl, without
//! it says so.

#[cfg(feature = "live")]
mod ioctl;
#[cfg(not(feature = "live"))]
mod missing;

#[cfg(feature = "live")]
pub use ioctl::Mapper;
#[cfg(not(feature = "live"))]
pub use missing::Mapper;

/// A mapped device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Its device-mapper name.
    pub name: String,
    /// Its number as tables have it, `254:1`.
    pub number: String,
}

/// A target of dm-snapshot in a device's live table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The device's name.
    pub device: String,
    /// The first sector of the device that is this target's.
    pub start: u64,
    /// Which of the targets it is.
    pub kind: Kind,
    /// Its status line.
    pub status: String,
    /// Its parameters in the table.
    pub table: String,
    /// What a snapshot answers to the message `stats`; the kernel's own knows no messages.
    pub answer: Option<String>,
}

/// The targets of dm-snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `snapshot`
    Snapshot,
    /// `snapshot-merge`
    Merge,
    /// `snapshot-origin`
    Origin,
}

impl Kind {
    /// The target that device-mapper knows by `name`, if it is one of these.
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "snapshot" => Some(Self::Snapshot),
            "snapshot-merge" => Some(Self::Merge),
            "snapshot-origin" => Some(Self::Origin),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_targets() {
        for (name, kind) in [
            ("snapshot", Some(Kind::Snapshot)),
            ("snapshot-merge", Some(Kind::Merge)),
            ("snapshot-origin", Some(Kind::Origin)),
            ("linear", None),
            ("snapshots", None),
        ] {
            assert_eq!(Kind::of(name), kind);
        }
    }
}

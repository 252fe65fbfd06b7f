// SPDX-License-Identifier: GPL-2.0-only

//! Snapshots by the names that LVM knows them by.
//!
//! LVM keeps a snapshot's COW device to itself: while the snapshot is active it is in use, else it
//! is not there. So it is taken out of the snapshot, activated like any volume, worked on, and put
//! back, all by LVM's own commands. Whatever a tool comes to, what was taken is put back when it
//! ends.
//!
//! # What is refused
//!
//! A snapshot that is active, or whose origin is: somebody may write to either. One that is being
//! merged: LVM would go on with that when its origin is activated. One of a thin volume, which has
//! no COW device. A snapshot as an output: what is written there would not be its COW device.

use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::report::{say, Report};
use serde::Deserialize;
use std::cell::RefCell;
use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The chunk sizes that LVM's snapshots may have, in sectors.
pub const CHUNK_SECTORS: RangeInclusive<u32> = 8..=1024;

/// The chunk size as `lvcreate -c` takes it, if LVM has chunks of that size.
pub fn chunk_option(sectors: u32) -> Option<String> {
    CHUNK_SECTORS
        .contains(&sectors)
        .then(|| format!("{}k", sectors / 2))
}

/// A volume group and a logical volume in it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    group: String,
    volume: String,
}

impl Name {
    /// The name that `path` is: `VG/LV` or `/dev/VG/LV`, of which there is neither a file nor the
    /// directory that it would be in.
    fn of(path: &Path) -> Option<Self> {
        let text = path.to_str()?;
        let (group, volume) = text.strip_prefix("/dev/").unwrap_or(text).split_once('/')?;
        // LVM's own rule for both.
        let is_name = |name: &str| {
            let may = |c: char| c.is_ascii_alphanumeric() || "+_.-".contains(c);
            !name.is_empty() && !name.starts_with(['-', '.']) && name.chars().all(may)
        };
        if !is_name(group) || !is_name(volume) || path.symlink_metadata().is_ok() {
            return None;
        }
        let is_absolute = path.is_absolute();
        let is_file_to_be = !is_absolute && Path::new(group).symlink_metadata().is_ok();
        (!is_file_to_be).then(|| Self {
            group: group.into(),
            volume: volume.into(),
        })
    }

    /// Another volume of the same group.
    fn beside(&self, volume: &str) -> Self {
        Self {
            group: self.group.clone(),
            volume: volume.into(),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.group, self.volume)
    }
}

/// What LVM says of a volume.
#[derive(Clone, Debug, Deserialize)]
struct Volume {
    lv_attr: String,
    lv_path: PathBuf,
    /// The origin's volume name; empty where there is none.
    origin: String,
    /// Sectors; 0 where it is no snapshot.
    chunk_size: String,
}

#[derive(Deserialize)]
struct Answer {
    report: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    lv: Vec<Volume>,
}

/// What kind of volume it is, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Snapshot,
    Merging,
    Thin,
    Other,
}

impl Volume {
    fn ask(name: &Name) -> Result<Self> {
        let fields = "lv_attr,lv_path,origin,chunk_size";
        let mut command = Command::new("lvm");
        command.args([
            "lvs",
            "--reportformat",
            "json",
            "--units",
            "s",
            "--nosuffix",
        ]);
        command.args(["-o", fields, &name.to_string()]);
        let answer = run(command).map_err(|e| match e {
            Failed::NotStarted(e) => Error::Refused(format!(
                "{name}: there is no such file, and LVM cannot be asked for a volume: {e}"
            )),
            Failed::Said(what) if what.is_empty() => {
                Error::Refused(format!("{name}: there is no such file, nor volume"))
            }
            Failed::Said(what) => {
                Error::Refused(format!("{name}: there is no such file, nor volume: {what}"))
            }
        })?;
        let parsed: Option<Answer> = serde_json::from_slice(&answer).ok();
        let group = parsed.and_then(|answer| answer.report.into_iter().next());
        let mut group =
            group.ok_or_else(|| Error::Refused(format!("{name}: cannot read what LVM answers")))?;
        // LVM hides a volume under this name only for as long as it is merged.
        group.lv.pop().ok_or_else(|| {
            Error::Refused(format!(
                "{name}: it is being merged into its origin: activate that and wait until the \
                 snapshot is gone"
            ))
        })
    }

    fn kind(&self) -> Kind {
        match self.lv_attr.chars().next() {
            Some('s') => Kind::Snapshot,
            Some('S' | 'O') => Kind::Merging,
            Some('V' | 't') => Kind::Thin,
            _ => Kind::Other,
        }
    }

    fn is_active(&self) -> bool {
        self.lv_attr.chars().nth(4) != Some('-')
    }

    /// In KiB, as lvconvert takes it: LVM has no chunks of less.
    fn chunk_kib(&self) -> Option<u64> {
        let sectors: u64 = self.chunk_size.parse().ok()?;
        (sectors >= 2).then_some(sectors / 2)
    }
}

/// A snapshot whose COW device was taken out of it.
#[derive(Clone, Debug)]
struct Taken {
    snapshot: Name,
    origin: Name,
    chunk_kib: u64,
}

impl Taken {
    fn split(&self) -> [String; 4] {
        let name = self.snapshot.to_string();
        ["lvconvert", "-y", "--splitsnapshot", &name].map(String::from)
    }

    fn deactivate(&self) -> [String; 4] {
        let (snapshot, origin) = (self.snapshot.to_string(), self.origin.to_string());
        ["lvchange", "-an", &snapshot, &origin].map(String::from)
    }

    /// With -Zn: LVM would else wipe the header.
    fn join(&self) -> [String; 8] {
        let chunk = format!("{}k", self.chunk_kib);
        let (snapshot, origin) = (self.snapshot.to_string(), self.origin.to_string());
        [
            "lvconvert",
            "-y",
            "-s",
            "-Zn",
            "-c",
            &chunk,
            &origin,
            &snapshot,
        ]
        .map(String::from)
    }
}

/// A COW device that a user named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Where it can be opened.
    pub cow: PathBuf,
    /// Where its origin can be, if LVM knows it.
    pub origin: Option<PathBuf>,
}

/// The volumes that a tool works on.
pub struct Volumes<'a> {
    report: &'a Report,
    taken: RefCell<Vec<Taken>>,
}

impl<'a> Volumes<'a> {
    /// None yet; what is done with them is told to `report`.
    pub fn new(report: &'a Report) -> Self {
        Self {
            report,
            taken: RefCell::new(Vec::new()),
        }
    }

    /// The COW devices that `paths` name, by LVM's names or as they stand. A snapshot's is taken
    /// out of it until [`Volumes::finish`]. To be called once: what it activates is in use for a
    /// second call.
    pub fn cows(&self, paths: &[&Path]) -> Result<Vec<Named>> {
        let asked: Vec<(&Path, Option<(Name, Volume)>)> = paths
            .iter()
            .map(|path| Ok((*path, ask(path)?)))
            .collect::<Result<_>>()?;
        let mut named = Vec::new();
        let mut take = Vec::new();
        for (path, volume) in asked {
            let plain = |cow: &Path| Named {
                cow: cow.into(),
                origin: None,
            };
            let Some((name, volume)) = volume else {
                named.push(plain(path));
                continue;
            };
            if volume.kind() == Kind::Other {
                named.push(plain(&active_path(&name, &volume)?));
                continue;
            }
            let (taken, origin) = may_take(name, &volume)?;
            take.push(taken);
            named.push(Named {
                cow: volume.lv_path,
                origin: Some(origin.lv_path),
            });
        }
        if !take.is_empty() {
            self.take(take)?;
        }
        Ok(named)
    }

    /// The COW device that `path` names; see [`Volumes::cows`].
    pub fn cow(&self, path: &Path) -> Result<Named> {
        let mut named = self.cows(&[path])?;
        named.pop().ok_or(Error::NoMemory)
    }

    /// The device that `path` names, by LVM's name or as it stands; an origin, say.
    pub fn device(&self, path: &Path) -> Result<PathBuf> {
        match ask(path)? {
            Some((name, volume)) => active_path(&name, &volume),
            None => Ok(path.into()),
        }
    }

    /// The origin: the one that LVM knows the snapshot to have, or the one that `path` names.
    pub fn origin(&self, named: &Named, path: Option<&Path>) -> Result<Option<PathBuf>> {
        match (&named.origin, path) {
            (Some(_), Some(path)) => Err(Error::Refused(format!(
                "{}: LVM knows the snapshot's origin; leave out --origin",
                path.display()
            ))),
            (Some(origin), None) => Ok(Some(origin.clone())),
            (None, path) => path.map(|path| self.device(path)).transpose(),
        }
    }

    /// What a tool is going to write.
    pub fn output(&self, path: &Path) -> Result<PathBuf> {
        let Some((name, volume)) = ask(path)? else {
            return Ok(path.into());
        };
        if volume.kind() == Kind::Other {
            return active_path(&name, &volume);
        }
        Err(Error::Refused(format!(
            "{name}: it is a snapshot, and must not be written over; lvconvert --splitsnapshot \
             makes its COW device a volume of its own"
        )))
    }

    fn take(&self, take: Vec<Taken>) -> Result<()> {
        // From now on a signal must not end the process at once.
        let interrupt = Interrupt::watch()?;
        for taken in take {
            self.report.info(format_args!(
                "{}: taken out of the snapshot for now; if this should be killed, put it back \
                 with: {}; {}",
                taken.snapshot,
                shown(&taken.deactivate()),
                shown(&taken.join())
            ));
            self.taken.borrow_mut().push(taken.clone());
            lvm(&taken.split())?;
        }
        for taken in self.taken.borrow().iter() {
            let names = [taken.snapshot.to_string(), taken.origin.to_string()];
            lvm(&["lvchange", "-ay", "-K", &names[0], &names[1]].map(String::from))?;
        }
        if interrupt.asked() {
            return Err(Error::Interrupted("nothing was done".into()));
        }
        Ok(())
    }

    /// Puts back what was taken. Nothing of it must be open any more.
    pub fn finish(&self) -> Result<()> {
        let all = self.taken.take();
        let mut failed = Ok(());
        for taken in &all {
            // All of them, before the first gets its origin back.
            failed = failed.and(lvm(&taken.deactivate()));
        }
        for taken in all {
            // A split that failed took nothing.
            let is_taken = Volume::ask(&taken.snapshot).map(|v| v.kind() == Kind::Other);
            let joined = match is_taken {
                Ok(false) => Ok(()),
                _ => lvm(&taken.join()),
            };
            if joined.is_err() {
                say(format_args!(
                    "{} is not a snapshot again: put it back with: {}; {}",
                    taken.snapshot,
                    shown(&taken.deactivate()),
                    shown(&taken.join())
                ));
            }
            failed = failed.and(joined);
        }
        failed
    }
}

/// What LVM says of the volume that `path` names, if it names one.
fn ask(path: &Path) -> Result<Option<(Name, Volume)>> {
    let Some(name) = Name::of(path) else {
        return Ok(None);
    };
    let volume = Volume::ask(&name)?;
    Ok(Some((name, volume)))
}

/// Where to open a volume that is used as it is.
fn active_path(name: &Name, volume: &Volume) -> Result<PathBuf> {
    if volume.is_active() {
        return Ok(volume.lv_path.clone());
    }
    Err(Error::Refused(format!(
        "{name}: it is not active; lvchange -ay {name} makes it so"
    )))
}

/// Decides whether the COW device of a snapshot may be taken; returns what to take, and its origin.
fn may_take(name: Name, volume: &Volume) -> Result<(Taken, Volume)> {
    let refused = |why: &str| Err(Error::Refused(format!("{name}: {why}")));
    match volume.kind() {
        Kind::Thin => return refused("it is a thin volume, whose snapshots have no COW device"),
        Kind::Merging => {
            return refused(
                "it is being merged; LVM goes on with that when its origin is activated",
            );
        }
        Kind::Snapshot | Kind::Other => {}
    }
    let origin_name = name.beside(&volume.origin);
    let origin = Volume::ask(&origin_name)?;
    if origin.kind() == Kind::Merging {
        return refused("another snapshot of its origin is being merged");
    }
    if volume.is_active() || origin.is_active() {
        return refused(&format!(
            "the snapshot or its origin is active; unmount them and give lvchange -an \
             {origin_name}, then run this again"
        ));
    }
    let Some(chunk_kib) = volume.chunk_kib() else {
        return refused("LVM does not tell its chunk size");
    };
    let taken = Taken {
        snapshot: name,
        origin: origin_name,
        chunk_kib,
    };
    Ok((taken, origin))
}

/// A command line as a user would type it.
fn shown(words: &[String]) -> String {
    words.join(" ")
}

/// Why a command of LVM's failed.
enum Failed {
    NotStarted(io::Error),
    Said(String),
}

/// Runs a command to its end; returns what it wrote.
fn run(mut command: Command) -> std::result::Result<Vec<u8>, Failed> {
    let done = command
        // What a terminal's Ctrl-C reaches is us alone.
        .process_group(0)
        .stdin(Stdio::null())
        .output()
        .map_err(Failed::NotStarted)?;
    if done.status.success() {
        return Ok(done.stdout);
    }
    let said = String::from_utf8_lossy(&done.stderr);
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    Err(Failed::Said(lines.join("; ")))
}

/// Runs one of LVM's commands that change something.
fn lvm(words: &[String]) -> Result<()> {
    let mut command = Command::new("lvm");
    command.args(words);
    match run(command) {
        Ok(_) => Ok(()),
        Err(Failed::NotStarted(source)) => Err(Error::file(Path::new("lvm"), "run", source)),
        Err(Failed::Said(what)) => Err(Error::Refused(format!("{} failed: {what}", shown(words)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_names_from_paths() {
        let name = |path: &str| Name::of(Path::new(path)).map(|name| name.to_string());
        assert_eq!(name("vg/snap"), Some("vg/snap".into()));
        assert_eq!(name("/dev/vg/snap"), Some("vg/snap".into()));
        assert_eq!(name("my-vg/a+b_c.d"), Some("my-vg/a+b_c.d".into()));
        for path in [
            "snap",
            "vg/",
            "/snap",
            "/dev/null",
            "/dev/snap",
            "a/b/c",
            "./snap",
            "../snap",
            "-vg/snap",
            "/vg/snap",
            "vg/a b",
            // There are such directories here.
            "src/new",
            "src/lib.rs",
        ] {
            assert_eq!(name(path), None, "{path}");
        }
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! Snapshots by LVM's names: what is refused, and that what was taken is put back, whatever
//! happens. `lvm` is a script here, whose volumes are files; tests/vm/lvm has the real one.

mod common;

use common::{fails, ok, run, tool, Image, Ran};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use tempfile::{tempdir, TempDir};

/// Knows `vg/NAME` if there is a file NAME.lv with its attributes, origin and chunk size in
/// sectors; notes what it is told to change; fails at what matches the pattern in the file `fail`.
/// Split and joined, a snapshot changes its first attribute. `lvchange` fails while a tool has the
/// file open, as it would with a device.
const LVM: &str = r#"#!/bin/bash
cd "$(dirname "$0")" || exit 9
name=${!#}
name=${name#vg/}
if [ "$1" = lvs ]; then
	[ -e "$name.lv" ] || { echo "Failed to find logical volume \"vg/$name\"" >&2; exit 5; }
	[ -s "$name.lv" ] || { echo '{"report":[{"lv":[]}],"log":[]}'; exit; } # hidden
	read -r attr origin chunk < "$name.lv"
	[ "$origin" != none ] || origin=
	printf '{"report":[{"lv":[{"lv_attr":"%s","lv_path":"%s",' "$attr" "$PWD/$name"
	printf '"origin":"%s","chunk_size":"%s"}]}],"log":[]}\n' "$origin" "$chunk"
	exit
fi
echo "$*" >> log
if [ -e fail ] && grep -qf fail <<< "$*"; then
	echo "  no luck" >&2
	exit 5
fi
case "$*" in
*--splitsnapshot*) sed -i 's/^s/-/' "$name.lv" ;;
"lvconvert -y -s"*) sed -i 's/^-/s/' "$name.lv" ;;
"lvchange -an"*) flock -n -x "$name" true || { echo "  in use" >&2; exit 5; } ;;
esac
"#;

const TAKE: [&str; 2] = [
    "lvconvert -y --splitsnapshot vg/snap",
    "lvchange -ay -K vg/snap vg/origin",
];
const PUT_BACK: [&str; 2] = [
    "lvchange -an vg/snap vg/origin",
    "lvconvert -y -s -Zn -c 4k vg/origin vg/snap",
];

struct Group {
    dir: TempDir,
    image: Image,
}

impl Group {
    fn new() -> Self {
        let group = Self {
            dir: tempdir().unwrap(),
            image: Image::of(8, &[3, 4, 9]),
        };
        group.image.write_cow(&group.path("snap"));
        group.image.write_origin(&group.path("origin"));
        group.volume("snap", "swi---s---", "origin", 8);
        group.volume("origin", "owi---s---", "none", 0);
        fs::write(group.path("lvm"), LVM).unwrap();
        fs::set_permissions(group.path("lvm"), PermissionsExt::from_mode(0o755)).unwrap();
        group
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn volume(&self, name: &str, attributes: &str, origin: &str, chunk: u32) {
        let text = format!("{attributes} {origin} {chunk}\n");
        fs::write(self.path(&format!("{name}.lv")), text).unwrap();
    }

    fn tool(&self, arguments: &[&str]) -> Command {
        let mut path = self.dir.path().as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap());
        let mut command = tool(arguments[0]);
        command.args(&arguments[1..]).env("PATH", path);
        command.current_dir(&self.dir);
        command
    }

    /// What LVM was told to change since the last call.
    fn log(&self) -> Vec<String> {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        let _ = fs::remove_file(self.path("log"));
        log.lines().map(str::to_owned).collect()
    }

    /// Whether `vg/snap` is a snapshot.
    fn is_snapshot(&self) -> bool {
        fs::read_to_string(self.path("snap.lv"))
            .unwrap()
            .starts_with('s')
    }

    /// The COW device was taken and put back, nothing else.
    fn was_put_back(&self, ran: &Ran) {
        assert_eq!(self.log(), [TAKE, PUT_BACK].concat(), "{ran:?}");
        assert!(self.is_snapshot());
    }
}

#[test]
fn every_tool_takes_names() {
    let group = Group::new();
    let sound = group.image.snapshot();
    for (arguments, says) in [
        (&["check", "vg/snap"][..], "would load"),
        (&["check", "/dev/vg/snap"], "would load"),
        (&["dump", "vg/snap"], "end 3"),
        (&["stat", "vg/snap"], "advice"),
        (&["delta", "--compare", "vg/snap"], "24 "),
        (&["repair", "--dry-run", "-i", "vg/snap"], ""),
        (&["repair", "-i", "vg/snap", "-o", "repaired"], ""),
        (&["export", "-i", "vg/snap", "-o", "image"], ""),
        (&["export", "--cow-only", "-i", "vg/snap", "-o", "part"], ""),
        (&["send", "-i", "vg/snap", "-o", "whole.stream"], ""),
        (&["send", "--base", "vg/snap", "-o", "since.stream"], ""),
        (&["merge", "--dry-run", "-i", "vg/snap"], ""),
        (&["merge", "-i", "vg/snap"], ""),
    ] {
        let ran = ok(&mut group.tool(arguments));
        assert!(ran.stdout.contains(says), "{arguments:?}: {ran:?}");
        group.was_put_back(&ran);
        // Whoever kills it knows what to do.
        assert!(ran.stderr.contains(&PUT_BACK.join("; ")), "{ran:?}");
    }
    assert!(fs::read(group.path("image")).unwrap() == sound);
    assert!(fs::read(group.path("origin")).unwrap() == sound);
    for (stream, content) in [("whole", &sound), ("since", &group.image.origin())] {
        let stream = format!("{stream}.stream");
        ok(&mut group.tool(&["receive", "-i", &stream, "-o", "copy"]));
        assert!(fs::read(group.path("copy")).unwrap() == *content);
    }
}

#[test]
fn the_origin_is_known() {
    let group = Group::new();
    // Beyond the end of the origin: its size is known.
    let mut image = group.image.clone();
    image.records[1].0 = 1 << 20;
    image.write_cow(&group.path("snap"));
    let ran = run(&mut group.tool(&["check", "vg/snap"]));
    let fault = "lies beyond the end of the origin";
    assert!(ran.stdout.contains(fault), "{ran:?}");
    group.was_put_back(&ran);
    for arguments in [
        ["check", "--origin-size=9", "vg/snap"],
        ["delta", "--origin-size=9", "vg/snap"],
        ["check", "--origin=origin", "vg/snap"],
    ] {
        let ran = fails(
            &mut group.tool(&arguments),
            "LVM knows the snapshot's origin",
        );
        group.was_put_back(&ran);
    }
    fails(
        &mut group.tool(&["export", "-i", "snap", "-o", "image"]),
        "give --origin",
    );
    fails(&mut group.tool(&["merge", "-i", "snap"]), "give --origin");
}

#[test]
fn two_snapshots_are_taken_together() {
    let group = Group::new();
    let mut other = Image::of(16, &[2]);
    other.origin_sectors = group.image.origin_sectors;
    other.write_cow(&group.path("other"));
    group.volume("other", "swi---s---", "origin", 16);
    let send = ["send", "-i", "vg/other", "--base", "vg/snap"];
    let sent = group.tool(&send).output().unwrap();
    assert!(sent.status.success() && sent.stdout.starts_with(b"snapsend"));
    assert_eq!(group.log().len(), 8);
    ok(&mut group.tool(&["delta", "vg/snap", "vg/other"]));
    let log = group.log();
    // Both before the origin is activated, which would activate what is still its snapshot.
    assert_eq!(
        log[..2],
        [
            "lvconvert -y --splitsnapshot vg/snap",
            "lvconvert -y --splitsnapshot vg/other"
        ]
    );
    assert_eq!(
        log[6..],
        [
            "lvconvert -y -s -Zn -c 4k vg/origin vg/snap",
            "lvconvert -y -s -Zn -c 8k vg/origin vg/other"
        ]
    );
    fails(
        &mut group.tool(&["delta", "vg/snap", "snap"]),
        "only one is given by LVM's name",
    );
}

#[test]
fn what_is_dangerous_is_refused() {
    let group = Group::new();
    for (snapshot, origin, why) in [
        ("swi-a-s---", "owi-a-s---", "is active"),
        ("swi-I-s---", "owi-a-s---", "is active"),
        ("swi---s---", "owi-a-s---", "is active"),
        ("swi-XXs---", "owi-XXs---", "is active"),
        ("Swi---s---", "Owi---s---", "it is being merged"),
        ("swi---s---", "Owi---s---", "is being merged"),
        ("Vwi---tz--", "Vwi---tz--", "thin volume"),
    ] {
        group.volume("snap", snapshot, "origin", 8);
        group.volume("origin", origin, "none", 0);
        for arguments in [
            &["check", "vg/snap"][..],
            &["merge", "-i", "vg/snap"],
            &["export", "-i", "/dev/vg/snap", "-o", "image"],
        ] {
            fails(&mut group.tool(arguments), why);
        }
    }
    group.volume("snap", "swi-a-s---", "origin", 8);
    fs::write(
        group.path("dump"),
        ok(&mut group.tool(&["dump", "snap"])).stdout,
    )
    .unwrap();
    let before = fs::read(group.path("snap")).unwrap();
    for arguments in [
        &["restore", "--force", "-i", "dump", "-o", "vg/snap"][..],
        &["repair", "--force", "-i", "snap", "-o", "vg/snap"],
        &["dump", "--force", "snap", "-o", "/dev/vg/snap"],
        &[
            "export", "--force", "-i", "snap", "--origin", "origin", "-o", "vg/snap",
        ],
        &["receive", "--force", "-i", "dump", "-o", "vg/snap"],
    ] {
        let ran = fails(&mut group.tool(arguments), "must not be written over");
        assert!(!ran.stderr.contains("taken out"), "{ran:?}");
    }
    assert!(fs::read(group.path("snap")).unwrap() == before);
    fails(
        &mut group.tool(&["check", "vg/none"]),
        "vg/none: there is no such file, nor volume",
    );
    // LVM hides what is being merged.
    fs::write(group.path("hidden.lv"), "").unwrap();
    fails(&mut group.tool(&["check", "vg/hidden"]), "being merged");
    assert_eq!(group.log(), [""; 0]);
    let ran = run(group.tool(&["check", "vg/snap"]).env("PATH", "/nowhere"));
    assert!(ran.stderr.contains("LVM cannot be asked"), "{ran:?}");
}

#[test]
fn other_volumes_are_used_as_they_are() {
    let group = Group::new();
    group.volume("cow", "-wi-------", "none", 0);
    group.image.write_cow(&group.path("cow"));
    fails(&mut group.tool(&["check", "vg/cow"]), "lvchange -ay vg/cow");
    group.volume("cow", "-wi-a-----", "none", 0);
    group.volume("origin", "owi-a-s---", "none", 0);
    group.volume("new", "-wi-a-----", "none", 0);
    fs::write(group.path("new"), vec![0; group.image.origin().len()]).unwrap();
    ok(&mut group.tool(&["check", "--origin", "vg/origin", "vg/cow"]));
    ok(&mut group.tool(&[
        "export",
        "-i",
        "vg/cow",
        "--origin",
        "vg/origin",
        "-o",
        "vg/new",
        "--force",
    ]));
    assert!(fs::read(group.path("new")).unwrap() == group.image.snapshot());
    ok(&mut group.tool(&[
        "send", "--base", "cow", "--origin", "origin", "-o", "stream",
    ]));
    let receive = ["receive", "-i", "stream", "-o", "vg/new"];
    ok(&mut group.tool(&receive));
    assert!(fs::read(group.path("new")).unwrap() == group.image.origin());
    // What is a file, or would be, is no name.
    fs::create_dir(group.path("vg")).unwrap();
    fs::copy(group.path("cow"), group.path("vg/cow")).unwrap();
    ok(&mut group.tool(&["repair", "-i", "vg/cow", "-o", "vg/new"]));
    assert!(group.path("vg/new").exists());
    assert_eq!(group.log(), [""; 0]);
}

#[test]
fn what_was_taken_is_put_back_when_something_fails() {
    let group = Group::new();
    // The tool itself.
    let sound = fs::read(group.path("snap")).unwrap();
    common::patch(&group.path("snap"), 0, &[1]);
    let ran = fails(&mut group.tool(&["dump", "vg/snap"]), "magic");
    group.was_put_back(&ran);
    fs::write(group.path("snap"), sound).unwrap();
    // LVM, at each step.
    let line = |words: &str| fs::write(group.path("fail"), words).unwrap();
    line("splitsnapshot");
    fails(&mut group.tool(&["dump", "vg/snap"]), "failed: no luck");
    assert_eq!(group.log(), [TAKE[0], PUT_BACK[0]]);
    line("lvchange -ay");
    let ran = fails(&mut group.tool(&["dump", "vg/snap"]), "failed: no luck");
    group.was_put_back(&ran);
    assert!(group.is_snapshot());
    line("-Zn");
    let ran = fails(
        &mut group.tool(&["dump", "vg/snap"]),
        "vg/snap is not a snapshot again: put it back with: lvchange -an vg/snap vg/origin; \
         lvconvert -y -s -Zn -c 4k vg/origin vg/snap",
    );
    // What it was asked for it did.
    assert!(ran.stdout.contains("end 3"), "{ran:?}");
}

#[test]
fn an_interrupt_puts_back() {
    let group = Group::new();
    let image = Image::of(8, &(0..2000).map(|i| i * 4).collect::<Vec<_>>());
    image.write_cow(&group.path("snap"));
    image.write_origin(&group.path("origin"));
    let mut export = group.tool(&["export", "-i", "vg/snap", "-o", "image", "--checkpoint=0"]);
    let mut child = export.spawn().unwrap();
    while !group.path("image.partial").exists() {
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert!(child.try_wait().unwrap().is_none(), "it was over too soon");
    }
    let id = child.id().to_string();
    let kill = Command::new("kill").args(["-s", "INT", &id]).status();
    assert!(kill.unwrap().success());
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(1), "it was not interrupted");
    assert!(group.path("image.partial").exists());
    assert!(group.is_snapshot());
    assert_eq!(group.log(), [TAKE, PUT_BACK].concat());
    // And goes on.
    ok(&mut group.tool(&["export", "-i", "vg/snap", "-o", "image"]));
    assert!(fs::read(group.path("image")).unwrap() == image.snapshot());
}

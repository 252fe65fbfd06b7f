// SPDX-License-Identifier: GPL-2.0-only

//! What may be written to: never an input by whatever name, never what is in use, and what holds
//! something only with `--force`.

mod common;
#[path = "common/loops.rs"]
mod loops;

use common::{fails, ok, patch, run, tool, Image, Ran};
use loops::Loop;
use rustix::fs::{flock, FlockOperation};
use std::fs;
use std::os::unix::fs::{symlink, FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::{tempdir, TempDir};

/// A COW file, its origin, and a dump of it.
struct Files {
    dir: TempDir,
    image: Image,
}

impl Files {
    fn new() -> Self {
        let dir = tempdir().unwrap();
        let mut image = Image::of(8, &[3, 4, 9, 30]);
        image.origin_sectors = 64 * 8;
        image.write_cow(&dir.path().join("cow"));
        image.write_origin(&dir.path().join("origin"));
        let dump = ok(tool("dump").arg(dir.path().join("cow"))).stdout;
        fs::write(dir.path().join("dump"), dump).unwrap();
        let mut send = tool("send");
        send.current_dir(&dir)
            .args(["-i", "cow", "--origin", "origin"]);
        ok(send.args(["-o", "stream"]));
        Self { dir, image }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The content of every file in the directory.
    fn content(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut all: Vec<_> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), fs::read(&path).unwrap_or_default()))
            .collect();
        all.sort();
        all
    }

    /// The command lines that write to `output`, all with what they need to overwrite it.
    fn writers(&self, output: &Path, force: bool) -> Vec<Command> {
        let qcow2 = &["--format", "qcow2", "--origin", "origin", "-i", "cow"];
        let lines: [(&str, &[&str]); 9] = [
            ("dump", &["cow"]),
            ("delta", &["cow"]),
            ("delta", &["--compare", "--origin", "origin", "cow"]),
            ("restore", &["--origin", "origin", "-i", "dump"]),
            ("repair", &["--origin", "origin", "-i", "cow"]),
            ("export", &["--origin", "origin", "-i", "cow"]),
            ("export", qcow2),
            ("send", &["--origin", "origin", "-i", "cow"]),
            ("receive", &["-i", "stream"]),
        ];
        lines
            .into_iter()
            .map(|(name, arguments)| {
                let mut command = tool(name);
                command.current_dir(self.dir.path()).args(arguments);
                command.arg("-o").arg(output);
                if force {
                    command.arg("--force");
                }
                command
            })
            .collect()
    }
}

/// Whether the command writes to devices: a stream does not go to one, nor a qcow2 image.
fn takes_devices(command: &Command) -> bool {
    !["send", "qcow2"]
        .iter()
        .any(|other| command.get_args().any(|argument| argument == *other))
}

/// Whether the command can be gone on with, and makes a `.partial` for that.
fn goes_on(command: &Command) -> bool {
    let has = |word: &str| command.get_args().any(|argument| argument == word);
    has("export") && !has("qcow2")
}

/// Whether the command line, after the tool's name, has the argument `input`.
fn reads(command: &Command, input: &str) -> bool {
    command.get_args().skip(1).any(|argument| argument == input)
}

#[test]
fn nothing_is_overwritten_without_force() {
    let files = Files::new();
    let output = files.path("precious");
    fs::write(&output, "precious").unwrap();
    let before = files.content();
    for mut command in files.writers(&output, false) {
        fails(&mut command, "--force");
        assert!(files.content() == before, "{command:?}");
    }
    for mut command in files.writers(&output, true) {
        ok(&mut command);
        assert!(fs::read(&output).unwrap() != b"precious", "{command:?}");
    }
}

#[test]
fn no_input_is_overwritten_by_whatever_name() {
    let files = Files::new();
    for input in ["cow", "origin", "dump", "stream"] {
        let target = files.path(input);
        symlink(&target, files.path("symlink")).unwrap();
        fs::hard_link(&target, files.path("hardlink")).unwrap();
        for name in [input, "symlink", "hardlink"] {
            let before = files.content();
            for mut command in files.writers(&files.path(name), true) {
                // The tools that do not read this one may overwrite it.
                if !reads(&command, input) {
                    continue;
                }
                let ran = run(&mut command);
                assert_eq!(ran.code, Some(1), "{command:?}: {ran:?}");
                assert!(
                    ran.stderr.contains("cannot be the output"),
                    "{command:?}: {ran:?}"
                );
                assert!(files.content() == before, "{command:?}");
            }
        }
        fs::remove_file(files.path("symlink")).unwrap();
        fs::remove_file(files.path("hardlink")).unwrap();
    }
}

#[test]
fn no_input_is_overwritten_through_a_loop_device() {
    let files = Files::new();
    for input in ["cow", "origin"] {
        let Some(device) = Loop::new(&files.path(input), &[]) else {
            return;
        };
        let before = files.content();
        for mut command in files.writers(device.path(), true) {
            if !reads(&command, input) {
                continue;
            }
            fails(&mut command, "cannot be the output");
            assert!(files.content() == before, "{command:?}");
        }
        // And the other way round: the file of a device that is read.
        let mut command = tool("dump");
        command.arg(device.path()).arg("--force");
        if input == "cow" {
            fails(command.arg("-o").arg(files.path(input)), "cannot be the");
        }
        // Two devices of the same file.
        let again = Loop::new(&files.path(input), &[]).unwrap();
        let mut command = tool("repair");
        command.args(["--force", "-i"]).arg(device.path());
        if input == "cow" {
            fails(command.arg("-o").arg(again.path()), "cannot be the output");
        }
        assert!(files.content() == before);
    }
}

#[test]
fn parts_of_one_file_are_different_devices() {
    let files = Files::new();
    let both = files.path("both");
    let mut bytes = fs::read(files.path("cow")).unwrap();
    let end = bytes.len();
    bytes.resize(2 * end, 0);
    fs::write(&both, bytes).unwrap();
    let size = end.to_string();
    let Some(first) = Loop::new(&both, &["--sizelimit", &size]) else {
        return;
    };
    let second = Loop::new(&both, &["--offset", &size]).unwrap();
    let mut repair = tool("repair");
    repair
        .arg("-i")
        .arg(first.path())
        .arg("-o")
        .arg(second.path());
    ok(&mut repair);
    ok(tool("check").arg(second.path()));
    // But not where they overlap.
    let third = Loop::new(&both, &["--offset", "4096"]).unwrap();
    let mut repair = tool("repair");
    repair
        .arg("-i")
        .arg(first.path())
        .arg("-o")
        .arg(third.path());
    fails(repair.arg("--force"), "cannot be the output");
}

#[test]
fn what_another_tool_works_on_is_in_use() {
    let files = Files::new();
    let output = files.path("base");
    fs::write(&output, "precious").unwrap();
    let held = fs::File::open(&output).unwrap();
    flock(&held, FlockOperation::NonBlockingLockExclusive).unwrap();
    let before = files.content();
    for mut command in files.writers(&output, true) {
        fails(&mut command, "base: it is in use");
        assert!(files.content() == before, "{command:?}");
    }
}

#[test]
fn a_file_that_a_loop_device_holds_is_in_use() {
    let files = Files::new();
    let output = files.path("disk");
    fs::write(&output, vec![0; 1 << 20]).unwrap();
    let Some(_device) = Loop::new(&output, &[]) else {
        return;
    };
    let before = files.content();
    for mut command in files.writers(&output, true) {
        fails(&mut command, "in use");
        assert!(files.content() == before, "{command:?}");
    }
}

#[test]
fn a_mounted_device_is_never_written() {
    let files = Files::new();
    let disk = files.path("disk");
    fs::write(&disk, vec![0; 4 << 20]).unwrap();
    let made = Command::new("mkfs.ext4").arg("-q").arg(&disk).status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("skipped: there is no mkfs.ext4");
        return;
    }
    let Some(device) = Loop::new(&disk, &[]) else {
        return;
    };
    fs::create_dir(files.path("mount")).unwrap();
    let before = fs::read(&disk).unwrap();
    let writers = files.writers(device.path(), true).into_iter();
    for command in writers.filter(takes_devices) {
        let script = "mount -o ro,noload \"$0\" mount || exit 99; exec \"$@\"";
        let mut unshare = Command::new("unshare");
        unshare.args(["-m", "sh", "-c", script]).arg(device.path());
        unshare.arg(command.get_program()).args(command.get_args());
        fails(unshare.current_dir(files.dir.path()), "in use");
        assert!(fs::read(&disk).unwrap() == before, "{command:?}");
    }
}

#[test]
fn a_device_that_holds_something_needs_force() {
    let files = Files::new();
    let disk = files.path("disk");
    fs::write(&disk, vec![0; 4 << 20]).unwrap();
    let Some(device) = Loop::new(&disk, &[]) else {
        return;
    };
    let writers = files.writers(device.path(), false).into_iter();
    for mut command in writers.filter(takes_devices) {
        fs::write(&disk, vec![0; 4 << 20]).unwrap();
        ok(&mut command);
        patch(&disk, 0, &[0; 512]);
        patch(&disk, 1080, &[0x53, 0xef]);
        Command::new("blockdev")
            .arg("--flushbufs")
            .arg(device.path())
            .status()
            .unwrap();
        let before = fs::read(&disk).unwrap();
        fails(&mut command, "it holds data; give --force");
        assert!(fs::read(&disk).unwrap() == before, "{command:?}");
    }
}

#[test]
fn a_link_is_followed_and_stays() {
    let files = Files::new();
    let target = files.path("target");
    symlink("target", files.path("link")).unwrap();
    for mut command in files.writers(&files.path("link"), false) {
        ok(&mut command);
        assert!(files.path("link").is_symlink(), "{command:?}");
        assert!(fs::metadata(&target).unwrap().len() > 0);
        fs::remove_file(&target).unwrap();
    }
}

#[test]
fn what_is_not_complete_is_nobody_elses() {
    let files = Files::new();
    let output = files.path("out");
    fs::write(files.path("out.partial"), "precious").unwrap();
    let before = files.content();
    for mut command in files.writers(&output, true) {
        if goes_on(&command) {
            fails(&mut command, "out.partial: it exists");
        } else {
            ok(&mut command);
            fs::remove_file(&output).unwrap();
        }
        assert!(files.content() == before, "{command:?}");
    }
    // Nor is it the origin by another name.
    for link in [true, false] {
        fs::remove_file(files.path("out.partial")).unwrap();
        if link {
            symlink("origin", files.path("out.partial")).unwrap();
        } else {
            fs::hard_link(files.path("origin"), files.path("out.partial")).unwrap();
        }
        let before = files.content();
        for mut command in files.writers(&output, true) {
            if goes_on(&command) {
                assert_eq!(run(&mut command).code, Some(1), "{command:?}");
                assert!(files.content() == before, "{command:?}");
            }
        }
    }
}

#[test]
fn what_cannot_be_made_is_said() {
    let files = Files::new();
    for mut command in files.writers(Path::new("nowhere/out"), false) {
        let ran = fails(&mut command, "nowhere/out");
        assert!(ran.stderr.contains("No such file"), "{ran:?}");
    }
}

#[test]
fn images_are_the_owners_alone() {
    let files = Files::new();
    for mut command in files.writers(&files.path("out"), false) {
        ok(&mut command);
        let mode = fs::metadata(files.path("out"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{command:?}");
        // One that is replaced keeps its mode.
        fs::set_permissions(files.path("out"), PermissionsExt::from_mode(0o640)).unwrap();
        ok(command.arg("--force"));
        let mode = fs::metadata(files.path("out"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o640, "{command:?}");
        fs::remove_file(files.path("out")).unwrap();
    }
}

#[test]
fn a_dash_is_standard_output_or_refused() {
    let files = Files::new();
    for mut command in files.writers(Path::new("-"), false) {
        let ran = command.output().unwrap();
        let line = format!("{command:?}");
        let needs_file = ["restore", "repair", "receive", "qcow2"];
        if command
            .get_args()
            .any(|word| needs_file.iter().any(|name| word == *name))
        {
            assert_eq!(ran.status.code(), Some(1), "{line}");
        } else {
            assert_eq!(ran.status.code(), Some(0), "{line}: {ran:?}");
            assert!(!ran.stdout.is_empty(), "{line}");
        }
        assert!(!files.path("-").exists(), "{line}");
    }
}

// The state of an export.

fn export(files: &Files, options: &[&str]) -> Ran {
    let mut command = tool("export");
    command.current_dir(files.dir.path());
    command.args(["-i", "cow", "--origin", "origin"]);
    run(command.args(options))
}

#[test]
fn a_state_belongs_to_one_output() {
    let files = Files::new();
    for name in ["one", "two"] {
        fs::write(files.path(name), vec![0; 64 * 4096]).unwrap();
    }
    let Some(one) = Loop::new(&files.path("one"), &[]) else {
        return;
    };
    let two = Loop::new(&files.path("two"), &[]).unwrap();
    let [one, two] = [&one, &two].map(|device| device.path().to_str().unwrap());
    // Cut short in whatever way: at some point the state says that something is done.
    let state = files.path("state");
    let mut command = tool("export");
    command
        .current_dir(files.dir.path())
        .args(["-i", "cow", "--origin", "origin"]);
    command.args(["--force", "--checkpoint=0", "--state", "state", "-o", one]);
    let kept = keep_state(&mut command, &state);
    fs::write(&state, &kept).unwrap();
    let ran = export(&files, &["--state", "state", "-o", two]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("another output"), "{ran:?}");
    assert!(fs::read(files.path("two"))
        .unwrap()
        .iter()
        .all(|byte| *byte == 0));
    // The same device, but something else was written to it since.
    patch(&files.path("one"), 0, &[0x5a; 64 * 4096]);
    Command::new("blockdev")
        .args(["--flushbufs", one])
        .status()
        .unwrap();
    let ran = export(&files, &["--state", "state", "-o", one]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(fs::read(files.path("one"))
        .unwrap()
        .iter()
        .all(|byte| *byte == 0x5a));
    // And what it is for.
    patch(&files.path("one"), 0, &files.image.snapshot()[..]);
    Command::new("blockdev")
        .args(["--flushbufs", one])
        .status()
        .unwrap();
    fs::write(&state, &kept).unwrap();
    let ran = export(&files, &["--state", "state", "-o", one]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains("going on"), "{ran:?}");
}

/// Runs an export until it was seen to note that something is done; returns that note.
fn keep_state(command: &mut Command, state: &Path) -> Vec<u8> {
    let mut kept = None;
    for _ in 0..200 {
        let _ = fs::remove_file(state);
        let mut child = command.spawn().unwrap();
        while child.try_wait().unwrap().is_none() {
            let text = fs::read(state).unwrap_or_default();
            if let Ok(value) = serde_json::from_slice::<serde_json::Value>(&text) {
                if value["done"].as_u64() > Some(0) {
                    kept = Some(text);
                }
            }
        }
        if let Some(kept) = kept {
            return kept;
        }
    }
    panic!("no state was seen");
}

#[test]
fn only_a_state_is_removed() {
    let files = Files::new();
    for precious in ["{}", "[1]", "precious", "", "{\"snap_export\":1}"] {
        fs::write(files.path("precious"), precious).unwrap();
        let before = files.content();
        for restart in [&["--restart"][..], &[]] {
            let ran = export(
                &files,
                &[&["--state", "precious", "-o", "out"], restart].concat(),
            );
            assert_eq!(ran.code, Some(1), "{precious}: {ran:?}");
            assert!(files.content() == before, "{precious}: {ran:?}");
        }
    }
    for same in ["cow", "origin", "out", "out.partial"] {
        let before = files.content();
        let options = ["--state", same, "-o", "out", "--restart", "--force"];
        let ran = export(&files, &options);
        assert_eq!(ran.code, Some(1), "{same}: {ran:?}");
        assert!(files.content() == before, "{same}: {ran:?}");
    }
}

#[test]
fn a_state_that_cannot_be_written_leaves_nothing() {
    let files = Files::new();
    let before = files.content();
    let ran = export(&files, &["--state", "nowhere/state", "-o", "out"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stderr.contains("nowhere/state: cannot write"),
        "{ran:?}"
    );
    assert!(files.content() == before);
}

#[test]
fn a_state_may_be_a_link() {
    let files = Files::new();
    symlink("there", files.path("link")).unwrap();
    let ran = export(&files, &["--state", "link", "-o", "out"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(files.path("link").is_symlink());
    assert!(!files.path("there").exists());
    // It is written where the link leads, and read there.
    let mut command = tool("export");
    command
        .current_dir(files.dir.path())
        .args(["-i", "cow", "--origin", "origin"]);
    command.args(["--force", "--checkpoint=0", "--state", "link", "-o", "out"]);
    let kept = keep_state(&mut command, &files.path("there"));
    fs::write(files.path("there"), kept).unwrap();
    let ran = export(&files, &["--force", "--state", "link", "-o", "out"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("another output"), "{ran:?}");
    assert!(files.path("link").is_symlink() && files.path("there").exists());
}

// An origin that is none.

#[test]
fn an_origin_of_no_size_is_refused() {
    let files = Files::new();
    for bytes in [0, 1, 511] {
        fs::write(files.path("empty"), vec![0; bytes]).unwrap();
        let before = files.content();
        let lines: [&[&str]; 8] = [
            &["merge", "-i", "cow", "--origin", "empty"],
            &["check", "--origin", "empty", "cow"],
            &["delta", "--origin", "empty", "cow"],
            &["export", "-i", "cow", "--origin", "empty", "-o", "out"],
            &["repair", "-i", "cow", "--origin", "empty", "-o", "out"],
            &["restore", "-i", "dump", "--origin", "empty", "-o", "out"],
            &["check", "--origin-size=0", "cow"],
            &[
                "export",
                "-i",
                "cow",
                "--cow-only",
                "--origin-size=0",
                "-o",
                "out",
            ],
        ];
        for line in lines {
            let mut command = tool(line[0]);
            command.current_dir(files.dir.path()).args(&line[1..]);
            let ran = run(&mut command);
            assert!(
                ran.code == Some(1) || ran.code == Some(2),
                "{line:?}: {ran:?}"
            );
            assert!(ran.stderr.contains("origin"), "{line:?}: {ran:?}");
            assert!(files.content() == before, "{line:?}");
        }
    }
}

#[test]
fn a_part_of_a_sector_is_not_lost_in_silence() {
    let files = Files::new();
    let origin = fs::File::options()
        .write(true)
        .open(files.path("origin"))
        .unwrap();
    origin.write_all_at(&[7; 100], 64 * 4096).unwrap();
    for line in [
        &["export", "-i", "cow", "--origin", "origin", "-o", "out"][..],
        &["merge", "-i", "cow", "--origin", "origin"],
    ] {
        let mut command = tool(line[0]);
        command.current_dir(files.dir.path()).args(&line[1..]);
        let ran = ok(&mut command);
        assert!(ran.stderr.contains("last 100 bytes"), "{ran:?}");
    }
    assert_eq!(
        fs::metadata(files.path("origin")).unwrap().len(),
        64 * 4096 + 100
    );
}

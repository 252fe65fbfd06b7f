// SPDX-License-Identifier: GPL-2.0-only

//! A reader that goes away, a full disk, no thread, no memory, and a user who has waited enough.

mod common;

use common::{ok, run, tool, Image, Ran};
use rustix::pipe::{pipe_with, PipeFlags};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::{tempdir, TempDir};

struct Files {
    dir: TempDir,
    image: Image,
}

impl Files {
    fn new(image: Image) -> Self {
        let dir = tempdir().unwrap();
        image.write_cow(&dir.path().join("cow"));
        image.write_origin(&dir.path().join("origin"));
        Self { dir, image }
    }

    fn damaged() -> Self {
        let mut image = Image::of(8, &(0..500).collect::<Vec<_>>());
        for record in (0..500).step_by(2) {
            image.records[record].1 = 1;
        }
        Self::new(image)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Each tool that says something on standard output; the others say nothing but messages.
    fn lines(&self) -> Vec<Command> {
        let lines: [&[&str]; 9] = [
            &["check", "cow"],
            &["check", "--json", "cow"],
            &["stat", "--json", "sound"],
            &["stat", "sound"],
            &["dump", "sound"],
            &["delta", "sound"],
            &["repair", "--verbose", "-i", "cow", "-o", "out", "--force"],
            &["repair", "--dry-run", "--verbose", "-i", "cow"],
            &[
                "export", "-i", "sound", "--origin", "origin", "-o", "image", "--force",
            ],
        ];
        let sound = Image::of(
            8,
            &self
                .image
                .records
                .iter()
                .map(|(old, _)| *old)
                .collect::<Vec<_>>(),
        );
        sound.write_cow(&self.path("sound"));
        let command = |line: &[&str]| {
            let mut command = tool(line[0]);
            command.current_dir(self.dir.path()).args(&line[1..]);
            command
        };
        lines.into_iter().map(command).collect()
    }
}

#[test]
fn a_reader_that_goes_away_stops_no_work() {
    let files = Files::damaged();
    for mut command in files.lines() {
        for both in [false, true] {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
            drop(reader);
            if both {
                command.stderr(writer.try_clone().unwrap());
            } else {
                command.stderr(Stdio::null());
            }
            let status = command.stdout(writer).status().unwrap();
            // What was asked for was not written, but for an export, which says nothing there.
            let is_export = command.get_args().next().unwrap() == "export";
            assert_eq!(status.code(), Some(i32::from(!is_export)), "{command:?}");
        }
    }
    ok(tool("check").arg(files.path("out")));
    assert!(std::fs::read(files.path("image")).unwrap().len() > 500 * 4095);
}

#[test]
fn a_full_disk_is_told() {
    let files = Files::damaged();
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    for mut command in files.lines() {
        let ran: Ran = {
            command.stdout(full()).stderr(Stdio::piped());
            command.output().unwrap().into()
        };
        if format!("{command:?}").contains("\"export\"") {
            assert_eq!(ran.code, Some(0), "{command:?}: {ran:?}");
        } else {
            assert_eq!(ran.code, Some(1), "{command:?}: {ran:?}");
            assert!(
                ran.stderr.contains("standard output: cannot write"),
                "{command:?}: {ran:?}"
            );
        }
        let status = command
            .stdout(Stdio::null())
            .stderr(full())
            .status()
            .unwrap();
        assert!(
            matches!(status.code(), Some(0 | 1)),
            "{command:?}: {status:?}"
        );
    }
    ok(tool("check").arg(files.path("out")));
}

/// A COW file with `records` records, all of them fragments, and holes for their chunks of 64 KiB.
fn large(path: &Path, records: u64) -> u64 {
    let epa = 4096;
    let file = File::create(path).unwrap();
    let areas = records / epa + 1;
    file.set_len((areas * (epa + 1) + 1) << 16).unwrap();
    let image = Image {
        records: Vec::new(),
        ..Image::of(128, &[0])
    };
    file.write_all_at(&image.header(), 0).unwrap();
    for area in 0..areas {
        let first = area * epa;
        let numbers = first..records.min(first + epa);
        let bytes: Vec<u8> = numbers
            .flat_map(|record| {
                let new = 2 + record + record / epa;
                [(records - 1 - record) * 2, new]
            })
            .flat_map(u64::to_le_bytes)
            .collect();
        file.write_all_at(&bytes, image.place(first)).unwrap();
    }
    records * 2 * 128
}

/// `command` with the shell's `limit` before it.
fn limited(limit: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{limit} && exec \"$@\""), "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    shell.stdin(Stdio::null());
    if let Some(directory) = command.get_current_dir() {
        shell.current_dir(directory);
    }
    shell
}

#[test]
fn without_threads_the_work_is_done_all_the_same() {
    let files = Files::new(Image::of(
        8,
        &(0..400).map(|i| i * 7 % 401).collect::<Vec<_>>(),
    ));
    large(&files.path("large"), 50_000);
    let expected = files.image.snapshot();
    // Stacks for threads do not fit.
    let limit = "ulimit -s 1000000 && export RUST_MIN_STACK=4000000000 && ulimit -v 1000000";
    let lines: [&[&str]; 3] = [
        &["check", "large"],
        &["export", "-i", "cow", "--origin", "origin", "-o", "image"],
        &["merge", "-i", "cow", "--origin", "origin"],
    ];
    for line in lines {
        let mut command = tool(line[0]);
        command.current_dir(files.dir.path()).args(&line[1..]);
        let ran = run(&mut limited(limit, &command));
        assert_eq!(ran.code, Some(0), "{line:?}: {ran:?}");
    }
    assert!(std::fs::read(files.path("image")).unwrap() == expected);
    assert!(std::fs::read(files.path("origin")).unwrap() == expected);
}

#[test]
fn without_memory_there_is_an_error() {
    let dir = tempdir().unwrap();
    let cow = dir.path().join("cow");
    large(&cow, 3_000_000);
    for line in [
        &["export", "--cow-only", "-o", "out", "-i"][..],
        &["repair", "--dry-run", "-i"],
        &["stat"],
    ] {
        let mut command = tool(line[0]);
        command.current_dir(dir.path()).args(&line[1..]).arg(&cow);
        let ran = run(&mut limited("ulimit -v 80000", &command));
        assert_eq!(ran.code, Some(1), "{line:?}: {ran:?}");
        assert!(ran.stderr.contains("out of memory"), "{line:?}: {ran:?}");
    }
}

#[test]
fn garbage_takes_no_memory_and_few_lines() {
    let dir = tempdir().unwrap();
    let image = Image::of(1 << 15, &[1, 2]);
    let cow = dir.path().join("cow");
    let file = File::create(&cow).unwrap();
    file.set_len(8 * image.chunk_bytes()).unwrap();
    file.write_all_at(&image.header(), 0).unwrap();
    let garbage = vec![0x5a; image.chunk_bytes() as usize];
    file.write_all_at(&garbage, image.chunk_bytes()).unwrap();
    let records = image.chunk_bytes() / 16;
    let mut repair = tool("repair");
    repair
        .arg("-i")
        .arg(&cow)
        .arg("-o")
        .arg(dir.path().join("out"));
    let ran = run(&mut limited("ulimit -v 80000", &repair));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(ran.stdout.lines().count(), 101);
    let more = format!("dropped {} more: new-beyond-device", records - 100);
    assert!(
        ran.stdout.contains(&more),
        "{}",
        ran.stdout.lines().last().unwrap()
    );
    assert!(
        ran.stderr
            .contains(&format!("0 records kept, {records} dropped")),
        "{}",
        ran.stderr
    );
    let all = ok(repair.args(["--verbose", "--force"]));
    assert_eq!(all.stdout.lines().count() as u64, records);
}

/// Whether a process handles SIGINT: it is not to be sent before, and lists are read after that.
fn watches_for_interrupts(process: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = u64::from_str_radix(caught.unwrap().trim(), 16).unwrap();
    caught & (1 << (signal_hook::consts::SIGINT - 1)) != 0
}

#[test]
fn the_user_may_stop_while_lists_are_read() {
    let dir = tempdir().unwrap();
    let cow = dir.path().join("cow");
    let sectors = large(&cow, 6_000_000);
    let origin = dir.path().join("origin");
    File::create(&origin)
        .unwrap()
        .set_len(sectors * 512)
        .unwrap();
    for line in [
        &["export", "--origin", "origin", "-o", "out", "-i", "cow"][..],
        &["merge", "--dry-run", "--origin", "origin", "-i", "cow"],
        &["merge", "--origin", "origin", "-i", "cow"],
        &["repair", "--dry-run", "-i", "cow"],
        &["delta", "cow"],
    ] {
        let mut command = tool(line[0]);
        command.current_dir(dir.path()).args(&line[1..]);
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while !watches_for_interrupts(child.id()) {
            assert!(start.elapsed() < Duration::from_secs(60), "{line:?}");
            sleep(Duration::from_millis(1));
        }
        let start = Instant::now();
        let killed = Command::new("kill")
            .args(["-s", "INT", &child.id().to_string()])
            .status();
        assert!(killed.unwrap().success());
        let ran: Ran = child.wait_with_output().unwrap().into();
        assert_eq!(ran.code, Some(1), "{line:?}: {ran:?}");
        assert!(
            ran.stderr.contains("interrupted: while"),
            "{line:?}: {ran:?}"
        );
        assert!(start.elapsed() < Duration::from_secs(30), "{line:?}");
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            2,
            "{line:?}"
        );
    }
}

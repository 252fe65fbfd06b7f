// SPDX-License-Identifier: GPL-2.0-only

//! `snap_export` to a pipe, the digest that it tells, and what it verifies.

mod common;

use common::{fails, ok, patch, run, tool, Image, Ran};
use proptest::prelude::*;
use rustix::fs::{flock, FlockOperation};
use rustix::pty::{grantpt, openpt, ptsname, unlockpt, OpenptFlags};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::{tempdir, TempDir};

struct Files {
    dir: TempDir,
    image: Image,
}

impl Files {
    fn of(image: Image) -> Self {
        Self::inside(tempdir().unwrap(), image)
    }

    fn inside(dir: TempDir, image: Image) -> Self {
        image.write_cow(&dir.path().join("cow"));
        image.write_origin(&dir.path().join("origin"));
        Self { dir, image }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn export(&self, output: &str, options: &[&str]) -> Command {
        let mut command = tool("export");
        command.current_dir(self.dir.path());
        command.args(["-i", "cow", "--origin", "origin", "-o", output]);
        command.args(options);
        command
    }

    fn sha256(&self) -> String {
        let expected = self.path("expected");
        fs::write(&expected, self.image.snapshot()).unwrap();
        let ran = ok(Command::new("sha256sum").arg(&expected));
        ran.stdout.split(' ').next().unwrap().to_owned()
    }
}

fn image() -> impl Strategy<Value = Image> {
    let old = prop::collection::vec((0_u64..300, 1_u64..20), 0..10);
    (0_u32..5, old, 0_u64..1000).prop_map(|(shift, runs, more)| {
        let mut seen = std::collections::HashSet::new();
        let old = runs.into_iter().flat_map(|(old, length)| old..old + length);
        let old: Vec<u64> = old.filter(|old| seen.insert(*old)).collect();
        let mut image = Image::of(1 << shift, &old);
        image.origin_sectors += more;
        image
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn every_output_is_the_snapshot(image in image(), hole in 0_u64..100) {
        let files = Files::of(image);
        let mut expected = files.image.snapshot();
        let digest = files.sha256();
        let output = files.export("-", &["--sha256"]).output().unwrap();
        prop_assert!(output.status.success());
        prop_assert!(output.stdout == expected);
        let said = String::from_utf8(output.stderr).unwrap();
        prop_assert!(said.contains(&format!("sha256 {digest}\n")), "{}", said);

        let ran = ok(&mut files.export("out", &["--verify", "--sha256"]));
        prop_assert_eq!(ran.stdout, format!("sha256 {digest}\n"));
        prop_assert!(fs::read(files.path("out")).unwrap() == expected);

        let qcow2 = &["--format", "qcow2", "--verify", "--sha256", "--json"];
        let ran = ok(&mut files.export("out.qcow2", qcow2));
        let told: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        prop_assert_eq!(&told["sha256"], &digest);
        prop_assert_eq!(&told["verified"], true);

        // Holes of the origin are zeros in a pipe.
        let last = expected.len() as u64 - 1;
        let start = (hole * 512).min(last) as usize / 4096 * 4096;
        let origin = File::options().write(true).open(files.path("origin")).unwrap();
        let end = origin.metadata().unwrap().len();
        origin.set_len(start as u64).unwrap();
        origin.set_len(end).unwrap();
        let chunk = files.image.chunk_bytes() as usize;
        let kept: std::collections::HashSet<_> =
            files.image.records.iter().map(|(old, _)| *old as usize).collect();
        for (number, bytes) in expected.chunks_mut(chunk).enumerate() {
            if !kept.contains(&number) {
                let from = start.saturating_sub(number * chunk).min(bytes.len());
                bytes[from..].fill(0);
            }
        }
        let output = files.export("-", &[]).output().unwrap();
        prop_assert!(output.stdout == expected);
    }
}

#[test]
fn a_qcow2_image_is_as_long_as_what_it_holds() {
    const CLUSTER: u64 = 64 << 10;
    let mut image = Image::of(8, &[3, 4]);
    // Several tables of the second level, most of them of nothing, and no whole cluster at the end.
    image.origin_sectors = (3 << 30) / 512 + 1;
    let dir = tempdir().unwrap();
    image.write_cow(&dir.path().join("cow"));
    let origin = File::create(dir.path().join("origin")).unwrap();
    origin.set_len(image.origin_sectors * 512).unwrap();
    patch(&dir.path().join("origin"), (2 << 30) + 7, b"far away");
    let files = Files { dir, image };
    let ran = ok(&mut files.export("out", &["--format", "qcow2", "--verify", "--json"]));
    let told: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(told["bytes"], (3_u64 << 30) + 512);
    // What it has of the COW device, and what is far away.
    assert_eq!(told["written"], 2 * CLUSTER);
    // These, two tables for them, the header, the first table, the counts and their table.
    assert_eq!(fs::metadata(files.path("out")).unwrap().len(), 8 * CLUSTER);
}

#[test]
fn a_qcow2_image_is_a_new_file() {
    let files = Files::of(Image::of(8, &[1, 5, 9]));
    let qcow2 = ["--format", "qcow2"];
    fails(&mut files.export("-", &qcow2), "must be a file");
    let fifo = files.path("fifo");
    assert!(Command::new("mkfifo")
        .arg(&fifo)
        .status()
        .unwrap()
        .success());
    fails(&mut files.export("fifo", &qcow2), "must be a file");
    for options in [&["--restart"][..], &["--state", "state"]] {
        let mut export = files.export("out", &qcow2);
        fails(export.args(options), "cannot be gone on with");
    }
    fs::write(files.path("out"), "precious").unwrap();
    fails(&mut files.export("out", &qcow2), "give --force");
    assert_eq!(fs::read(files.path("out")).unwrap(), b"precious");
    ok(files.export("out", &qcow2).arg("--force"));
    assert_eq!(&fs::read(files.path("out")).unwrap()[..4], b"QFI\xfb");
    let left = fs::read_dir(files.dir.path()).unwrap();
    let mut left: Vec<_> = left.map(|file| file.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["cow", "fifo", "origin", "out"]);
}

#[test]
fn a_pipe_gets_nothing_else() {
    let files = Files::of(Image::of(8, &(0..3000).map(|i| i * 2).collect::<Vec<_>>()));
    let expected = files.image.snapshot();
    fails(&mut files.export("-", &["--json"]), "--json");
    for options in [&["--verify"][..], &["--restart"], &["--state", "state"]] {
        let ran = run(&mut files.export("-", options));
        assert_eq!((ran.code, &ran.stdout[..]), (Some(1), ""), "{ran:?}");
    }
    // By a FIFO's name, too.
    let fifo = files.path("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    let mut child = files.export("fifo", &["--json", "--sha256"]);
    let child = child.stdout(Stdio::piped()).spawn().unwrap();
    assert!(fs::read(&fifo).unwrap() == expected);
    let ran: Ran = child.wait_with_output().unwrap().into();
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(json["sha256"], files.sha256());

    // A reader that goes away ends it, without a word.
    let mut command = files.export("-", &[]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut start = [0; 1000];
    child.stdout.take().unwrap().read_exact(&mut start).unwrap();
    assert!(start == expected[..1000]);
    let ran: Ran = child.wait_with_output().unwrap().into();
    assert_eq!((ran.code, &ran.stderr[..]), (Some(1), ""));
    // Standard output that is a file is known for it, and for an input.
    let cow = File::options()
        .append(true)
        .open(files.path("cow"))
        .unwrap();
    let mut command = files.export("-", &[]);
    fails(command.stdout(cow), "cannot be the output");
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = files.export("-", &[]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("standard output: cannot write"));
}

#[test]
fn a_terminal_is_refused() {
    // What a terminal takes without a reader.
    let files = Files::of(Image::of(1, &[3]));
    let pty = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&pty).unwrap();
    unlockpt(&pty).unwrap();
    let name = ptsname(&pty, Vec::new()).unwrap().into_string().unwrap();
    let terminal = File::options().write(true).open(&name).unwrap();
    fails(
        files.export("-", &[]).stdout(terminal),
        "-: it is a terminal",
    );
    symlink(&name, files.path("terminal")).unwrap();
    fails(&mut files.export("terminal", &[]), "it is a terminal");
}

#[test]
fn an_interrupted_stream_says_so() {
    let files = Files::of(Image::of(8, &(0..3000).collect::<Vec<_>>()));
    let mut command = files.export("-", &[]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 4096]).unwrap();
    let id = child.id().to_string();
    assert!(Command::new("kill")
        .args(["-s", "INT", &id])
        .status()
        .unwrap()
        .success());
    std::thread::sleep(Duration::from_millis(50));
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    let ran: Ran = child.wait_with_output().unwrap().into();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("interrupted"), "{ran:?}");
    assert!(rest.len() < files.image.snapshot().len() - 4096);
}

#[test]
fn what_is_written_while_it_is_exported_is_not_exported() {
    let files = Files::of(Image::of(8, &(0..3000).map(|i| i * 2).collect::<Vec<_>>()));
    refused_after(&files, || {
        patch(&files.path("origin"), 0, &[Image::origin_byte(0)]);
    });
    // Nor what has its old time again.
    refused_after(&files, || {
        let origin = File::options().write(true).open(files.path("origin"));
        let origin = origin.unwrap();
        let time = origin.metadata().unwrap().modified().unwrap();
        patch(&files.path("origin"), 0, &[Image::origin_byte(0)]);
        origin.set_modified(time).unwrap();
    });

    // To a file: slow, for the size of its digest's content.
    let origin = File::options().write(true).open(files.path("origin"));
    origin.unwrap().set_len(4 << 30).unwrap();
    let mut command = files.export("out", &["--sha256"]);
    let child = command.stderr(Stdio::piped()).spawn().unwrap();
    while !files.path("out.partial.state").exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    patch(&files.path("origin"), 0, &[Image::origin_byte(0)]);
    let ran: Ran = child.wait_with_output().unwrap().into();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("is not the snapshot"), "{ran:?}");
    assert!(!files.path("out").exists() && !files.path("out.partial.state").exists());
    assert!(!files.path("out.partial").exists());
}

/// Exports to a pipe, and does something in the midst of it, which must be refused.
fn refused_after(files: &Files, write: impl FnOnce()) {
    let mut command = files.export("-", &[]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 512]).unwrap();
    write();
    stdout.read_to_end(&mut Vec::new()).unwrap();
    let ran: Ran = child.wait_with_output().unwrap().into();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("while it was read"), "{ran:?}");
}

#[test]
fn what_is_written_by_mmap_meanwhile_is_not_exported() {
    // A page that is written to already, as it is now and again while it is exported.
    const WRITER: &str = "\
import mmap, sys
file = open('origin', 'r+b')
pages = mmap.mmap(file.fileno(), 0)
pages[0] = pages[0]
print(flush=True)
sys.stdin.readline()
pages[0] = pages[0]
print(flush=True)";
    // A file system in memory does not tell.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let image = Image::of(8, &(0..3000).map(|i| i * 2).collect::<Vec<_>>());
    let files = Files::inside(dir, image);
    let mut python = Command::new("python3");
    python.args(["-c", WRITER]).current_dir(files.dir.path());
    let mut python = python
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = python.stdout.take().unwrap();
    said.read_exact(&mut [0]).unwrap();
    refused_after(&files, || {
        drop(python.stdin.take());
        said.read_exact(&mut [0]).unwrap();
    });
    assert!(python.wait().unwrap().success());
}

#[test]
fn standard_output_by_its_name_gets_nothing_else() {
    let files = Files::of(Image::of(8, &[1, 5, 9]));
    for name in ["/dev/stdout", "/proc/self/fd/1"] {
        fails(&mut files.export(name, &["--json"]), "--json");
        let output = files.export(name, &["--sha256"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(output.stdout == files.image.snapshot());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            said.contains(&format!("sha256 {}", files.sha256())),
            "{said}"
        );
    }
}

#[test]
fn what_an_image_replaces_is_locked() {
    let files = Files::of(Image::of(8, &[1, 2, 3]));
    let origin = File::options().write(true).open(files.path("origin"));
    origin.unwrap().set_len(4 << 30).unwrap();
    fs::write(files.path("out"), "precious").unwrap();
    let out = File::open(files.path("out")).unwrap();
    let lock = || flock(&out, FlockOperation::NonBlockingLockExclusive);
    let export = || files.export("out", &["--force", "--sha256"]);
    // Another tool makes something of it.
    lock().unwrap();
    fails(&mut export(), "out: it is in use");
    assert!(!files.path("out.partial").exists());
    flock(&out, FlockOperation::Unlock).unwrap();
    let mut child = export().stderr(Stdio::null()).spawn().unwrap();
    while !files.path("out.partial").exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(lock().is_err());
    child.kill().unwrap();
    child.wait().unwrap();
    lock().unwrap();
    assert_eq!(fs::read(files.path("out")).unwrap(), b"precious");
    // Nor what has got the name meanwhile.
    fs::remove_file(files.path("out")).unwrap();
    let child = export().stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    fs::write(files.path("out"), "precious").unwrap();
    let out = File::open(files.path("out")).unwrap();
    flock(&out, FlockOperation::NonBlockingLockExclusive).unwrap();
    let ran: Ran = child.wait_with_output().unwrap().into();
    assert!(ran.stderr.contains("out: it is in use"), "{ran:?}");
    assert_eq!(fs::read(files.path("out")).unwrap(), b"precious");
}

#[test]
fn verify_finds_what_was_lost() {
    let files = Files::of(Image::of(8, &(0..8000).collect::<Vec<_>>()));
    let [state, partial] = ["out.partial.state", "out.partial"].map(|name| files.path(name));
    let interrupted = |at_least: u64| {
        for delay in (1..).step_by(3) {
            let mut child = files
                .export("out", &["--checkpoint=0", "-q"])
                .spawn()
                .unwrap();
            std::thread::sleep(Duration::from_millis(delay % 300));
            let _ = child.kill();
            child.wait().unwrap();
            let _ = fs::remove_file(files.path("out"));
            let noted = fs::read_to_string(&state).unwrap_or_default();
            let noted: serde_json::Value = serde_json::from_str(&noted).unwrap_or_default();
            if noted["done"].as_u64().is_some_and(|done| done >= at_least) {
                return;
            }
        }
    };
    // The few places at which an export looks before it goes on are further apart.
    interrupted(8 << 20);
    patch(&partial, 100_000, &[0xfe]);
    let verify = ["--verify", "--sha256"];
    let ran = fails(
        &mut files.export("out", &verify),
        "it does not hold what was written",
    );
    assert!(
        !files.path("out").exists() && ran.stdout.is_empty(),
        "{ran:?}"
    );
    // Nobody goes on with that.
    assert!(!partial.exists() && !state.exists());
    interrupted(8 << 20);
    let ran = ok(&mut files.export("out", &verify));
    assert!(ran.stderr.contains("going on at byte"), "{ran:?}");
    assert_eq!(ran.stdout, format!("sha256 {}\n", files.sha256()));
    assert!(fs::read(files.path("out")).unwrap() == files.image.snapshot());
}

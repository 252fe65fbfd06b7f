// SPDX-License-Identifier: GPL-2.0-only

//! Tools killed at random points, by SIGKILL and by SIGINT, and then run again; full disks and
//! devices that end early.
//!
//! `SNAP_KILLS` says how many times each tool is killed; the default is 30.

mod common;

use common::{fails, ok, run, tool, Image};
use proptest::test_runner::TestRng;
use snap_tools::cow::{Cow, Origin};
use snap_tools::device::{Access, Device};
use snap_tools::snapshot::Snapshot;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::tempdir;

fn kills() -> u32 {
    std::env::var("SNAP_KILLS").map_or(30, |kills| kills.parse().unwrap())
}

/// Random delays up to a time that a tool takes.
struct Delays {
    rng: TestRng,
    longest: Duration,
}

impl Delays {
    fn new(longest: Duration) -> Self {
        let algorithm = proptest::test_runner::RngAlgorithm::ChaCha;
        Self {
            rng: TestRng::deterministic_rng(algorithm),
            longest,
        }
    }

    fn next(&mut self) -> Duration {
        let random = proptest::prelude::RngCore::next_u32(&mut self.rng);
        self.longest
            .mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

/// Starts `command` and ends it by `signal` after `delay`; returns whether it had completed.
fn interrupt(command: &mut Command, signal: &str, delay: Duration) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    sleep(delay);
    let id = child.id().to_string();
    let _ = Command::new("kill")
        .args(["-s", signal, &id])
        .stderr(Stdio::null())
        .status();
    let status = child.wait().unwrap();
    if signal == "INT" {
        // It either came to its end or says that it did not.
        assert!(status.code() != Some(101), "{status:?}");
    }
    status.success()
}

fn time(command: &mut Command) -> Duration {
    let start = Instant::now();
    ok(command);
    start.elapsed()
}

fn signal(round: u32) -> &'static str {
    ["KILL", "INT"][round as usize % 2]
}

fn content(cow: &Path, origin: &Path) -> Vec<u8> {
    let origin = Arc::new(Device::open(origin, Access::Read).unwrap());
    let cow = Cow::open(cow, Access::Read, Origin::of(&origin).unwrap()).unwrap();
    let snapshot = Snapshot::new(cow, Some(origin), None, false).unwrap();
    let mut bytes = vec![0; snapshot.bytes() as usize];
    snapshot.read_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn merge_can_be_cut_short() {
    let dir = tempdir().unwrap();
    let image = Image::of(8, &(0..400).map(|i| i * 7 % 401).collect::<Vec<_>>());
    let [cow, origin] = ["cow", "origin"].map(|name| dir.path().join(name));
    let merge = || {
        let mut command = tool("merge");
        command
            .args(["--batch", "16"])
            .arg("-i")
            .arg(&cow)
            .arg("--origin")
            .arg(&origin);
        command
    };
    let make = || {
        image.write_cow(&cow);
        image.write_origin(&origin);
    };
    make();
    let expected = image.snapshot();
    let mut delays = Delays::new(time(&mut merge()) / 4);
    make();
    for round in 0..kills() {
        let done = interrupt(&mut merge(), signal(round), delays.next());
        // At every moment it is the same snapshot.
        assert!(content(&cow, &origin) == expected, "round {round}");
        if done {
            assert!(std::fs::read(&origin).unwrap() == expected);
            make();
        }
    }
    ok(&mut merge());
    assert!(std::fs::read(&origin).unwrap() == expected);
    let check = ok(tool("check").arg(&cow));
    assert!(
        check.stdout.contains(" 0 records") && check.stderr.is_empty(),
        "{check:?}"
    );
}

#[test]
fn export_goes_on_where_it_was() {
    let dir = tempdir().unwrap();
    let image = Image::of(8, &(0..2000).map(|i| i * 4).collect::<Vec<_>>());
    let cow = image.write_cow(&dir.path().join("cow"));
    let origin = image.write_origin(&dir.path().join("origin"));
    let [output, partial] = ["out", "out.partial"].map(|name| dir.path().join(name));
    let export = || {
        let mut command = tool("export");
        command.args(["--checkpoint", "0"]).arg("-i").arg(&cow);
        command.arg("--origin").arg(&origin).arg("-o").arg(&output);
        command
    };
    let mut delays = Delays::new(time(&mut export()).mul_f64(0.9));
    std::fs::remove_file(&output).unwrap();
    let expected = image.snapshot();
    let mut resumed = 0;
    for round in 0..kills() {
        let done = interrupt(&mut export(), signal(round), delays.next());
        assert!(!done || output.exists(), "round {round}");
        if output.exists() {
            // Only what is complete has the name, even if it was killed before it said so.
            assert!(std::fs::read(&output).unwrap() == expected, "round {round}");
            assert!(!partial.exists(), "round {round}");
            std::fs::remove_file(&output).unwrap();
        } else {
            resumed += u32::from(partial.exists());
        }
    }
    assert!(resumed > 0);
    let ran = ok(&mut export());
    assert!(std::fs::read(&output).unwrap() == expected, "{ran:?}");
    assert!(!partial.exists());
}

#[test]
fn an_export_of_something_else_is_not_gone_on_with() {
    let dir = tempdir().unwrap();
    let image = Image::of(8, &(0..2000).map(|i| i * 4).collect::<Vec<_>>());
    let cow = image.write_cow(&dir.path().join("cow"));
    let origin = image.write_origin(&dir.path().join("origin"));
    let output = dir.path().join("out");
    let export = || {
        let mut command = tool("export");
        command
            .arg("-i")
            .arg(&cow)
            .arg("--origin")
            .arg(&origin)
            .arg("-o")
            .arg(&output);
        command
    };
    let mut delays = Delays::new(time(&mut export()));
    let state = dir.path().join("out.partial.state");
    while !state.exists() {
        let _ = std::fs::remove_file(&output);
        interrupt(&mut export(), "KILL", delays.next());
    }
    common::patch(&origin, 5000, &[1]);
    fails(&mut export(), "give --restart");
    ok(export().arg("--restart"));
    let mut expected = image.snapshot();
    expected[5000] = 1;
    assert!(std::fs::read(&output).unwrap() == expected);
}

#[test]
fn a_restore_cut_short_is_marked() {
    let dir = tempdir().unwrap();
    let image = Image::of(1, &(0..6000).map(|i| i * 5 % 6007).collect::<Vec<_>>());
    let cow = image.write_cow(&dir.path().join("cow"));
    let text = ok(tool("dump").arg(&cow)).stdout;
    let dump = dir.path().join("dump");
    std::fs::write(&dump, &text).unwrap();
    let output = dir.path().join("out");
    let restore = || {
        let mut command = tool("restore");
        command
            .arg("--force")
            .arg("-i")
            .arg(&dump)
            .arg("-o")
            .arg(&output);
        command
    };
    let mut delays = Delays::new(time(&mut restore()));
    for round in 0..kills() {
        if round % 2 == 0 {
            std::fs::remove_file(&output).unwrap();
        }
        let done = interrupt(&mut restore(), "KILL", delays.next());
        let check = run(tool("check").arg("--json").arg(&output));
        let loads = check.stdout.contains("\"verdict\": \"loads\"");
        assert!(!done || loads, "{check:?}");
        if loads {
            // Not yet begun, or complete.
            assert_eq!(ok(tool("dump").arg(&output)).stdout, text, "round {round}");
        }
        if !output.exists() {
            ok(&mut restore());
        }
    }
    ok(&mut restore());
    assert_eq!(ok(tool("dump").arg(&output)).stdout, text);
}

/// Runs `command` with a new tmpfs of 256 KiB as its directory `small`; `None` where that is not
/// allowed.
fn on_a_small_disk(dir: &Path, command: &Command) -> Option<common::Ran> {
    let small = dir.join("small");
    std::fs::create_dir_all(&small).unwrap();
    let words: Vec<_> = [command.get_program()]
        .into_iter()
        .chain(command.get_args())
        .collect();
    let script = "mount -t tmpfs -o size=256k none \"$0\" || exit 99; \"$@\"; code=$?; ls \"$0\"; exit $code";
    let mut unshare = Command::new("unshare");
    unshare
        .args(["-Urm", "sh", "-c", script])
        .arg(&small)
        .args(words);
    match unshare.output() {
        Ok(output) if output.status.code() != Some(99) => Some(output.into()),
        _ => {
            eprintln!("skipped: no tmpfs may be mounted here");
            None
        }
    }
}

#[test]
fn a_full_disk_is_named_with_the_offset() {
    let dir = tempdir().unwrap();
    let image = Image::of(8, &(0..200).filter(|i| i % 3 != 0).collect::<Vec<_>>());
    let cow = image.write_cow(&dir.path().join("cow"));
    let origin = image.write_origin(&dir.path().join("origin"));
    let output = dir.path().join("small/out");

    let mut export = tool("export");
    export
        .arg("-i")
        .arg(&cow)
        .arg("--origin")
        .arg(&origin)
        .arg("-o")
        .arg(&output);
    if let Some(ran) = on_a_small_disk(dir.path(), &export) {
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(
            ran.stderr.contains("out.partial: cannot write at byte "),
            "{ran:?}"
        );
        assert!(
            ran.stdout.contains("out.partial") && !ran.stdout.contains("out\n"),
            "{ran:?}"
        );
    }
    let mut repair = tool("repair");
    repair.arg("-i").arg(&cow).arg("-o").arg(&output);
    if let Some(ran) = on_a_small_disk(dir.path(), &repair) {
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(
            ran.stderr.contains("small/out: cannot write at byte "),
            "{ran:?}"
        );
    }
    let mut dump = tool("dump");
    dump.arg(&cow).args(["-o", "/dev/full"]);
    fails(
        &mut dump,
        "/dev/full: cannot write at byte 0: No space left on device",
    );
}

#[test]
fn a_device_that_ends_early_is_named_with_the_offset() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("disk");
    std::fs::write(&path, [1; 8192]).unwrap();
    let device = Device::open(&path, Access::Read).unwrap();
    std::fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(5000)
        .unwrap();
    let error = device
        .read_at(&mut [0; 4096], 4096)
        .unwrap_err()
        .to_string();
    assert!(error.contains("disk: cannot read at byte 5000"), "{error}");
}

#[test]
fn what_is_in_use_is_refused() {
    let dir = tempdir().unwrap();
    let cow = Image::of(8, &[1, 2]).write_cow(&dir.path().join("cow"));
    let held = Device::open(&cow, Access::Write).unwrap();
    fails(tool("check").arg(&cow), "it is in use");
    drop(held);
    let held = Device::open(&cow, Access::Read).unwrap();
    ok(tool("check").arg(&cow));
    drop(held);
}

// SPDX-License-Identifier: GPL-2.0-only

//! Random command lines: every pair of paths among input, origin, output and state, of all kinds of
//! files. Whatever a tool makes of them, nothing changes that was not named as its output, what was
//! named as its input as well stays, and there is no panic.
//!
//! `SNAP_LINES` says how many command lines are tried; the default is 600.

mod common;
#[path = "common/loops.rs"]
mod loops;

use common::{ok, tool, Image};
use loops::Loop;
use proptest::prelude::RngCore;
use proptest::test_runner::{RngAlgorithm, TestRng};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{symlink, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::{tempdir, TempDir};

/// What there is: a name, and the file whose bytes it stands for.
const NAMES: &[(&str, &str)] = &[
    ("cow", "cow"),
    ("cow-link", "cow"),
    ("cow-hard", "cow"),
    ("cow-loop", "cow"),
    ("cow-loop-again", "cow"),
    ("other", "other"),
    ("origin", "origin"),
    ("origin-link", "origin"),
    ("origin-hard", "origin"),
    ("origin-loop", "origin"),
    ("disk", "disk"),
    ("disk-loop", "disk"),
    ("blank", "blank"),
    ("dump", "dump"),
    ("dump-link", "dump"),
    ("dump-hard", "dump"),
    ("precious", "precious"),
    ("precious.partial", "precious.partial"),
    ("empty", "empty"),
    ("read-only", "read-only"),
    ("dangling", "new"),
    ("new", "new"),
    ("directory", "directory"),
    ("directory/new", "directory/new"),
    ("nowhere/new", "nowhere/new"),
    ("fifo", "fifo"),
    ("/dev/null", "/dev/null"),
    ("/dev/full", "/dev/full"),
];

/// A directory with one of each.
struct World {
    dir: TempDir,
    loops: BTreeMap<&'static str, Loop>,
}

impl World {
    fn new() -> Self {
        let dir = tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut image = Image::of(1, &[3, 4, 9, 30]);
        image.origin_sectors = 64;
        image.write_cow(&at("cow"));
        image.write_origin(&at("origin"));
        let mut other = Image::of(2, &[2, 5, 6]);
        other.origin_sectors = 64;
        other.write_cow(&at("other"));
        let dump = ok(tool("dump").arg(at("cow"))).stdout;
        fs::write(at("dump"), dump).unwrap();
        fs::write(at("disk"), vec![0; 1 << 16]).unwrap();
        fs::write(at("blank"), vec![0; 1 << 16]).unwrap();
        fs::write(at("precious"), vec![0x5a; 5000]).unwrap();
        fs::write(at("precious.partial"), vec![0x5b; 3000]).unwrap();
        fs::write(at("empty"), []).unwrap();
        fs::write(at("read-only"), "{}").unwrap();
        fs::set_permissions(at("read-only"), PermissionsExt::from_mode(0o444)).unwrap();
        for name in ["cow", "origin", "dump"] {
            symlink(name, at(&format!("{name}-link"))).unwrap();
            fs::hard_link(at(name), at(&format!("{name}-hard"))).unwrap();
        }
        symlink("new", at("dangling")).unwrap();
        fs::create_dir(at("directory")).unwrap();
        assert!(Command::new("mkfifo")
            .arg(at("fifo"))
            .status()
            .unwrap()
            .success());
        let mut loops = BTreeMap::new();
        for (name, file) in [
            ("cow-loop", "cow"),
            ("cow-loop-again", "cow"),
            ("origin-loop", "origin"),
            ("disk-loop", "disk"),
        ] {
            match Loop::new(&at(file), &[]) {
                Some(device) => {
                    loops.insert(name, device);
                }
                // Where no loop device may be made, the name stands for the file all the same.
                None => symlink(file, at(name)).unwrap(),
            }
        }
        Self { dir, loops }
    }

    /// What to call `name` on a command line.
    fn argument(&self, name: &str) -> PathBuf {
        match self.loops.get(name) {
            Some(device) => device.path().into(),
            None => name.into(),
        }
    }

    fn content(&self) -> BTreeMap<String, Vec<u8>> {
        fn add(all: &mut BTreeMap<String, Vec<u8>>, directory: &Path, prefix: &str) {
            for entry in fs::read_dir(directory).unwrap() {
                let entry = entry.unwrap();
                let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
                let meta = entry.path().symlink_metadata().unwrap();
                if meta.is_dir() {
                    add(all, &entry.path(), &format!("{name}/"));
                } else if meta.is_symlink() {
                    let target = fs::read_link(entry.path()).unwrap();
                    all.insert(name, target.as_os_str().as_encoded_bytes().to_vec());
                } else if meta.is_file() {
                    all.insert(name, fs::read(entry.path()).unwrap());
                }
            }
        }
        let mut all = BTreeMap::new();
        add(&mut all, self.dir.path(), "");
        all
    }
}

struct Line {
    arguments: Vec<PathBuf>,
    inputs: Vec<&'static str>,
    outputs: Vec<&'static str>,
    state: Option<&'static str>,
}

/// Random choices.
struct Chance(TestRng);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        (self.0.next_u32() as usize) % end
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn name(&mut self) -> &'static str {
        NAMES[self.below(NAMES.len())].0
    }

    /// A name that makes sense half of the time, so that the tools get somewhere.
    fn likely(&mut self, sensible: &'static str) -> &'static str {
        if self.one_in(2) {
            sensible
        } else {
            self.name()
        }
    }

    fn line(&mut self, world: &World) -> Line {
        let tools = [
            "check", "stat", "dump", "delta", "restore", "repair", "export", "merge",
        ];
        let tool = tools[self.below(tools.len())];
        let mut line = Line {
            arguments: vec![tool.into()],
            inputs: Vec::new(),
            outputs: Vec::new(),
            state: None,
        };
        let put = |line: &mut Line, option: &str, name: &'static str| {
            if !option.is_empty() {
                line.arguments.push(option.into());
            }
            line.arguments.push(world.argument(name));
            name
        };
        let input = self.likely(if tool == "restore" { "dump" } else { "cow" });
        let is_plain = ["check", "stat", "dump", "delta"].contains(&tool);
        let name = put(&mut line, if is_plain { "" } else { "-i" }, input);
        line.inputs.push(name);
        if tool == "delta" && self.one_in(3) {
            let name = put(&mut line, "", self.likely("other"));
            line.inputs.push(name);
        }
        let origin = match tool {
            "stat" | "dump" => false,
            "export" | "merge" => true,
            _ => self.one_in(2),
        };
        if origin {
            let name = put(&mut line, "--origin", self.likely("origin"));
            line.inputs.push(name);
            if tool == "delta" && self.one_in(2) {
                line.arguments.push("--compare".into());
            }
        }
        if tool == "merge" {
            if self.one_in(3) {
                line.arguments.push("--dry-run".into());
            } else {
                // It changes both, in place.
                line.outputs = std::mem::take(&mut line.inputs);
            }
        } else if !["check", "stat"].contains(&tool) {
            let name = put(&mut line, "-o", self.name());
            line.outputs.push(name);
            if self.one_in(2) {
                line.arguments.push("--force".into());
            }
        }
        if tool == "export" {
            if self.one_in(2) {
                line.state = Some(put(&mut line, "--state", self.name()));
            }
            for option in ["--restart", "--sha256", "--verify"] {
                if self.one_in(if option == "--restart" { 2 } else { 4 }) {
                    line.arguments.push(option.into());
                }
            }
        }
        line
    }
}

fn file_of(name: &str) -> &'static str {
    NAMES.iter().find(|(known, _)| *known == name).unwrap().1
}

/// Runs the line with a FIFO that has a line to read and takes what is written; returns the exit
/// status.
fn run(world: &World, line: &Line) -> (Option<i32>, String) {
    let mut fifo = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
        .open(world.dir.path().join("fifo"))
        .unwrap();
    fifo.write_all(b"nonsense\n").unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_snap_tools"))
        .args(&line.arguments)
        .current_dir(world.dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            let mut rest = [0; 1 << 16];
            while fifo.read(&mut rest).is_ok_and(|bytes| bytes > 0) {}
            return (status.code(), said);
        }
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{:?} hangs",
            line.arguments
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn nothing_changes_that_was_not_named() {
    let lines = std::env::var("SNAP_LINES").map_or(600, |lines| lines.parse().unwrap());
    let mut chance = Chance(TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let mut world = World::new();
    let mut before = world.content();
    let mut successes = BTreeMap::new();
    for number in 0..lines {
        let line = chance.line(&world);
        let shown = format!("line {number}: {:?}", line.arguments);
        let (code, said) = run(&world, &line);
        assert!(matches!(code, Some(0..=2)), "{shown}: {code:?} {said}");
        let after = world.content();
        if code == Some(0) {
            *successes.entry(line.arguments[0].clone()).or_insert(0) += 1;
        }
        if after == before {
            continue;
        }
        let named = |names: &[&str], file: &str| names.iter().any(|name| file_of(name) == file);
        let mut files: Vec<&String> = before.keys().chain(after.keys()).collect();
        files.dedup();
        for file in files
            .into_iter()
            .filter(|file| before.get(*file) != after.get(*file))
        {
            // A hard link stands for the same bytes, unless another file took its name.
            let bytes = NAMES
                .iter()
                .find(|(name, _)| name == file)
                .map_or(&file[..], |(_, of)| of);
            let is_output = named(&line.outputs, bytes);
            // An export that failed half-way leaves what it needs to go on, if that is new.
            let is_new = !before.contains_key(file);
            let goes_on = line.outputs.iter().any(|output| {
                let output = file_of(output);
                *file == format!("{output}.partial") || *file == format!("{output}.partial.state")
            });
            let is_state = line.state.is_some_and(|state| file_of(state) == bytes);
            let allowed = is_output || (is_new && (goes_on || is_state));
            assert!(
                allowed,
                "{shown}: changed {file}, exit status {code:?}: {said}"
            );
            let is_input = named(&line.inputs, bytes);
            assert!(!is_input, "{shown}: changed its input {file}");
        }
        if !line.arguments.contains(&"--force".into()) && line.arguments[0] != Path::new("merge") {
            for output in &line.outputs {
                let held = before.get(file_of(output)).map_or(&[][..], |bytes| bytes);
                assert!(
                    held.iter().all(|byte| *byte == 0),
                    "{shown}: overwrote {output}"
                );
            }
        }
        world = World::new();
        before = world.content();
    }
    // Not all of them were refused.
    assert!(successes.len() == 8 || lines < 500, "{successes:?}");
    eprintln!("{lines} lines, of which succeeded: {successes:?}");
}

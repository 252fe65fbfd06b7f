// SPDX-License-Identifier: GPL-2.0-only

//! Random command lines: every pair of paths among input, origin, output and state, of all kinds of
//! files. Whatever a tool makes of them, nothing changes that was not named as its output, what was
//! named as its input as well stays, and there is no panic and no end to wait for.
//!
//! Half of the lines take the pairs in a random order, each once; the other half makes sense more
//! often. `SNAP_LINES` says how many lines are tried; the default is 600. `SNAP_SEED` is a number
//! from which all choices follow; the default is 0. As root, where loop devices may be made, devices
//! are among the files.

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
use std::os::unix::fs::{symlink, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::{tempdir, NamedTempFile, TempDir};

/// What there is: a name, and the file whose bytes it stands for.
const NAMES: &[(&str, &str)] = &[
    ("cow", "cow"),
    ("./cow", "cow"),
    ("directory/../cow", "cow"),
    ("cow-absolute", "cow"),
    ("cow-link", "cow"),
    ("cow-hard", "cow"),
    ("cow-loop", "cow"),
    ("cow-loop-again", "cow"),
    ("cow-loop-read-only", "cow"),
    ("cow-node", "cow"),
    ("other", "other"),
    ("origin", "origin"),
    ("origin-link", "origin"),
    ("origin-hard", "origin"),
    ("origin-loop", "origin"),
    ("disk", "disk"),
    ("disk-loop", "disk"),
    ("disk-node", "disk"),
    ("blank", "blank"),
    ("stream", "stream"),
    ("change", "change"),
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
    ("directory-link", "directory"),
    ("directory/new", "directory/new"),
    ("nowhere/new", "nowhere/new"),
    ("fifo", "fifo"),
    ("-", "-"),
    ("/dev/null", "/dev/null"),
    ("/dev/full", "/dev/full"),
];

/// A place for a path on a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Input,
    Other,
    Origin,
    Output,
    State,
}

use Role::{Input, Origin, Other, Output, State};

/// The tools, and what paths they take.
const TOOLS: &[(&str, &[Role])] = &[
    ("check", &[Input, Origin]),
    ("stat", &[Input]),
    ("rmap", &[Input]),
    ("size", &[Origin]),
    ("dump", &[Input, Output]),
    ("delta", &[Input, Other, Origin, Output]),
    ("restore", &[Input, Origin, Output]),
    ("repair", &[Input, Origin, Output]),
    ("export", &[Input, Origin, Output, State]),
    ("merge", &[Input, Origin]),
    ("send", &[Input, Other, Origin, Output]),
    ("receive", &[Input, Output, State]),
    ("top", &[Output]),
];

/// Names for two roles of a tool, or for the only one.
#[derive(Clone, Debug)]
struct Pair {
    tool: usize,
    names: Vec<(Role, &'static str)>,
}

impl Pair {
    /// All that there are.
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        let names = || NAMES.iter().map(|(name, _)| *name);
        for (tool, (_, roles)) in TOOLS.iter().enumerate() {
            for (at, one) in roles.iter().enumerate() {
                for name in names() {
                    let first = (*one, name);
                    for two in &roles[at + 1..] {
                        all.extend(names().map(|name| Self {
                            tool,
                            names: vec![first, (*two, name)],
                        }));
                    }
                    if roles.len() == 1 {
                        all.push(Self {
                            tool,
                            names: vec![first],
                        });
                    }
                }
            }
        }
        all
    }

    fn name(&self, role: Role) -> Option<&'static str> {
        let found = self.names.iter().find(|(known, _)| *known == role);
        found.map(|(_, name)| *name)
    }
}

/// A directory with one of each.
struct World {
    dir: TempDir,
    loops: BTreeMap<&'static str, Loop>,
    /// Where what a tool says is kept meanwhile.
    said: NamedTempFile,
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
        for (name, arguments) in [
            ("stream", &["-i", "cow"][..]),
            ("change", &["-i", "cow", "--base", "other"]),
        ] {
            let mut send = tool("send");
            send.current_dir(&dir).args(arguments);
            ok(send.args(["--origin", "origin", "-o", name]));
        }
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
        symlink("directory", at("directory-link")).unwrap();
        assert!(Command::new("mkfifo")
            .arg(at("fifo"))
            .status()
            .unwrap()
            .success());
        let mut loops = BTreeMap::new();
        for (name, file, options) in [
            ("cow-loop", "cow", &[][..]),
            ("cow-loop-again", "cow", &[]),
            ("cow-loop-read-only", "cow", &["-r"]),
            ("origin-loop", "origin", &[]),
            ("disk-loop", "disk", &[]),
        ] {
            match Loop::new(&at(file), options) {
                Some(device) => {
                    loops.insert(name, device);
                }
                // Where no loop device may be made, the name stands for the file all the same.
                None => symlink(file, at(name)).unwrap(),
            }
        }
        for (name, of) in [("cow-node", "cow-loop"), ("disk-node", "disk-loop")] {
            let made = loops.get(of).is_some_and(|of| {
                let number = fs::metadata(of.path()).unwrap().rdev();
                let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
                let numbers = [major.to_string(), minor.to_string()];
                let mknod = Command::new("mknod")
                    .arg(at(name))
                    .arg("b")
                    .args(numbers)
                    .status();
                mknod.unwrap().success()
            });
            if !made {
                symlink(of, at(name)).unwrap();
            }
        }
        let said = NamedTempFile::new().unwrap();
        Self { dir, loops, said }
    }

    /// What to call `name` on a command line.
    fn argument(&self, name: &str) -> PathBuf {
        match (self.loops.get(name), name) {
            (Some(device), _) => device.path().into(),
            (None, "cow-absolute") => self.dir.path().join("cow"),
            (None, _) => name.into(),
        }
    }

    /// What there is: of files the bytes, of links where they lead, of others what they are.
    fn content(&self) -> BTreeMap<String, Vec<u8>> {
        fn add(all: &mut BTreeMap<String, Vec<u8>>, directory: &Path, prefix: &str) {
            for entry in fs::read_dir(directory).unwrap() {
                let entry = entry.unwrap();
                let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
                let meta = entry.path().symlink_metadata().unwrap();
                if meta.is_dir() {
                    add(all, &entry.path(), &format!("{name}/"));
                    all.insert(name, b"directory".to_vec());
                } else if meta.is_symlink() {
                    let target = fs::read_link(entry.path()).unwrap();
                    all.insert(name, target.as_os_str().as_encoded_bytes().to_vec());
                } else if meta.is_file() {
                    all.insert(name, fs::read(entry.path()).unwrap());
                } else {
                    all.insert(name, format!("{:?}", meta.file_type()).into_bytes());
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

    /// One of two, three, …
    fn put(&mut self, n: usize, option: &str, line: &mut Line) {
        if self.one_in(n) {
            line.arguments.push(option.into());
        }
    }

    /// A line with the names of `pair`; the others are as they come.
    fn line(&mut self, world: &World, pair: Option<&Pair>) -> Line {
        let (tool, roles) = TOOLS[pair.map_or_else(|| self.below(TOOLS.len()), |pair| pair.tool)];
        let mut line = Line {
            arguments: vec![tool.into()],
            inputs: Vec::new(),
            outputs: Vec::new(),
            state: None,
        };
        for role in roles {
            let is_needed = match (role, tool) {
                (Input | Output, _) => tool != "delta" || *role == Input,
                (Origin, "export" | "merge" | "send" | "size") => true,
                _ => false,
            };
            let asked = pair.and_then(|pair| pair.name(*role));
            if asked.is_none() && !is_needed && self.one_in(2) {
                continue;
            }
            let name = asked.unwrap_or_else(|| match role {
                Input if tool == "restore" => self.likely("dump"),
                Input if tool == "receive" && self.one_in(2) => self.likely("change"),
                Input if tool == "receive" => self.likely("stream"),
                Input => self.likely("cow"),
                Other => self.likely("other"),
                Origin => self.likely("origin"),
                Output if self.one_in(4) => "new",
                Output | State => self.name(),
            });
            let is_plain = ["check", "stat", "rmap", "dump", "delta"].contains(&tool);
            match (role, tool) {
                (Input | Other, _) if is_plain => {}
                (Other, _) => line.arguments.push("--base".into()),
                (Input, _) => line.arguments.push("-i".into()),
                (Origin, _) => line.arguments.push("--origin".into()),
                (Output, "top") => line.arguments.push("--prometheus".into()),
                (Output, _) => line.arguments.push("-o".into()),
                (State, _) => line.arguments.push("--state".into()),
            }
            line.arguments.push(world.argument(name));
            match role {
                Input | Other | Origin => line.inputs.push(name),
                Output => line.outputs.push(name),
                State => line.state = Some(name),
            }
        }
        match tool {
            "check" => self.put(3, "--header-only", &mut line),
            "rmap" => line.arguments.push("0..3".into()),
            "dump" => {
                self.put(3, "--raw", &mut line);
                self.put(3, "--format=json", &mut line);
            }
            "delta" => self.put(3, "--compare", &mut line),
            "repair" => self.put(3, "--past-end", &mut line),
            "top" => line.arguments.push("--once".into()),
            "export" => {
                self.put(2, "--restart", &mut line);
                self.put(4, "--format=qcow2", &mut line);
                self.put(4, "--sha256", &mut line);
                self.put(4, "--verify", &mut line);
            }
            "send" if line.arguments.contains(&"--base".into()) => {
                self.put(4, "--trust-base", &mut line);
            }
            _ => {}
        }
        match tool {
            "repair" | "merge" | "receive" if self.one_in(3) => {
                line.arguments.push("--dry-run".into());
                line.outputs.clear();
            }
            // It changes both, in place.
            "merge" => line.outputs = std::mem::take(&mut line.inputs),
            _ => {}
        }
        if roles.contains(&Output) && tool != "top" {
            self.put(2, "--force", &mut line);
        }
        self.put(8, "--quiet", &mut line);
        line
    }
}

fn file_of(name: &str) -> &'static str {
    NAMES.iter().find(|(known, _)| *known == name).unwrap().1
}

/// How long a tool may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the line with a FIFO that has a line to read, or takes what is written; returns the exit
/// status and what was said.
fn run(world: &World, line: &Line) -> (Option<i32>, String) {
    let mut fifo = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
        .open(world.dir.path().join("fifo"))
        .unwrap();
    let takes = line.outputs.contains(&"fifo");
    if !takes {
        fifo.write_all(b"nonsense\n").unwrap();
    }
    world.said.as_file().set_len(0).unwrap();
    let said = OpenOptions::new()
        .append(true)
        .open(world.said.path())
        .unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_snap_tools"))
        .args(&line.arguments)
        .current_dir(world.dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(said)
        .spawn()
        .unwrap();
    let mut drain = || {
        let mut rest = [0; 1 << 16];
        while fifo.read(&mut rest).is_ok_and(|bytes| bytes > 0) {}
    };
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{:?} hangs", line.arguments);
        }
        if takes {
            drain();
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    drain();
    let said = fs::read_to_string(world.said.path()).unwrap();
    (status.code(), said)
}

/// A number from the environment.
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |number| number.parse().unwrap())
}

#[test]
fn nothing_changes_that_was_not_named() {
    let lines = number("SNAP_LINES", 600);
    let seed = number("SNAP_SEED", 0);
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut chance = Chance(TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let mut pairs = Pair::all();
    for left in (1..pairs.len()).rev() {
        pairs.swap(left, chance.below(left + 1));
    }
    let mut untried = pairs.iter();
    let mut world = World::new();
    let mut before = world.content();
    let mut successes = BTreeMap::new();
    for number in 0..lines {
        let pair = if number % 2 == 0 {
            untried.next()
        } else {
            None
        };
        let line = chance.line(&world, pair);
        let shown = format!("seed {seed} line {number}: {:?}", line.arguments);
        let (code, said) = run(&world, &line);
        assert!(matches!(code, Some(0..=2)), "{shown}: {code:?} {said}");
        // What is wrong with a COW device is on standard output.
        let is_bad_news = code == Some(1) && line.arguments[0] == Path::new("check");
        assert!(
            code == Some(0) || is_bad_news || !said.is_empty(),
            "{shown}: fails without a word"
        );
        let after = world.content();
        if code == Some(0) {
            *successes.entry(line.arguments[0].clone()).or_insert(0) += 1;
        }
        if after == before {
            // A file that was replaced by one of the same content is no hard link any more.
            if code == Some(0) && !line.outputs.is_empty() {
                world = World::new();
            }
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
                // It is beside a file, or beside a hard link.
                [*output, file_of(output)].into_iter().any(|output| {
                    *file == format!("{output}.partial")
                        || *file == format!("{output}.partial.state")
                        || *file == format!("{output}.state")
                })
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
    let all = TOOLS.iter().filter(|(tool, _)| *tool != "top").count();
    assert!(successes.len() >= all || lines < 500, "{successes:?}");
    for device in ["/dev/null", "/dev/full"] {
        assert!(fs::metadata(device).unwrap().file_type().is_char_device());
    }
    eprintln!(
        "seed {seed}: {lines} lines, {} of {} pairs, loop devices: {}, of which succeeded: \
         {successes:?}",
        pairs.len() - untried.len(),
        pairs.len(),
        !world.loops.is_empty(),
    );
}

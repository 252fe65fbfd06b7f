// SPDX-License-Identifier: GPL-2.0-only

//! `snap_send` and `snap_receive`: what is received is what a plain copy is, whatever happens on the
//! way, and what is not the base stays as it is.
//!
//! `SNAP_KILLS` says how many times a receive is killed; the default is 100.

mod common;
#[path = "common/loops.rs"]
mod loops;

use common::{fails, patch, run, tool, Image, Ran};
use loops::Loop;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng};
use snap_tools::digest::Digest;
use snap_tools::output::Output;
use snap_tools::stream::Stream;
use snap_tools::transfer::{Before, Check, Content, Head, Reader, Writer};
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write as _};
use std::os::unix::fs::{symlink, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::{tempdir, TempDir};

const SECTOR: usize = 512;

/// A snapshot of which the chunks are copied when the origin is written.
#[derive(Clone, Debug)]
struct Copied {
    chunk: usize,
    /// What the origin was when it was made.
    content: Vec<u8>,
    /// The chunks that were copied, in the order in which they were.
    old: Vec<u64>,
}

/// A write to the origin.
#[derive(Clone, Debug)]
struct Write {
    sector: usize,
    sectors: usize,
    /// 0 stands for zeros, 1 for what is there already.
    seed: u8,
}

/// An origin, and snapshots that were made of it one after the other.
#[derive(Clone, Debug)]
struct History {
    origin: Vec<u8>,
    snapshots: Vec<Copied>,
}

impl History {
    fn new(sectors: usize) -> Self {
        let origin = (0..sectors * SECTOR)
            .map(|at| (at / 7 % 251) as u8)
            .collect();
        Self {
            origin,
            snapshots: Vec::new(),
        }
    }

    fn snapshot(&mut self, chunk_sectors: u32) {
        self.snapshots.push(Copied {
            chunk: chunk_sectors as usize * SECTOR,
            content: self.origin.clone(),
            old: Vec::new(),
        });
    }

    fn write(&mut self, write: &Write) {
        let start = write.sector * SECTOR % self.origin.len();
        let end = self.origin.len().min(start + write.sectors * SECTOR);
        for snapshot in &mut self.snapshots {
            for old in start / snapshot.chunk..end.div_ceil(snapshot.chunk) {
                if !snapshot.old.contains(&(old as u64)) {
                    snapshot.old.push(old as u64);
                }
            }
        }
        for (at, byte) in self.origin[start..end].iter_mut().enumerate() {
            match write.seed {
                0 => *byte = 0,
                1 => {}
                seed => *byte = (at as u8).wrapping_mul(seed) ^ seed,
            }
        }
    }

    /// What each snapshot is, and at last the origin.
    fn contents(&self) -> Vec<&[u8]> {
        let contents = self.snapshots.iter().map(|snapshot| &snapshot.content[..]);
        contents.chain([&self.origin[..]]).collect()
    }

    /// Writes `origin`, and `cow0`, `cow1`, ….
    fn files(self) -> Files {
        let dir = tempdir().unwrap();
        fs::write(dir.path().join("origin"), &self.origin).unwrap();
        for (number, snapshot) in self.snapshots.iter().enumerate() {
            let path = dir.path().join(format!("cow{number}"));
            let image = Image::of((snapshot.chunk / SECTOR) as u32, &snapshot.old);
            image.write_cow(&path);
            for (old, new) in &image.records {
                let start = *old as usize * snapshot.chunk;
                let end = snapshot.content.len().min(start + snapshot.chunk);
                let content = &snapshot.content[start..end];
                patch(&path, new * snapshot.chunk as u64, content);
            }
        }
        Files { dir, history: self }
    }
}

struct Files {
    dir: TempDir,
    history: History,
}

/// What env is told for a program to hear of the end of its terminal.
const HEARS: &str = "--default-signal=HUP";

impl Files {
    /// Two snapshots, a chunk size of a page, `chunks` chunks of which every other changed between
    /// them, and some after both.
    fn two(chunks: usize) -> Self {
        let mut history = History::new(chunks * 8);
        history.snapshot(8);
        for chunk in (0..chunks).step_by(2) {
            history.write(&Write {
                sector: chunk * 8,
                sectors: 3,
                seed: [0, 1, 7, 9][chunk / 2 % 4],
            });
        }
        history.snapshot(8);
        for chunk in (0..chunks).step_by(3) {
            history.write(&Write {
                sector: chunk * 8 + 4,
                sectors: 1,
                seed: 5,
            });
        }
        history.files()
    }

    /// The same, of a few sectors.
    fn few() -> Self {
        let mut history = History::new(9);
        history.snapshot(1);
        for (sector, seed) in [(1, 7), (2, 0), (6, 9)] {
            history.write(&Write {
                sector,
                sectors: 1,
                seed,
            });
        }
        history.snapshot(1);
        history.files()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn content(&self, number: usize) -> &[u8] {
        self.history.contents()[number]
    }

    /// Hears of the end of its terminal, even where nohup runs the tests.
    fn tool(&self, name: &str, arguments: &[&str]) -> Command {
        let tool = tool(name);
        let mut command = Command::new("env");
        command.arg(HEARS).arg(tool.get_program());
        command.args(tool.get_args()).args(arguments);
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    /// What sends content `now`, of which the last is the origin, to one who has content `base`.
    fn send(&self, base: Option<usize>, now: usize) -> Command {
        let mut command = self.tool("send", &["--origin", "origin", "-q"]);
        if let Some(base) = base {
            command.args(["--base", &format!("cow{base}")]);
        }
        if now < self.history.snapshots.len() {
            command.args(["-i", &format!("cow{now}")]);
        }
        command
    }

    fn stream(&self, base: Option<usize>, now: usize) -> Vec<u8> {
        Self::sent(&mut self.send(base, now))
    }

    /// The same, of which the receiver cannot compare all.
    fn trusting_stream(&self, base: usize, now: usize) -> Vec<u8> {
        Self::sent(self.send(Some(base), now).arg("--trust-base"))
    }

    fn sent(send: &mut Command) -> Vec<u8> {
        let sent = send.output().unwrap();
        assert_eq!(sent.status.code(), Some(0), "{sent:?}");
        sent.stdout
    }

    /// Receives `stream` to the file `out`.
    fn receive(&self, stream: &[u8], options: &[&str]) -> Ran {
        fs::write(self.path("stream"), stream).unwrap();
        run(self
            .tool("receive", &["-i", "stream", "-o", "out"])
            .args(options))
    }

    /// The names and contents of all files but the stream.
    fn all(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut all: Vec<_> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| !path.ends_with("stream"))
            .map(|path| (path.clone(), fs::read(&path).unwrap()))
            .collect();
        all.sort();
        all
    }
}

/// Starts `send` and `receive` with a pipe between them.
fn pipe(send: &mut Command, receive: &mut Command) -> (Child, Child) {
    let mut sender = send.stdout(Stdio::piped()).spawn().unwrap();
    let receiver = receive.stdin(sender.stdout.take().unwrap()).spawn();
    (sender, receiver.unwrap())
}

fn through_a_pipe(send: &mut Command, receive: &mut Command) {
    let (mut sender, mut receiver) = pipe(send, receive);
    assert!(receiver.wait().unwrap().success(), "{receive:?}");
    assert!(sender.wait().unwrap().success(), "{send:?}");
}

fn writes() -> impl Strategy<Value = Vec<Write>> {
    let write = (0_usize..700, 1_usize..60, 0_u8..6).prop_map(|(sector, sectors, seed)| Write {
        sector,
        sectors,
        seed,
    });
    prop::collection::vec(write, 0..5)
}

/// Snapshots with other writes before each and after the last.
fn history(snapshots: usize) -> impl Strategy<Value = History> {
    let steps = prop::collection::vec((writes(), 0_u32..6), snapshots);
    (600_usize..700, steps, writes()).prop_map(|(sectors, steps, last)| {
        let mut history = History::new(sectors);
        for (writes, shift) in steps {
            writes.iter().for_each(|write| history.write(write));
            history.snapshot(1 << shift);
        }
        last.iter().for_each(|write| history.write(write));
        history
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn a_chain_of_ten_arrives_over_a_pipe(
        history in history(10),
        trust_base in any::<bool>()
    ) {
        let files = history.files();
        let receive = || files.tool("receive", &["-q", "-o", "out", "--batch", "64"]);
        let mut base = None;
        for now in 0..=10 {
            let mut send = files.send(base, now);
            if trust_base && base.is_some() {
                send.arg("--trust-base");
            }
            through_a_pipe(&mut send, &mut receive());
            prop_assert!(fs::read(files.path("out")).unwrap() == files.content(now), "{}", now);
            prop_assert!(!files.path("out.state").exists());
            base = Some(now);
        }
    }

    #[test]
    fn any_two_make_each_other(
        history in history(4),
        base in 0_usize..4,
        now in 0_usize..5,
        flip in any::<prop::sample::Index>()
    ) {
        prop_assume!(base != now);
        let files = history.files();
        let stream = files.stream(Some(base), now);
        fs::write(files.path("out"), files.content(base)).unwrap();
        prop_assert_eq!(files.receive(&stream, &["--dry-run"]).code, Some(0));
        prop_assert!(fs::read(files.path("out")).unwrap() == files.content(base));

        // Damaged, it is refused; what is left then goes on.
        let mut damaged = stream.clone();
        damaged[flip.index(stream.len())] ^= 4;
        let ran = files.receive(&damaged, &[]);
        prop_assert_eq!(ran.code, Some(1), "{:?}", ran);
        let left = fs::read(files.path("out")).unwrap();
        prop_assert!(files.path("out.state").exists() || left == files.content(base));

        let ran = files.receive(&stream, &[]);
        prop_assert_eq!(ran.code, Some(0), "{:?}", ran);
        prop_assert!(fs::read(files.path("out")).unwrap() == files.content(now));
        // And once more, where there is nothing left to do.
        let ran = files.receive(&stream, &[]);
        prop_assert_eq!(ran.code, Some(0), "{:?}", ran);
        prop_assert!(fs::read(files.path("out")).unwrap() == files.content(now));
        prop_assert!(!files.path("out.state").exists());
        prop_assert_eq!(files.stream(Some(base), now), stream, "another stream of the same");
    }
}

#[test]
fn only_what_differs_is_sent() {
    let mut history = History::new(1 << 11);
    history.snapshot(8);
    history.write(&Write {
        sector: 80,
        sectors: 8,
        seed: 9,
    });
    history.snapshot(8);
    // Kept by both, and the same.
    history.write(&Write {
        sector: 800,
        sectors: 400,
        seed: 9,
    });
    let files = history.files();
    let stream = files.stream(Some(0), 1);
    assert!(stream.len() < 8 * SECTOR + 500, "{}", stream.len());
}

#[test]
fn holes_stay_holes() {
    let mut history = History::new(1 << 14);
    history.origin[SECTOR..].fill(0);
    history.snapshot(8);
    let files = history.files();
    let stream = files.stream(None, 0);
    assert!(stream.len() < 130 << 10, "{}", stream.len());
    assert_eq!(files.receive(&stream, &[]).code, Some(0));
    assert!(fs::read(files.path("out")).unwrap() == files.content(0));
    let blocks = fs::metadata(files.path("out")).unwrap().blocks();
    assert!(blocks * 512 < 1 << 18, "{blocks} blocks");
}

#[test]
fn what_is_not_the_base_is_not_changed() {
    let files = Files::two(64);
    let stream = files.stream(Some(0), 1);
    let base = files.content(0).to_vec();
    let differs = |at: usize| files.content(0)[at] != files.content(1)[at];
    let replaced = (0..base.len()).find(|at| differs(*at)).unwrap();
    let last = (0..base.len()).rfind(|at| differs(*at)).unwrap();
    for at in [replaced, last] {
        let mut other = base.clone();
        other[at] ^= 1;
        fs::write(files.path("out"), other).unwrap();
        let before = files.all();
        let ran = files.receive(&stream, &[]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stderr.contains("it is not the base"), "{ran:?}");
        // Nor with force.
        assert_eq!(files.receive(&stream, &["--force"]).code, Some(1));
        assert!(files.all() == before);
    }
    // Part of it is the snapshot, and nobody knows of a receive.
    let mut mixed = base.clone();
    mixed[..40 * 4096].copy_from_slice(&files.content(1)[..40 * 4096]);
    fs::write(files.path("out"), mixed).unwrap();
    let before = files.all();
    let ran = files.receive(&stream, &[]);
    assert!(ran.stderr.contains("its state is lost"), "{ran:?}");
    assert!(files.all() == before);
    for bytes in [base.len() - SECTOR, base.len() + SECTOR, base.len() + 1, 0] {
        let mut other = base.clone();
        other.resize(bytes, 0);
        fs::write(files.path("out"), other).unwrap();
        let before = files.all();
        let ran = files.receive(&stream, &["--force"]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stderr.contains(" bytes, but "), "{ran:?}");
        assert!(files.all() == before);
    }
    fs::remove_file(files.path("out")).unwrap();
    let before = files.all();
    let ran = files.receive(&stream, &[]);
    assert!(ran.stderr.contains("there is none"), "{ran:?}");
    assert!(files.all() == before);
}

#[test]
fn all_of_the_base_is_compared() {
    let files = Files::two(64);
    let same = (0..64)
        .map(|chunk| chunk * 4096)
        .find(|at| files.content(0)[*at..at + 4096] == files.content(1)[*at..at + 4096]);
    let mut other = files.content(0).to_vec();
    other[same.unwrap()] ^= 1;
    let stream = files.stream(Some(0), 1);
    fs::write(files.path("out"), &other).unwrap();
    let before = files.all();
    for options in [&["--dry-run"][..], &[], &["--force"]] {
        let ran = files.receive(&stream, options);
        assert!(ran.stderr.contains("not as a whole"), "{ran:?}");
        assert!(files.all() == before);
    }
    fs::write(files.path("out"), files.content(0)).unwrap();
    let ran = files.receive(&stream, &[]);
    assert!(ran.stderr.contains("all of it is what was sent"), "{ran:?}");
    // What is the snapshot already is compared, too.
    fs::write(files.path("out"), files.content(1)).unwrap();
    patch(&files.path("out"), same.unwrap() as u64, &[0xee]);
    let ran = files.receive(&stream, &[]);
    assert!(ran.stderr.contains("as its digest tells"), "{ran:?}");
    // Who trusts the base does not see that, and it is said.
    fs::write(files.path("out"), &other).unwrap();
    let trusting = files.trusting_stream(0, 1);
    let ran = files.receive(&trusting, &[]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains("--trust-base"), "{ran:?}");
    assert!(trusting.len() < stream.len());
}

#[test]
fn an_increment_that_was_left_out_is_noticed() {
    let mut history = History::new(16 * 8);
    for chunk in [3, 9] {
        history.snapshot(8);
        history.write(&Write {
            sector: chunk * 8,
            sectors: 8,
            seed: 7,
        });
    }
    history.snapshot(8);
    let files = history.files();
    fs::write(files.path("out"), files.content(0)).unwrap();
    let before = files.all();
    let ran = files.receive(&files.stream(Some(1), 2), &[]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("it is not the base"), "{ran:?}");
    assert!(files.all() == before);
    for now in [1, 2] {
        let ran = files.receive(&files.stream(Some(now - 1), now), &[]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }
    assert!(fs::read(files.path("out")).unwrap() == files.content(2));
}

#[test]
fn what_was_restored_by_hand_does_not_go_on() {
    let files = Files::two(40);
    let stream = files.stream(Some(0), 1);
    fs::write(files.path("out"), files.content(0)).unwrap();
    files.receive(&stream[..stream.len() - 5], &[]);
    assert!(files.path("out.state").exists());
    // Something else that a window hides.
    let mut other = files.content(0).to_vec();
    let same = (0..40)
        .map(|chunk| chunk * 4096)
        .find(|at| other[*at..at + 4096] == files.content(1)[*at..at + 4096]);
    other[same.unwrap()] ^= 1;
    fs::write(files.path("out"), &other).unwrap();
    let ran = files.receive(&stream, &[]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    for says in ["as its digest tells", "--force", "out.state"] {
        assert!(ran.stderr.contains(says), "{ran:?}");
    }
    // As is said whenever nothing else can be received there.
    let next = files.stream(Some(1), 2);
    let ran = files.receive(&next, &[]);
    for says in ["another stream", "--force", "out.state"] {
        assert!(ran.stderr.contains(says), "{ran:?}");
    }
    let ran = files.receive(&files.stream(None, 1), &["--force"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(!files.path("out.state").exists());
    assert_eq!(files.receive(&next, &[]).code, Some(0));
    assert!(fs::read(files.path("out")).unwrap() == files.content(2));
}

/// snap_send fails in the midst of its stream, whose beginning was read, and says `says`.
fn gives_up(mut reader: Reader<ChildStdout>, sender: Child, says: &str, case: &str) {
    let error = loop {
        match reader.content() {
            Ok(Content::End { .. }) => panic!("{case}"),
            Ok(_) => {}
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("it ends there"), "{error}");
    let ran: Ran = sender.wait_with_output().unwrap().into();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains(says), "{ran:?}");
}

#[test]
fn a_snapshot_that_changes_while_it_is_sent_is_not_sent() {
    for options in [&[][..], &["--trust-base"]] {
        let files = Files::two(1024);
        let mut send = files.send(Some(0), 1);
        send.args(options).stdout(Stdio::piped());
        let mut sender = send.stderr(Stdio::piped()).spawn().unwrap();
        let mut reader = Reader::new(sender.stdout.take().unwrap()).unwrap();
        while let Before::Check(_) = reader.before().unwrap() {}
        // It was told of, and is read once more far behind what the pipe holds.
        patch(&files.path("origin"), 1022 * 4096 + 512, &[0xee]);
        gives_up(
            reader,
            sender,
            "changed while it was sent",
            &format!("{options:?}"),
        );
    }
}

#[test]
fn what_is_written_while_it_is_sent_is_not_sent() {
    // Where nobody reads it a second time.
    let same = 1021 * 4096;
    for (base, written, at) in [
        (None, "origin", same),
        (None, "origin", 0),
        (None, "cow0", 64 * 4096),
        (Some(0), "origin", same),
        (Some(0), "cow1", 8),
    ] {
        let files = Files::two(1024);
        assert_eq!(
            files.content(0)[same..same + 4096],
            files.content(1)[same..same + 4096]
        );
        let mut send = files.send(base, base.map_or(0, |base| base + 1));
        send.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut sender = send.spawn().unwrap();
        let mut reader = Reader::new(sender.stdout.take().unwrap()).unwrap();
        while let Before::Check(_) = reader.before().unwrap() {}
        let mut byte = [0; 1];
        let file = fs::File::open(files.path(written)).unwrap();
        file.read_exact_at(&mut byte, at as u64).unwrap();
        patch(&files.path(written), at as u64, &byte);
        let says = format!("{written}: somebody wrote to it while it was read; the stream");
        gives_up(reader, sender, &says, &format!("{base:?} {written} {at}"));
    }
}

#[test]
fn a_device_that_is_written_while_it_is_sent_is_not_sent() {
    let files = Files::two(1024);
    let Some(device) = Loop::new(&files.path("origin"), &[]) else {
        return;
    };
    let origin = device.path().to_str().unwrap();
    let send = || {
        let mut send = files.tool("send", &["-q", "--origin", origin, "-i", "cow0"]);
        send.stdout(Stdio::piped()).stderr(Stdio::piped());
        send.spawn().unwrap()
    };
    // What was written before is on its way, and does not matter.
    patch(device.path(), 0, &files.history.origin[..512]);
    let ran = send().wait_with_output().unwrap();
    assert!(ran.status.success() && ran.stdout == files.stream(None, 0));
    let mut sender = send();
    let mut stream = sender.stdout.take().unwrap();
    stream.read_exact(&mut [0; 4096]).unwrap();
    // Not exclusively, so that it may.
    patch(device.path(), 4096, &files.history.origin[4096..8192]);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    let ran: Ran = sender.wait_with_output().unwrap().into();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let says = format!("{origin}: somebody wrote to it while it was read");
    assert!(ran.stderr.contains(&says), "{ran:?}");
}

#[test]
fn a_state_is_its_targets() {
    let files = Files::two(40);
    let stream = files.stream(Some(0), 1);
    let state = ["--state", "state"];
    fs::write(files.path("out"), files.content(0)).unwrap();
    assert_eq!(
        files.receive(&stream[..stream.len() - 5], &state).code,
        Some(1)
    );
    // Neither goes another one on with it nor does it take it away.
    fs::write(files.path("other"), files.content(0)).unwrap();
    fs::write(files.path("whole"), "").unwrap();
    let before = files.all();
    fs::write(files.path("stream"), &stream).unwrap();
    let mut other = files.tool("receive", &["-i", "stream", "-o", "other"]);
    fails(other.args(state), "another output");
    assert!(files.all() == before);
    fs::write(files.path("stream"), files.stream(None, 0)).unwrap();
    for name in ["whole", "new"] {
        let mut whole = files.tool("receive", &["-i", "stream", "-o", name]);
        assert_eq!(run(whole.args(state)).code, Some(0));
        assert!(files.path("state").exists());
    }
    let ran = files.receive(&stream, &state);
    assert!(ran.stderr.contains("gone on with"), "{ran:?}");
    assert!(fs::read(files.path("out")).unwrap() == files.content(1));
    // Nor is another one the same for its name.
    fs::write(files.path("out"), files.content(0)).unwrap();
    files.receive(&stream[..stream.len() - 5], &[]);
    fs::write(files.path("restored"), files.content(0)).unwrap();
    fs::rename(files.path("restored"), files.path("out")).unwrap();
    let before = files.all();
    let ran = files.receive(&stream, &[]);
    assert!(ran.stderr.contains("another output"), "{ran:?}");
    assert!(files.all() == before);
    fs::remove_file(files.path("out.state")).unwrap();
    assert_eq!(files.receive(&stream, &[]).code, Some(0));
}

/// A receive to the file `out` that has got a part of the stream.
struct Fed {
    child: Child,
    rest: Vec<u8>,
}

impl Fed {
    fn new(files: &Files, stream: &[u8], part: usize, options: &[&str]) -> Self {
        let mut receive = files.tool("receive", &["-o", "out"]);
        receive.args(options).stdin(Stdio::piped());
        let mut child = receive.stderr(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.as_mut().unwrap();
        stdin.write_all(&stream[..part]).unwrap();
        Self {
            child,
            rest: stream[part..].to_vec(),
        }
    }

    /// Waits until `files` has a file that begins with `name`.
    fn until(self, files: &Files, name: &str) -> Self {
        let has = |path: &Path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with(name)
        };
        while !names(files).iter().any(|path| has(path)) {
            sleep(Duration::from_millis(1));
        }
        self
    }

    fn finish(mut self) -> Ran {
        let mut stdin = self.child.stdin.take().unwrap();
        // It may have given up.
        let _ = stdin.write_all(&self.rest);
        drop(stdin);
        self.child.wait_with_output().unwrap().into()
    }
}

fn names(files: &Files) -> Vec<PathBuf> {
    let entries = fs::read_dir(files.dir.path()).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn nothing_is_received_over_what_is_being_replaced() {
    let files = Files::two(200);
    let (stream, whole) = (files.stream(Some(0), 1), files.stream(None, 0));
    fs::write(files.path("out"), files.content(0)).unwrap();
    let fed = Fed::new(&files, &stream, stream.len() - 5, &["--batch=8"]);
    let fed = fed.until(&files, "out.state");
    let ran = files.receive(&whole, &["--force"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("it is in use"), "{ran:?}");
    let ran = fed.finish();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(fs::read(files.path("out")).unwrap() == files.content(1));
    // The other way round.
    let fed = Fed::new(&files, &whole, whole.len() / 2, &["--force"]);
    let fed = fed.until(&files, ".snap_receive.");
    let next = files.stream(Some(1), 2);
    for (stream, options) in [(&next, &[][..]), (&whole, &["--force"][..])] {
        let ran = files.receive(stream, options);
        assert!(ran.stderr.contains("it is in use"), "{ran:?}");
    }
    let ran = fed.finish();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(fs::read(files.path("out")).unwrap() == files.content(0));
}

#[test]
fn a_file_that_appears_meanwhile_stays() {
    let files = Files::two(40);
    let whole = files.stream(None, 0);
    for content in ["precious", ""] {
        let fed = Fed::new(&files, &whole, whole.len() / 2, &[]);
        let fed = fed.until(&files, ".snap_receive.");
        fs::write(files.path("out"), content).unwrap();
        let ran = fed.finish();
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stderr.contains("--force"), "{ran:?}");
        assert_eq!(fs::read_to_string(files.path("out")).unwrap(), content);
        fs::remove_file(files.path("out")).unwrap();
    }
    let left = |path: &PathBuf| path.to_string_lossy().contains("/.snap_receive.");
    assert!(!names(&files).iter().any(left));
    // Nor is an increment in it lost.
    let (base, stream) = (files.content(0), files.stream(Some(0), 1));
    let whole = Fed::new(&files, &whole, whole.len() / 2, &["--force"]);
    let whole = whole.until(&files, ".snap_receive.");
    fs::write(files.path("out"), base).unwrap();
    let fed = Fed::new(&files, &stream, stream.len() - 5, &["--batch=8"]);
    let fed = fed.until(&files, "out.state");
    assert!(whole.finish().stderr.contains("it is in use"));
    assert_eq!(fed.finish().code, Some(0));
    assert!(fs::read(files.path("out")).unwrap() == files.content(1));
}

/// Reads all of a stream; returns at which byte each frame ends.
fn read(stream: &[u8]) -> snap_tools::Result<Vec<u64>> {
    let mut rest = stream;
    let mut reader = Reader::new(&mut rest)?;
    let mut ends = vec![reader.bytes_read()];
    while let Before::Check(_) = reader.before()? {
        ends.push(reader.bytes_read());
    }
    ends.push(reader.bytes_read());
    loop {
        if let Content::End { .. } = reader.content()? {
            return Ok(ends);
        }
        ends.push(reader.bytes_read());
    }
}

#[test]
fn a_stream_is_read_whole_or_not_at_all() {
    let files = Files::few();
    for stream in [files.stream(Some(0), 1), files.stream(None, 1)] {
        read(&stream).unwrap();
        for end in 0..stream.len() {
            let error = read(&stream[..end]).unwrap_err().to_string();
            assert!(error.contains("it ends there"), "{end}: {error}");
            let mut changed = stream.clone();
            for bit in [1, 0x80] {
                changed[end] ^= bit;
                let error = read(&changed).unwrap_err().to_string();
                assert!(error.starts_with("stream, byte "), "{end}: {error}");
            }
        }
        for more in [&[0][..], &stream] {
            let error = read(&[&stream[..], more].concat()).unwrap_err().to_string();
            assert!(error.contains("something follows its end"), "{error}");
        }
    }
}

#[test]
fn the_digests_of_all_are_there_or_none_of_them() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("stream");
    let (some, none) = (Some(Digest::of(b"any")), None);
    for (has_base, base, snapshot, may_be) in [
        (true, some, some, true),
        (true, none, none, true),
        (true, some, none, false),
        (true, none, some, false),
        (false, none, some, true),
        (false, none, none, false),
        (false, some, some, false),
    ] {
        let bytes = 512;
        let stream = Stream::file(&Output::new(&path, true)).unwrap();
        let mut writer = Writer::new(stream, Head { bytes, has_base }).unwrap();
        if has_base {
            let check = Check {
                range: 0..bytes,
                base: Digest::of(b"base"),
                snapshot: Digest::of(b"snapshot"),
            };
            writer.before(&Before::Check(check)).unwrap();
        }
        writer.before(&Before::Begin { bytes, base }).unwrap();
        writer.content(&Content::Zero(0..bytes)).unwrap();
        writer.content(&Content::End { snapshot }).unwrap();
        writer.finish().unwrap();
        let read = read(&fs::read(&path).unwrap());
        assert_eq!(read.is_ok(), may_be, "{has_base} {base:?} {snapshot:?}");
    }
}

#[test]
fn frames_stay_in_their_order() {
    let files = Files::few();
    let stream = files.stream(Some(0), 1);
    let ends = read(&stream).unwrap();
    let ends: Vec<usize> = ends.into_iter().map(|end| end as usize).collect();
    assert!(ends.len() > 5);
    for at in 1..ends.len() - 1 {
        let (start, middle, end) = (ends[at - 1], ends[at], ends[at + 1]);
        let without = [&stream[..start], &stream[middle..]].concat();
        let twice = [&stream[..middle], &stream[start..]].concat();
        let swapped = [
            &stream[..start],
            &stream[middle..end],
            &stream[start..middle],
            &stream[end..],
        ];
        for other in [without, twice, swapped.concat()] {
            assert!(read(&other).is_err(), "frame {at}");
        }
    }
}

#[test]
fn a_stream_that_is_cut_short_leaves_what_goes_on() {
    let files = Files::two(40);
    let stream = files.stream(Some(0), 1);
    let ends = read(&stream).unwrap();
    for end in ends.into_iter().map(|end| end as usize) {
        for end in [end - 1, end, end + 1] {
            fs::write(files.path("out"), files.content(0)).unwrap();
            let ran = files.receive(&stream[..end], &["--batch=24"]);
            assert_eq!(ran.code, Some(1), "{ran:?}");
            assert!(ran.stderr.contains("it ends there"), "{ran:?}");
            let state = files.path("out.state").exists();
            assert!(state || fs::read(files.path("out")).unwrap() == files.content(0));
            if state {
                // Nothing else may be received before.
                let ran = files.receive(&files.stream(Some(0), 2), &[]);
                assert_eq!(ran.code, Some(1), "{ran:?}");
                assert!(files.path("out.state").exists());
            }
            let ran = files.receive(&stream, &["--batch=24"]);
            assert_eq!(ran.code, Some(0), "{ran:?}");
            assert_eq!(ran.stderr.contains("gone on"), state, "{ran:?}");
            assert!(fs::read(files.path("out")).unwrap() == files.content(1));
            assert!(!files.path("out.state").exists());
        }
    }
    // Of a whole snapshot nothing is left.
    fs::remove_file(files.path("out")).unwrap();
    let stream = files.stream(None, 1);
    let before = files.all();
    assert_eq!(
        files.receive(&stream[..stream.len() - 1], &[]).code,
        Some(1)
    );
    assert!(files.all() == before);
}

#[test]
fn what_was_changed_after_a_receive_was_cut_short_is_noticed() {
    let files = Files::two(40);
    let stream = files.stream(Some(0), 1);
    let end = stream.len() * 3 / 4;
    fs::write(files.path("out"), files.content(0)).unwrap();
    files.receive(&stream[..end], &["--batch=8"]);
    let state = fs::read_to_string(files.path("out.state")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    let window = ["start", "end"].map(|name| state["window"][name].as_u64().unwrap() as usize);
    let differs = |at: &usize| files.content(0)[*at] != files.content(1)[*at];
    let left = fs::read(files.path("out")).unwrap();
    let first = (0..window[0]).find(differs).unwrap();
    let last = (window[1]..left.len()).rfind(differs).unwrap();
    for at in [first, last] {
        fs::write(files.path("out"), &left).unwrap();
        patch(&files.path("out"), at as u64, &[left[at] ^ 1]);
        let before = files.all();
        let ran = files.receive(&stream, &[]);
        assert!(ran.stderr.contains("an earlier receive left"), "{ran:?}");
        assert!(files.all() == before);
    }
    // What is in the window may be anything.
    fs::write(files.path("out"), &left).unwrap();
    let inside = (window[0]..window[1]).find(differs).unwrap();
    patch(&files.path("out"), inside as u64, &[left[inside] ^ 1]);
    assert_eq!(files.receive(&stream, &[]).code, Some(0));
    assert!(fs::read(files.path("out")).unwrap() == files.content(1));
}

#[test]
fn a_write_that_fails_is_done_once_more() {
    let files = Files::two(64);
    let stream = files.stream(Some(0), 1);
    fs::write(files.path("stream"), &stream).unwrap();
    for batch in ["1", "48", "131072"] {
        for blocks in ["8", "100", "200"] {
            fs::write(files.path("out"), files.content(0)).unwrap();
            let options = ["-i", "stream", "-o", "out", "--batch", batch];
            let receive = files.tool("receive", &options);
            // No file is written beyond that.
            let script = "trap '' XFSZ; ulimit -f \"$0\"; exec \"$@\"";
            let mut limited = Command::new("sh");
            limited
                .args(["-c", script, blocks])
                .arg(receive.get_program());
            limited.args(receive.get_args()).current_dir(&files.dir);
            fails(&mut limited, "cannot write at byte");
            let ran = files.receive(&stream, &[]);
            assert!(ran.stderr.contains("gone on with"), "{batch}: {ran:?}");
            assert!(fs::read(files.path("out")).unwrap() == files.content(1));
        }
    }
}

#[test]
fn killed_at_any_time_it_goes_on() {
    let kills = std::env::var("SNAP_KILLS").map_or(100, |kills| kills.parse().unwrap());
    let files = Files::two(1024);
    let receive = || files.tool("receive", &["-q", "-o", "out", "--batch", "1024"]);
    fs::write(files.path("out"), files.content(0)).unwrap();
    let time = |base, now| {
        let start = Instant::now();
        through_a_pipe(&mut files.send(Some(base), now), &mut receive());
        start.elapsed()
    };
    // So that some come to their end.
    let longest = time(0, 1).min(time(1, 0)).mul_f64(1.25);
    let mut chance = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    // From one to the other and back.
    let (mut base, mut now) = (0, 1);
    let (mut killed, mut resumed, mut complete) = (0, 0, 0);
    while killed < kills {
        let goes_on = files.path("out.state").exists();
        let (mut sender, mut receiver) = pipe(
            files.send(Some(base), now).stderr(Stdio::null()),
            receive().stderr(Stdio::piped()),
        );
        let delay = longest.mul_f64(f64::from(chance.next_u32()) / f64::from(u32::MAX));
        let start = Instant::now();
        while start.elapsed() < delay && receiver.try_wait().unwrap().is_none() {
            sleep(Duration::from_millis(1));
        }
        let victim = if killed % 3 == 0 {
            &mut sender
        } else {
            &mut receiver
        };
        let _ = victim.kill();
        let ran = receiver.wait_with_output().unwrap();
        sender.wait().unwrap();
        // It has nothing else to complain of than that the sender was killed.
        let said = String::from_utf8(ran.stderr).unwrap();
        assert!(
            ran.status.code() != Some(1) || said.contains("it ends there"),
            "{said}"
        );
        let done = ran.status.success();
        killed += usize::from(!done);
        resumed += usize::from(goes_on);
        let out = fs::read(files.path("out")).unwrap();
        if done {
            assert!(out == files.content(now), "{killed} kills");
            assert!(!files.path("out.state").exists());
            (base, now) = (now, base);
            complete += 1;
            continue;
        }
        // Each page is of one of the two; and it is the base where no state says otherwise, or it
        // is complete and was killed before it said so.
        let pages = out.chunks(SECTOR).zip(files.content(0).chunks(SECTOR));
        let pages = pages.zip(files.content(1).chunks(SECTOR));
        for ((out, one), two) in pages {
            assert!(out == one || out == two, "{killed} kills");
        }
        let state = files.path("out.state").exists();
        assert!(state || out == files.content(base) || out == files.content(now));
    }
    eprintln!("{killed} kills, {resumed} went on, {complete} came to their end");
    assert!(resumed > 0);
    through_a_pipe(&mut files.send(Some(base), now), &mut receive());
    assert!(fs::read(files.path("out")).unwrap() == files.content(now));
}

/// Sends `signal` to `child`, once it handles it, and returns what it did.
fn stopped(mut child: Child, signal: &str) -> Ran {
    let status = format!("/proc/{}/status", child.id());
    while !fs::read_to_string(&status)
        .unwrap()
        .contains("SigCgt:\t0000000000004")
    {
        assert!(child.try_wait().unwrap().is_none());
        sleep(Duration::from_millis(1));
    }
    // It gets to where it waits.
    sleep(Duration::from_millis(100));
    send_signal(&child, signal);
    ended(child)
}

fn send_signal(child: &Child, signal: &str) {
    let id = child.id().to_string();
    let kill = Command::new("kill").args(["-s", signal, &id]).status();
    assert!(kill.unwrap().success());
}

/// What `child` did, which ends soon.
fn ended(mut child: Child) -> Ran {
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(30) {
            child.kill().unwrap();
            panic!("it does not end");
        }
        sleep(Duration::from_millis(1));
    }
    let stdin = child.stdin.take();
    let ran = child.wait_with_output().unwrap().into();
    drop(stdin);
    ran
}

#[test]
fn an_interrupt_ends_who_waits_for_a_stream() {
    let files = Files::two(8);
    fs::write(files.path("out"), files.content(0)).unwrap();
    let fifo = Command::new("mkfifo").arg(files.path("fifo")).status();
    assert!(fifo.unwrap().success());
    let names = || names(&files).len();
    let before = names();
    for signal in ["TERM", "INT", "HUP"] {
        for arguments in [&[][..], &["-i", "fifo"]] {
            let mut receive = files.tool("receive", &["-o", "out"]);
            receive.args(arguments).stdin(Stdio::piped());
            let child = receive.stderr(Stdio::piped()).spawn().unwrap();
            let ran = stopped(child, signal);
            assert_eq!(ran.code, Some(1), "{ran:?}");
            assert!(ran.stderr.contains("interrupted: "), "{ran:?}");
        }
        // A new file is not left behind.
        let whole = files.stream(None, 0);
        let fed = Fed::new(&files, &whole, whole.len() / 2, &["--force"]);
        let fed = fed.until(&files, ".snap_receive.");
        let ran = stopped(fed.child, signal);
        assert!(ran.stderr.contains("interrupted: "), "{ran:?}");
        assert_eq!(names(), before);
        assert!(fs::read(files.path("out")).unwrap() == files.content(0));
    }
}

#[test]
fn an_interrupt_ends_who_waits_for_a_reader() {
    let files = Files::two(1024);
    let fifo = Command::new("mkfifo").arg(files.path("fifo")).status();
    assert!(fifo.unwrap().success());
    for signal in ["TERM", "INT", "HUP"] {
        for output in ["-", "fifo"] {
            let mut send = files.send(None, 0);
            send.args(["-o", output]).stdout(Stdio::piped());
            let mut child = send.stderr(Stdio::piped()).spawn().unwrap();
            // Nobody reads it.
            let stdout = child.stdout.take();
            let ran = stopped(child, signal);
            drop(stdout);
            assert_eq!(ran.code, Some(1), "{ran:?}");
            assert!(ran.stderr.contains("interrupted: "), "{ran:?}");
        }
    }
    // Who has one that is slow is not disturbed, and who was started by nohup goes on.
    let send = files.send(None, 0);
    let mut nohup = Command::new(send.get_program());
    nohup.args(send.get_args().map(|argument| match argument == HEARS {
        true => OsStr::new("--ignore-signal=HUP"),
        false => argument,
    }));
    nohup.args(["-o", "fifo"]).current_dir(&files.dir);
    let child = nohup.stderr(Stdio::piped()).spawn().unwrap();
    sleep(Duration::from_millis(300));
    send_signal(&child, "HUP");
    let mut received = fs::File::open(files.path("fifo")).unwrap();
    sleep(Duration::from_millis(100));
    let mut stream = Vec::new();
    received.read_to_end(&mut stream).unwrap();
    assert_eq!(ended(child).code, Some(0));
    assert!(stream == files.stream(None, 0));
}

#[test]
fn nothing_is_input_and_output() {
    let files = Files::two(8);
    fs::write(files.path("stream"), files.stream(None, 1)).unwrap();
    symlink("stream", files.path("link")).unwrap();
    let names = ["stream", "link", "./stream"];
    for (input, output) in names.iter().flat_map(|one| names.map(|two| (*one, two))) {
        let before = fs::read(files.path("stream")).unwrap();
        let mut receive = files.tool("receive", &["--force", "-o", output]);
        fails(receive.args(["-i", input]), "cannot be the output");
        let stdin = fs::File::open(files.path(input)).unwrap();
        let mut receive = files.tool("receive", &["--force", "-o", output]);
        fails(receive.stdin(stdin), "cannot be the output");
        let mut receive = files.tool("receive", &["-i", input, "-o", "out", "--state", output]);
        fails(&mut receive, "cannot be the output");
        assert!(fs::read(files.path("stream")).unwrap() == before);
    }
    for name in ["cow0", "cow1", "origin"] {
        let before = files.all();
        let mut send = files.send(Some(0), 1);
        fails(send.args(["--force", "-o", name]), "cannot be the output");
        assert!(files.all() == before);
    }
    let mut same = files.tool(
        "send",
        &["--origin", "origin", "--base", "cow0", "-i", "cow0"],
    );
    fails(&mut same, "the same COW device");
    fails(&mut files.tool("send", &["-i", "cow0"]), "give --origin");
    fails(files.send(None, 0).arg("--json"), "standard output");
}

#[test]
fn a_new_file_needs_force_where_there_is_one() {
    let files = Files::two(8);
    let stream = files.stream(None, 1);
    fs::write(files.path("out"), "precious").unwrap();
    let before = files.all();
    assert!(files.receive(&stream, &[]).stderr.contains("--force"));
    // Nor does it look as if it would do.
    let ran = files.receive(&stream, &["--dry-run"]);
    assert!(ran.stderr.contains("--force"), "{ran:?}");
    assert_eq!(
        files.receive(&stream, &["--dry-run", "--force"]).code,
        Some(0)
    );
    let mut missing = files.tool("receive", &["--dry-run", "-i", "stream", "-o", "./no/out"]);
    fails(&mut missing, "cannot create");
    assert!(files.all() == before);
    // A state that is none is left alone.
    fs::write(files.path("out.state"), "precious").unwrap();
    assert_eq!(files.receive(&stream, &["--force"]).code, Some(0));
    assert!(fs::read(files.path("out")).unwrap() == files.content(1));
    let ran = files.receive(&files.stream(Some(1), 2), &[]);
    assert!(ran.stderr.contains("not the state of a receive"), "{ran:?}");
    assert_eq!(fs::read(files.path("out.state")).unwrap(), b"precious");
    assert!(fs::read(files.path("out")).unwrap() == files.content(1));
}

#[test]
fn a_device_becomes_the_snapshot() {
    let files = Files::two(64);
    // More than it needs.
    let mut disk = files.content(0).to_vec();
    disk.resize(disk.len() + 8192, 0);
    disk[..1 << 17].fill(0);
    fs::write(files.path("disk"), &disk).unwrap();
    let Some(device) = Loop::new(&files.path("disk"), &[]) else {
        return;
    };
    let path = device.path().to_str().unwrap();
    let receive = |stream: &[u8], options: &[&str]| {
        fs::write(files.path("stream"), stream).unwrap();
        run(files
            .tool("receive", &["-i", "stream", "-o", path])
            .args(options))
    };
    let holds = |number: usize| {
        let bytes = fs::read(files.path("disk")).unwrap();
        bytes[..bytes.len() - 8192] == *files.content(number)
    };
    let ran = receive(&files.stream(None, 0), &[]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(holds(0));
    let stream = files.stream(Some(0), 1);
    let ran = receive(&stream, &[]);
    assert!(ran.stderr.contains("give --state"), "{ran:?}");
    assert!(holds(0));
    let cut = &stream[..stream.len() - 5];
    assert_eq!(receive(cut, &["--state", "state"]).code, Some(1));
    let ran = receive(&stream, &["--state", "state"]);
    assert!(ran.stderr.contains("gone on with"), "{ran:?}");
    assert!(holds(1) && !files.path("state").exists());
    let ran = receive(&files.stream(None, 2), &[]);
    assert!(ran.stderr.contains("give --force"), "{ran:?}");
    assert_eq!(receive(&files.stream(None, 2), &["--force"]).code, Some(0));
    assert!(holds(2));
    // A stream does not go to a device.
    let mut send = files.send(None, 2);
    fails(send.args(["--force", "-o", path]), "not to a device");
}

#[test]
fn a_closed_pipe_ends_it() {
    let files = Files::two(512);
    let mut send = files.send(None, 0);
    send.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut sender = send.spawn().unwrap();
    drop(sender.stdout.take());
    let ran: Ran = sender.wait_with_output().unwrap().into();
    assert_eq!((ran.code, &ran.stderr[..]), (Some(1), ""));
}

#[test]
fn a_full_disk_is_said() {
    let files = Files::two(8);
    let mut send = files.send(None, 0);
    fails(send.args(["-o", "/dev/full"]), "No space left on device");
    assert!(!Path::new("/dev/full").is_file());
    // Once, and by the name that was given.
    let send = files.send(None, 0);
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$@\"", "sh"]);
    limited.arg(send.get_program()).args(send.get_args());
    limited.args(["-o", "new"]).current_dir(&files.dir);
    let ran = fails(&mut limited, "File too large");
    assert!(ran.stderr.contains("new: cannot write"), "{ran:?}");
    assert!(!ran.stderr.contains(" at path"), "{ran:?}");
}

#[test]
fn a_stream_to_nowhere_is_refused() {
    let files = Files::two(8);
    let send = files.send(None, 0);
    let mut closed = Command::new("sh");
    closed.args(["-c", "exec \"$@\" >&-", "sh"]);
    closed.arg(send.get_program()).args(send.get_args());
    fails(closed.current_dir(&files.dir), "standard output is closed");
    // Who wants that may have it.
    assert!(files
        .send(None, 0)
        .stdout(Stdio::null())
        .status()
        .unwrap()
        .success());
}

#[test]
fn what_is_too_large_for_a_state_is_not_read() {
    let files = Files::two(8);
    fs::write(files.path("out"), files.content(0)).unwrap();
    let disk = fs::File::create(files.path("disk")).unwrap();
    disk.set_len(1 << 42).unwrap();
    fs::write(files.path("stream"), files.stream(Some(0), 1)).unwrap();
    let options = ["-i", "stream", "-o", "out", "--state", "disk"];
    fails(&mut files.tool("receive", &options), "not the state of");
}

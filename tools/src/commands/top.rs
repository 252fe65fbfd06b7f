// SPDX-License-Identifier: GPL-2.0-only

//! `snap_top`

use super::figures::{below, figures_json};
use super::Tool;
use crate::active::Active;
use crate::error::Result;
use crate::lvm::Volumes;
use crate::mapper::Mapper;
use crate::report::Report;
use crate::stat::Live;
use crate::top::{can_go_on, size, Change, Event, Prometheus, Sample, Screen, Signals, Table};
use crate::units::Units;
use clap::Args;
use serde_json::{json, Value};
use signal_hook::consts::SIGTSTP;
use signal_hook::low_level::emulate_default_handler;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[derive(Args)]
pub struct Top {
    /// The device-mapper names of the snapshots to show, or VG/LV; all by default
    #[arg(value_name = "NAME", value_parser = mapper_name)]
    names: Vec<String>,

    /// Print the table once and exit
    #[arg(long)]
    once: bool,

    /// Seconds between two samples
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = interval)]
    interval: Duration,

    /// The unit of what is told: h, b, s, k, m, g, t, p, e as LVM has them; JSON is in sectors
    #[arg(long, value_name = "UNIT", default_value = "h", value_parser = Units::parse)]
    units: Units,

    /// Write a JSON array to standard output: with --once a single one, else one in a line each
    /// interval
    #[arg(long)]
    json: bool,

    /// Write the figures to this file for Prometheus's node_exporter (textfile collector), once or
    /// each interval
    #[arg(long, value_name = "FILE")]
    prometheus: Option<PathBuf>,

    /// Suppress output messages, return only exit code
    #[arg(short, long)]
    quiet: bool,
}

/// Parses a number of seconds.
fn interval(text: &str) -> std::result::Result<Duration, String> {
    let seconds = text.parse().map_err(|_| "it is no number of seconds")?;
    if !(0.1..=86_400.0).contains(&seconds) {
        return Err("it must be from 0.1 to 86400 seconds".into());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// What device-mapper calls VG/LV; other names are taken as they are.
fn mapper_name(text: &str) -> std::result::Result<String, String> {
    let text = text.strip_prefix("/dev/mapper/").unwrap_or(text);
    let text = text.strip_prefix("/dev/").unwrap_or(text);
    match text.split_once('/') {
        None => Ok(text.into()),
        Some((vg, lv)) if ![vg, lv].contains(&"") && !lv.contains('/') => {
            Ok([vg, lv].map(|name| name.replace('-', "--")).join("-"))
        }
        Some(_) => Err("neither a name nor VG/LV".into()),
    }
}

impl Tool for Top {
    const NAME: &'static str = "snap_top";
    const ABOUT: &'static str = "Show what the active snapshots do";
    const LONG_ABOUT: &'static str = "\
Shows all active snapshots, and what merges one, in a view that is renewed each interval: how full \
their COW devices are and when they will be, how fast that grows, and what is written and waited for.

The kernel's own targets tell how full they are and nothing else; what is not known is -. The first \
table has no rates; its averages and percentiles are since the snapshot was activated, or since \
dmsetup message NAME 0 stats reset. Later ones are of the last interval.";
    const EXTRA: &'static str = "\
COLUMNS
  NAME    device-mapper's name; vg-snap is LVM's vg/snap
  ORIGIN  the device that it is a snapshot of
  FILL    how full the COW device is
  USED    how much of it is in use
  CHUNK   the chunk size
  RATE    bytes a second by which the use grows; less than 0 in a merge
  FULL    when the COW device is full, if it grows on like that
  EXC     exceptions: chunks on the COW device
  E/C     exceptions in a commit
  C/S     commits a second, each with a flush
  P50     what half of the copies took less than, until what waited went on
  P99     what all but one in a hundred took less than

A snapshot that does not work has its status in the place of FILL and USED: Invalid, Overflow or \
Merge failed. A merge has a line of its own: which share is done, what is left, and how long that \
takes.

KEYS
  q or Ctrl-C ends it, Ctrl-Z stops it.

PROMETHEUS
  The file is replaced as a whole, and any user may read it; node_exporter looks for names that end \
in .prom. Its metrics begin with dm_snapshot. dm_snapshot_waits_total has \
buckets as histogram_quantile() takes them. A file that snap_top did not write is not replaced.

EXAMPLES
  snap_top
  snap_top --once vg/snap
  snap_top --json --interval 10
  snap_top --quiet --once --prometheus /var/lib/node-exporter/snapshots.prom";
    const NAMES: &'static str = "\
LVM NAMES
  VG/LV stands for what device-mapper calls the volume: VG-LV, with each - in the names doubled.";

    fn quiet(&self) -> bool {
        self.quiet
    }

    fn run(self, report: &Report, _volumes: &Volumes) -> Result<bool> {
        let file = self.prometheus.as_deref().map(Prometheus::new);
        let file = file.transpose()?;
        let mapper = Mapper::open()?;
        self.tell(file.as_ref(), report, || Sample::take(&mapper, &self.names))
    }
}

impl Top {
    /// Tells of the samples that `take` takes, until the user wants it to end; with --once of one.
    fn tell(
        &self,
        file: Option<&Prometheus>,
        report: &Report,
        mut take: impl FnMut() -> Result<Sample>,
    ) -> Result<bool> {
        let mut sample = take()?;
        let mut changes = sample.changes(None);
        if self.once {
            if let Some(file) = file {
                file.write(&sample.actives)?;
            }
            self.tell_once(&sample, &changes, report);
            return Ok(self.warn_of_missing(&sample, report));
        }
        let has_view = !self.json && !self.quiet;
        if !has_view {
            self.warn_of_missing(&sample, report);
        }
        let mut signals = Signals::watch(has_view)?;
        let screen = has_view.then(Screen::enter).transpose()?;
        loop {
            let deadline = Instant::now() + self.interval;
            if let Some(file) = file {
                file.write(&sample.actives)?;
            }
            if self.json {
                report.line(array(&sample, &changes));
                report.finish()?;
            }
            loop {
                if let Some(screen) = &screen {
                    screen.show(&self.view(&sample, &changes))?;
                }
                match signals.wait(deadline, has_view)? {
                    Event::Time => break,
                    Event::Quit => return Ok(true),
                    Event::Resize => {}
                    Event::Stop => {
                        if let Some(screen) = screen.as_ref().filter(|_| can_go_on()) {
                            screen.leave()?;
                            // It returns when the process goes on. What fails is that it stops.
                            let _ = emulate_default_handler(SIGTSTP);
                            screen.resume()?;
                        }
                    }
                }
            }
            let next = take()?;
            changes = next.changes(Some(&sample));
            sample = next;
        }
    }

    /// Tells what was found.
    fn tell_once(&self, sample: &Sample, changes: &[Change], report: &Report) {
        if self.json {
            report.json(&array(sample, changes));
        } else {
            let width = io::stdout().is_terminal().then(|| size().0);
            for line in self.table(sample, changes, width) {
                report.line(line);
            }
        }
    }

    /// Warns of names that no active snapshot has; returns whether there are none of them.
    fn warn_of_missing(&self, sample: &Sample, report: &Report) -> bool {
        let is_active = |name: &String| sample.actives.iter().any(|active| active.name == *name);
        let mut missing = self.names.iter().filter(|name| !is_active(name)).peekable();
        let all = missing.peek().is_none();
        for name in missing {
            report.warn(format_args!("{name}: no such snapshot is active"));
        }
        all
    }

    /// The table, or that there is nothing for it.
    fn table(&self, sample: &Sample, changes: &[Change], width: Option<usize>) -> Vec<String> {
        match &sample.actives[..] {
            [] if self.names.is_empty() => vec!["no snapshot is active".into()],
            [] => vec!["none of these snapshots is active".into()],
            actives => Table::new(actives, changes, self.units).lines(width),
        }
    }

    /// What the terminal shows.
    fn view(&self, sample: &Sample, changes: &[Change]) -> Vec<String> {
        let (width, height) = size();
        let seconds = self.interval.as_secs_f64();
        let count = sample.actives.len();
        let head = format!("snap_top: {count} active, every {seconds} s; q ends it");
        let mut lines = vec![head, String::new()];
        lines.extend(self.table(sample, changes, Some(width)));
        if lines.len() > height {
            lines.truncate(height.saturating_sub(1));
            lines.push("more than fits; say which: snap_top NAME...".into());
        }
        for line in &mut lines {
            line.truncate(width);
        }
        lines
    }
}

/// All of the sample.
fn array(sample: &Sample, changes: &[Change]) -> Value {
    let both = sample.actives.iter().zip(changes);
    both.map(|(active, change)| to_json(active, change))
        .collect()
}

/// A snapshot and what changed, as the schema's `top` has each.
fn to_json(active: &Active, change: &Change) -> Value {
    let usage = match &active.state {
        Live::Active(usage) => Some(usage),
        Live::Other(_) => None,
    };
    let status = match &active.state {
        Live::Active(_) => "active",
        Live::Other(status) => status,
    };
    let mut object = json!({
        "name": active.name,
        "start": active.start,
        "origin": active.origin,
        "status": status,
        "chunk_size": active.chunk_size,
        "total": usage.map(|usage| usage.total),
        "used": usage.map(|usage| usage.used),
        "free": usage.map(|usage| usage.free()),
        "metadata": usage.map(|usage| usage.metadata),
        "growth": change.growth,
        "full_in": change.full_in,
        "commits_per_second": change.commits_per_second,
        "exceptions_per_commit": change.exceptions_per_commit,
        "wait_p50": change.wait_p50.map(below),
        "wait_p99": change.wait_p99.map(below),
        "merge": change.merge.as_ref().map(|merge| json!({
            "left": merge.left,
            "share": merge.share,
            "done_in": merge.done_in,
        })),
    });
    if let Value::Object(object) = &mut object {
        object.append(&mut figures_json(active.figures.as_ref()));
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::generate::SCHEMA;
    use crate::figures::Figures;
    use crate::top::terminal::{again, role, take, Terminal};
    use rustix::process::{kill_process, Pid, Signal};
    use std::fs;
    use std::process::{Child, Command};

    fn active(status: &str, merging: bool, answer: &str) -> Active {
        Active {
            name: "snap".into(),
            start: 0,
            disk: None,
            cow_number: "254:2".into(),
            origin_number: "254:1".into(),
            origin: "origin".into(),
            merging,
            chunk_size: 8,
            state: Live::parse(status, "254:1 254:2 P 8"),
            figures: Figures::parse(answer),
        }
    }

    #[test]
    fn what_is_told_is_as_the_schema_has_it() {
        let all: Value = serde_json::from_str(SCHEMA).unwrap();
        let schema = json!({ "$ref": "#/$defs/top", "$defs": all["$defs"] });
        let is_valid = |value: &Value| jsonschema::is_valid(&schema, value);
        let answers = [
            (
                "exceptions 9\nmerged 1\ncommits 1\ncommitted 2\n",
                "waits_below_64_us 1\n",
            ),
            (
                "exceptions 5\nmerged 5\ncommits 3\ncommitted 9\n",
                "waits_longer 1\n",
            ),
        ]
        .map(|(figures, waits)| format!("{figures}{waits}"));
        assert!(is_valid(&json!([])));
        for merging in [false, true] {
            for [then, now] in [["88/800 16", "56/800 16"], ["16/800 16", "Invalid"]] {
                let then = active(then, merging, &answers[0]);
                let of_c = active(now, merging, "");
                let now = active(now, merging, &answers[1]);
                for (now, then) in [(&now, None), (&now, Some(&then)), (&of_c, Some(&then))] {
                    let then = then.map(|then| (then, Duration::from_secs(2)));
                    let told = to_json(now, &Change::of(now, then));
                    assert!(is_valid(&json!([told])), "{told}");
                    let fields: Vec<String> = told.as_object().unwrap().keys().cloned().collect();
                    for field in fields {
                        for wrong in [None, Some(json!([["no such thing"]]))] {
                            let mut told = told.clone();
                            let object = told.as_object_mut().unwrap();
                            object.remove(&field);
                            object.extend(wrong.map(|wrong| (field.clone(), wrong)));
                            assert!(!is_valid(&json!([told])), "{field} in {told}");
                        }
                    }
                }
            }
        }
        let told = active("88/800 16", false, &answers[1]);
        let told = to_json(&told, &Change::of(&told, None));
        assert_eq!(told["free"], 712);
        assert_eq!(told["figures"]["exceptions"], 5);
        assert_eq!(told["wait_p99"], json!({ "below_us": null }));
        assert_eq!(
            (&told["growth"], &told["merge"]),
            (&Value::Null, &Value::Null)
        );
    }

    /// `snap_top` with `arguments`.
    fn top(arguments: &[&str]) -> Top {
        let command = Top::augment_args(clap::Command::new("snap_top"));
        let all = ["snap_top"].iter().chain(arguments);
        let matches = command.try_get_matches_from(all).unwrap();
        <Top as clap::FromArgMatches>::from_arg_matches(&matches).unwrap()
    }

    /// Does what `role` says, as `snap_top` with these arguments where one snapshot more is active
    /// at each sample.
    fn play(role: &str) {
        if role.starts_with("leader") {
            take();
        }
        if role == "leader shell" {
            return shell();
        }
        let arguments: Vec<&str> = role.split(' ').skip(1).collect();
        let top = top(&arguments);
        let file = top.prometheus.as_deref().map(Prometheus::new);
        let file = file.transpose().unwrap();
        let mut taken = 0;
        let report = Report::new(top.quiet);
        let told = top.tell(file.as_ref(), &report, || {
            taken += 1;
            let name = |number| format!("number{number}");
            let actives = (1..=taken).map(|number| Active {
                name: name(number),
                ..active("88/800 16", false, "")
            });
            Ok(Sample::of(actives.collect()))
        });
        report.finish().unwrap();
        println!("told {told:?}");
    }

    /// Runs a view as a shell with job control does, and has it go on once when it has stopped.
    #[expect(
        clippy::zombie_processes,
        reason = "it is waited for by what tells of a stop, too"
    )]
    fn shell() {
        use rustix::process::{waitpid, WaitOptions};
        use std::os::unix::process::CommandExt;
        let mut command = again(NAME, "view --interval 0.1");
        let child = command.process_group(0).spawn().unwrap();
        let id = Pid::from_child(&child);
        rustix::termios::tcsetpgrp(io::stdin(), id).unwrap();
        let mut stopped = false;
        loop {
            let (_, status) = waitpid(Some(id), WaitOptions::UNTRACED).unwrap().unwrap();
            if !status.stopped() {
                assert_eq!((status.exit_status(), stopped), (Some(0), true));
                return;
            }
            // It may have come to the terminal before that was its own.
            stopped |= status.stopping_signal() == Some(Signal::STOP.as_raw());
            kill_process(id, Signal::CONT).unwrap();
        }
    }

    const NAME: &str = "commands::top::tests::what_is_shown_on_a_terminal";

    fn succeeds(mut child: Child) {
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn what_is_shown_on_a_terminal() {
        if let Some(role) = role() {
            return play(&role);
        }
        // Nobody could make it go on: it leads the session.
        let mut terminal = Terminal::new(80, 8);
        let child = terminal.run(again(NAME, "leader --interval 0.1"));
        terminal.skip_to("snap_top: 1 active, every 0.1 s; q ends it");
        terminal.skip_to("number2");
        terminal.press(b"\x1a");
        terminal.skip_to("more than fits; say which: snap_top NAME...");
        terminal.resize(20, 3);
        terminal.skip_to("\x1b[H\x1b[2Ksnap_top: ");
        terminal.skip_to("more than fits; say \x1b");
        terminal.press(b"q");
        terminal.skip_to("told Ok(true)");
        succeeds(child);

        // A shell could.
        let mut terminal = Terminal::new(80, 8);
        let child = terminal.run(again(NAME, "leader shell"));
        terminal.skip_to("number2");
        terminal.press(b"\x1a");
        terminal.skip_to("\x1b[?1049l");
        terminal.skip_to("\x1b[?1049h");
        terminal.skip_to("more than fits");
        terminal.press(b"\x03");
        terminal.skip_to("told Ok(true)");
        succeeds(child);

        // Once, and as wide as the terminal is.
        let mut terminal = Terminal::new(80, 8);
        let child = terminal.run(again(NAME, "view --once number1 number2"));
        terminal.skip_to("number1 ");
        terminal.skip_to("told Ok(false)");
        succeeds(child);
    }

    #[test]
    fn what_is_shown_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.prom");
        let run = |arguments: &str| -> Command { again(NAME, &format!("file {arguments}")) };
        let said = |mut command: Command| {
            let ran = command.stdin(std::process::Stdio::null()).output().unwrap();
            assert!(ran.status.success(), "{ran:?}");
            String::from_utf8(ran.stdout).unwrap()
        };
        let prometheus = format!("--once --quiet --prometheus {}", path.display());
        assert!(said(run(&prometheus)).contains("told Ok(true)"));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("dm_snapshot_cow_used_bytes{name=\"number1\""));
        let once = said(run("--once --json"));
        assert!(once.contains("\"name\": \"number1\""), "{once}");
        assert!(said(run("")).contains("are no terminal"));
        // An array a line, until it is told to end.
        let mut child = run("--json --interval 0.1");
        let mut child = child.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut lines = io::BufRead::lines(io::BufReader::new(child.stdout.take().unwrap()));
        let mut line = || lines.next().unwrap().unwrap();
        let third = loop {
            let line = line();
            if line.contains("number3") {
                break line;
            }
        };
        let third: Value = serde_json::from_str(&third).unwrap();
        assert_eq!(third.as_array().unwrap().len(), 3);
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        while !line().contains("told Ok(true)") {}
        succeeds(child);
    }

    #[test]
    fn a_table_needs_snapshots() {
        let none = Sample::of(Vec::new());
        let table = |arguments| top(arguments).table(&none, &[], None);
        assert_eq!(table(&[]), ["no snapshot is active"]);
        assert_eq!(table(&["a"]), ["none of these snapshots is active"]);
    }

    #[test]
    fn names_are_as_lvm_has_them() {
        assert_eq!(mapper_name("vg-snap"), Ok("vg-snap".into()));
        assert_eq!(mapper_name("v-g/my-snap"), Ok("v--g-my--snap".into()));
        assert_eq!(mapper_name("/dev/vg/snap"), Ok("vg-snap".into()));
        assert_eq!(mapper_name("/dev/mapper/v--g-snap"), Ok("v--g-snap".into()));
        for wrong in ["/", "a/", "/b", "a/b/c"] {
            assert!(mapper_name(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn intervals_are_times() {
        assert_eq!(interval("2"), Ok(Duration::from_secs(2)));
        assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["", "0", "-1", "0.05", "86401", "inf", "NaN", "2s"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}

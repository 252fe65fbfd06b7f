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
        let mut sample = Sample::take(&mapper, &self.names)?;
        let mut changes = sample.changes(None);
        if self.once {
            if let Some(file) = &file {
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
            if let Some(file) = &file {
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
            let next = Sample::take(&mapper, &self.names)?;
            changes = next.changes(Some(&sample));
            sample = next;
        }
    }
}

impl Top {
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

// SPDX-License-Identifier: GPL-2.0-only

//! Snapshots as Prometheus reads them, in a file for node_exporter's textfile collector.

use crate::active::Active;
use crate::error::{Error, Result};
use crate::figures::Figures;
use crate::format::SECTOR_BYTES;
use crate::stat::Live;
use crate::waits::{Below, Waits};
use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What every file begins with that is written here.
const BEGIN: &str = "# HELP dm_snapshots ";

/// The largest bound of waits that the targets have, in microseconds; all are powers of two. Buckets
/// that are empty are written, too, as a series that begins late has no rate.
const LARGEST_BOUND: u64 = 1 << 22;

/// A figure of the targets. Its metric is called as it is.
struct Known {
    figure: &'static str,
    /// Whether it only grows, until it is counted anew.
    is_counter: bool,
    help: &'static str,
}

const fn counter(figure: &'static str, help: &'static str) -> Known {
    Known {
        figure,
        is_counter: true,
        help,
    }
}

const fn gauge(figure: &'static str, help: &'static str) -> Known {
    Known {
        figure,
        is_counter: false,
        help,
    }
}

/// The figures of a snapshot.
const OF_SNAPSHOTS: &[Known] = &[
    gauge(
        "exceptions",
        "Chunks on the COW device that are the snapshot's.",
    ),
    gauge("table_bytes", "Memory that knowing the exceptions takes."),
    counter(
        "reads_cow",
        "Reads of the snapshot that went to the COW device.",
    ),
    counter(
        "reads_origin",
        "Reads of the snapshot that went to the origin.",
    ),
    counter(
        "writes_cow",
        "Writes of the snapshot to chunks on the COW device.",
    ),
    counter(
        "writes_whole",
        "Writes of whole new chunks, without a copy.",
    ),
    counter(
        "writes_waited",
        "Writes of the snapshot that waited for a chunk.",
    ),
    counter(
        "writes_overlaid",
        "Those of them that were written with the chunk's copy.",
    ),
    counter("copies", "Copies to the COW device."),
    counter("copies_shared", "Copies that another snapshot had begun."),
    counter("copied_chunks", "Chunks in copies."),
    counter("commits", "How often records were written."),
    counter("committed", "Exceptions whose records were written."),
    counter("merge_batches", "How often a merge cleared records."),
    counter("merged", "Exceptions that a merge cleared."),
    gauge(
        "overflow_keep",
        "1 if it is kept when its COW device is full.",
    ),
];

/// The figures of an origin, which all of its snapshots tell.
const OF_ORIGINS: &[Known] = &[
    gauge(
        "origin_snapshots",
        "Snapshots of the origin that are loaded.",
    ),
    counter(
        "origin_writes_passed",
        "Writes that could go to the origin.",
    ),
    counter("origin_writes_waited", "Writes that waited for copies."),
    counter(
        "origin_copies",
        "Copies, each for all snapshots with the same chunk size.",
    ),
    counter(
        "origin_copied_sectors",
        "Sectors, of 512 bytes, that copies were of.",
    ),
    counter(
        "origin_copied_together",
        "Sectors of these that were read for another chunk size.",
    ),
    gauge(
        "origin_chunks_under_way",
        "Chunks that are being copied now.",
    ),
];

impl Known {
    /// The name of the metric.
    fn metric(&self) -> String {
        let end = if self.is_counter { "_total" } else { "" };
        format!("dm_snapshot_{}{end}", self.figure)
    }
}

/// A file that Prometheus's node_exporter reads.
pub struct Prometheus(PathBuf);

impl Prometheus {
    /// Refuses what is no file, and a file that something else wrote.
    pub fn new(path: &Path) -> Result<Self> {
        let refused = |what| Err(Error::Refused(format!("{}: {what}", path.display())));
        match fs::symlink_metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::file(path, "look at", e)),
            Ok(meta) if !meta.is_file() => return refused("it is no regular file"),
            Ok(meta) if meta.len() > 0 => {
                let mut begin = Vec::new();
                File::open(path)
                    .and_then(|file| file.take(BEGIN.len() as u64).read_to_end(&mut begin))
                    .map_err(|e| Error::file(path, "read", e))?;
                if begin != BEGIN.as_bytes() {
                    return refused("it holds something that snap_top did not write");
                }
            }
            Ok(_) => {}
        }
        Ok(Self(path.into()))
    }

    /// Replaces the file, of which a reader sees the old one or the new one whole.
    pub fn write(&self, actives: &[Active]) -> Result<()> {
        let path = &self.0;
        let parent = path.parent().filter(|parent| *parent != Path::new(""));
        // The collector reads *.prom, as any user.
        let mut file = tempfile::Builder::new()
            .prefix(".snap_top.")
            .suffix(".tmp")
            .tempfile_in(parent.unwrap_or(Path::new(".")))
            .map_err(|e| Error::file(path, "create", e))?;
        // Whatever the umask is.
        file.as_file()
            .set_permissions(Permissions::from_mode(0o644))
            .map_err(|e| Error::file(path, "change the mode of", e))?;
        file.write_all(text(actives).as_bytes())
            .map_err(|e| Error::file(path, "write", e))?;
        file.persist(path)
            .map_err(|e| Error::file(path, "rename", e.error))?;
        Ok(())
    }
}

/// The metrics of `actives`.
fn text(actives: &[Active]) -> String {
    let mut text = Text(String::new());
    let count = actives.len() as u64;
    text.metric(
        "dm_snapshots",
        "Snapshots that are active.",
        [(String::new(), count)],
    );
    let each = |f: &dyn Fn(&Active) -> Option<u64>| -> Vec<(String, u64)> {
        let values = actives.iter().map(|active| (labels(active), f(active)));
        let known = values.filter_map(|(labels, value)| Some((labels, value?)));
        known.collect()
    };
    let of_use = |f: fn(&crate::stat::Usage) -> u64| {
        each(&|active| match &active.state {
            Live::Active(usage) => Some(f(usage).saturating_mul(SECTOR_BYTES as u64)),
            Live::Other(_) => None,
        })
    };
    let states = actives.iter().map(|active| {
        let state = match &active.state {
            Live::Active(_) => "active",
            Live::Other(state) => state,
        };
        (format!("{},state=\"{}\"", labels(active), escape(state)), 1)
    });
    let help = "1 for the state that the snapshot is in: active, Invalid, Overflow, Merge failed.";
    text.metric("dm_snapshot_state", help, states.collect::<Vec<_>>());
    let merging = each(&|active| Some(active.merging.into()));
    text.metric(
        "dm_snapshot_merging",
        "1 while it is merged into its origin.",
        merging,
    );
    let chunk = each(&|active| match active.chunk_size {
        0 => None,
        sectors => Some(sectors * SECTOR_BYTES as u64),
    });
    text.metric("dm_snapshot_chunk_bytes", "Bytes of a chunk.", chunk);
    let size = of_use(|usage| usage.total);
    text.metric("dm_snapshot_cow_bytes", "The COW device's size.", size);
    let used = of_use(|usage| usage.used);
    text.metric("dm_snapshot_cow_used_bytes", "What of it is in use.", used);
    let metadata = of_use(|usage| usage.metadata);
    text.metric(
        "dm_snapshot_cow_metadata_bytes",
        "What of it holds metadata.",
        metadata,
    );
    for known in OF_SNAPSHOTS {
        let values = each(&|active| active.figures.as_ref()?.get(known.figure));
        text.metric(&known.metric(), known.help, values);
    }
    let waits = actives.iter().filter_map(|active| {
        let figures = active.figures.as_ref()?;
        Some(cumulative(&labels(active), figures.waits()))
    });
    let help = "How many waits took at most le seconds.";
    text.metric(
        "dm_snapshot_waits_total",
        help,
        waits.flatten().collect::<Vec<_>>(),
    );
    // Each origin once, by the first of its snapshots.
    let mut origins: Vec<(&Active, &Figures)> = Vec::new();
    for active in actives {
        let Some(figures) = &active.figures else {
            continue;
        };
        if !origins
            .iter()
            .any(|(known, _)| known.origin_number == active.origin_number)
        {
            origins.push((active, figures));
        }
    }
    // A device that is an origin may also be what another origin is written through.
    let is_shared = |name: &str| origins.iter().filter(|(a, _)| a.origin == name).count() > 1;
    for known in OF_ORIGINS {
        let values = origins.iter().filter_map(|(active, figures)| {
            let mut labels = format!("origin=\"{}\"", escape(&active.origin));
            if is_shared(&active.origin) {
                labels.push_str(&format!(",number=\"{}\"", escape(&active.origin_number)));
            }
            Some((labels, figures.get(known.figure)?))
        });
        text.metric(&known.metric(), known.help, values.collect::<Vec<_>>());
    }
    text.0
}

/// The labels of a snapshot.
fn labels(active: &Active) -> String {
    let (name, origin) = (escape(&active.name), escape(&active.origin));
    // Of several in a device, which are rare, each but the first.
    let start = match active.start {
        0 => String::new(),
        start => format!(",start=\"{start}\""),
    };
    format!("name=\"{name}\",origin=\"{origin}\"{start}")
}

/// A label's value.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// Buckets as Prometheus's functions take them: each has what the smaller ones have.
fn cumulative(labels: &str, waits: &Waits) -> Vec<(String, u64)> {
    let mut bounds: Vec<u64> = (0..64)
        .map(|power| 1 << power)
        .take_while(|bound| *bound <= LARGEST_BOUND)
        .collect();
    let told = waits.buckets().iter();
    bounds.extend(told.filter_map(|bucket| bucket.below.microseconds()));
    bounds.sort_unstable();
    bounds.dedup();
    let below = |bound: Below| -> u64 {
        let smaller = waits
            .buckets()
            .iter()
            .filter(|bucket| bucket.below <= bound);
        smaller.map(|bucket| bucket.count).sum()
    };
    let mut found: Vec<(String, u64)> = Vec::new();
    for bound in bounds {
        let seconds = bound as f64 / 1e6;
        let count = below(Below::Microseconds(bound));
        found.push((format!("{labels},le=\"{seconds}\""), count));
    }
    found.push((format!("{labels},le=\"+Inf\""), below(Below::Nothing)));
    found
}

/// Metrics in the text format.
struct Text(String);

impl Text {
    /// Adds a metric: for each of its labels a value. Without any there is nothing to tell.
    fn metric(&mut self, name: &str, help: &str, values: impl AsRef<[(String, u64)]>) {
        let values = values.as_ref();
        if values.is_empty() {
            return;
        }
        let kind = match name.ends_with("_total") {
            true => "counter",
            false => "gauge",
        };
        // Nothing that is written to a string fails.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in values {
            let _ = match labels.is_empty() {
                true => writeln!(self.0, "{name} {value}"),
                false => writeln!(self.0, "{name}{{{labels}}} {value}"),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::{merging, snapshot, with_figures};
    use super::*;
    use std::collections::BTreeMap;
    use std::os::unix::fs::symlink;
    use tempfile::tempdir;

    /// Reads what the format allows: of each series the value. Each metric must have its HELP and
    /// TYPE once, before its values.
    fn parse(text: &str) -> BTreeMap<String, u64> {
        let mut found = BTreeMap::new();
        let (mut metric, mut seen) = (String::new(), Vec::new());
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                metric = rest.split(' ').next().unwrap().to_owned();
                assert!(!seen.contains(&metric), "{metric} twice");
                seen.push(metric.clone());
                let kind = lines.next().unwrap();
                let is_counter = metric.ends_with("_total");
                let kind_is = if is_counter { "counter" } else { "gauge" };
                assert_eq!(kind, format!("# TYPE {metric} {kind_is}"));
                continue;
            }
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert_eq!(series.split('{').next().unwrap(), metric, "{line}");
            let is_new = found
                .insert(series.to_owned(), value.parse().unwrap())
                .is_none();
            assert!(is_new, "{series} twice");
        }
        found
    }

    #[test]
    fn tells_every_figure() {
        let mut answer = "waits_below_64_us 3\nwaits_below_128_us 4\nwaits_longer 1\n".to_owned();
        for (known, number) in OF_SNAPSHOTS.iter().chain(OF_ORIGINS).zip(100..) {
            writeln!(answer, "{} {number}", known.figure).unwrap();
        }
        let mut other = snapshot("b\"\\\n", 0, 0);
        other.state = Live::Other("Invalid".into());
        let actives = [
            with_figures(snapshot("a", 800, 4000), &answer),
            other,
            with_figures(merging("c", 816, 4000), &answer),
        ];
        let all = text(&actives);
        let found = parse(&all);
        let of = |name: &str, metric: &str| {
            found[&format!("{metric}{{name=\"{name}\",origin=\"vg-root\"}}")]
        };
        assert_eq!(found["dm_snapshots"], 3);
        assert_eq!(of("a", "dm_snapshot_cow_bytes"), 4000 * 512);
        assert_eq!(of("a", "dm_snapshot_cow_used_bytes"), 800 * 512);
        assert_eq!(of("a", "dm_snapshot_chunk_bytes"), 4096);
        assert_eq!(
            (
                of("a", "dm_snapshot_merging"),
                of("c", "dm_snapshot_merging")
            ),
            (0, 1)
        );
        assert_eq!(of("a", "dm_snapshot_exceptions"), 100);
        assert_eq!(of("c", "dm_snapshot_merged_total"), 114);
        let state = "dm_snapshot_state{name=\"b\\\"\\\\\\n\",origin=\"vg-root\",state=\"Invalid\"}";
        assert_eq!(found[state], 1);
        let wait = |le: &str| {
            found[&format!("dm_snapshot_waits_total{{name=\"a\",origin=\"vg-root\",le=\"{le}\"}}")]
        };
        assert_eq!(
            [wait("0.000001"), wait("0.000032"), wait("0.000064")],
            [0, 0, 3]
        );
        assert_eq!(
            [wait("0.000128"), wait("4.194304"), wait("+Inf")],
            [7, 7, 8]
        );
        // Of the origin once.
        let sectors = "dm_snapshot_origin_copied_sectors_total{origin=\"vg-root\"}";
        assert_eq!(found[sectors], 120);
        assert_eq!(
            all.matches("\ndm_snapshot_origin_").count(),
            OF_ORIGINS.len()
        );
    }

    #[test]
    fn no_series_is_told_twice() {
        // parse() would find it. Two snapshots in a device, and two origins of one name.
        let answer = "exceptions 5\norigin_copies 7\nwaits_longer 1\n";
        let first = with_figures(snapshot("a", 800, 4000), answer);
        let second = Active {
            start: 8,
            ..first.clone()
        };
        let above = Active {
            name: "above".into(),
            origin_number: "254:9".into(),
            ..first.clone()
        };
        let found = parse(&text(&[first, second, above]));
        let copies = "dm_snapshot_origin_copies_total{origin=\"vg-root\",number=";
        assert_eq!(found[&format!("{copies}\"254:1\"}}")], 7);
        assert_eq!(found[&format!("{copies}\"254:9\"}}")], 7);
        let second = "dm_snapshot_exceptions{name=\"a\",origin=\"vg-root\",start=\"8\"}";
        assert_eq!(found[second], 5);
    }

    #[test]
    fn tells_of_none_and_of_c() {
        assert_eq!(
            parse(&text(&[])).into_iter().collect::<Vec<_>>(),
            [("dm_snapshots".into(), 0)]
        );
        let of_c = parse(&text(&[snapshot("a", 800, 4000)]));
        assert_eq!(of_c.len(), 7, "{of_c:?}");
    }

    #[test]
    fn replaces_only_what_it_wrote() {
        let dir = tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let file = Prometheus::new(&path("a.prom")).unwrap();
        file.write(&[]).unwrap();
        file.write(&[snapshot("a", 800, 4000)]).unwrap();
        assert_eq!(
            fs::read_to_string(path("a.prom")).unwrap(),
            text(&[snapshot("a", 800, 4000)])
        );
        let mode = fs::metadata(path("a.prom")).unwrap().permissions().mode();
        assert_eq!(mode & 0o444, 0o444, "{mode:o}");
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "a temporary file is left"
        );
        Prometheus::new(&path("a.prom")).unwrap();
        fs::write(path("empty"), "").unwrap();
        Prometheus::new(&path("empty")).unwrap();
        fs::write(path("precious"), "# HELP other 1\n").unwrap();
        symlink("a.prom", path("link")).unwrap();
        for name in ["precious", "link", ".", "a.prom/x"] {
            assert!(Prometheus::new(&path(name)).is_err(), "{name}");
        }
        let nowhere = Prometheus::new(&path("nowhere/a.prom")).unwrap();
        let error = nowhere.write(&[]).unwrap_err().to_string();
        assert!(error.contains("nowhere/a.prom: cannot create"), "{error}");
    }
}

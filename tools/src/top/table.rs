// SPDX-License-Identifier: GPL-2.0-only

//! Snapshots as a table.

use super::change::{Change, Merge};
use super::short::{count, cut, percent, time, wait};
use crate::active::Active;
use crate::format::SECTOR_BYTES;
use crate::stat::Live;
use crate::units::Units;

const COLUMNS: usize = 12;

/// What stands above the columns.
const HEADS: [&str; COLUMNS] = [
    "NAME", "ORIGIN", "FILL", "USED", "CHUNK", "RATE", "FULL", "EXC", "E/C", "C/S", "P50", "P99",
];

/// How many of them, the first, are names: to the left, and cut where there is no room.
const NAMES: usize = 2;

/// The columns in whose place the status stands of a snapshot that does not work.
const FILL: usize = 2;
const USED: usize = 3;

/// What the columns take at least, so that a view does not jump: fill and use together what
/// `Merge failed` takes.
const WIDTHS: [usize; COLUMNS] = [4, 6, 5, 6, 5, 5, 4, 4, 3, 3, 5, 5];

/// What is left of a name in a narrow terminal.
const SHORTEST_NAME: usize = 6;

/// What is not known.
const UNKNOWN: &str = "-";

/// A row: a snapshot.
struct Row {
    cells: [String; COLUMNS],
    /// A status in the place of fill and use.
    status: Option<String>,
    /// What stands below it.
    note: Option<String>,
}

/// The table of all snapshots.
pub struct Table {
    rows: Vec<Row>,
}

impl Table {
    /// The table of `actives`, each with what changed. Sizes are in `units`.
    pub fn new(actives: &[Active], changes: &[Change], units: Units) -> Self {
        let rows = actives.iter().zip(changes);
        Self {
            rows: rows.map(|(a, change)| Row::new(a, change, units)).collect(),
        }
    }

    /// Its lines, the heads first. No line takes more than `width` columns.
    pub fn lines(&self, width: Option<usize>) -> Vec<String> {
        let mut widths = WIDTHS;
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(&row.cells) {
                *width = cell.len().max(*width);
            }
        }
        if let Some(width) = width {
            make_room(&mut widths, width);
        }
        let heads = Row {
            cells: HEADS.map(String::from),
            status: None,
            note: None,
        };
        let mut lines = Vec::new();
        for row in std::iter::once(&heads).chain(&self.rows) {
            lines.push(row.line(&widths));
            lines.extend(row.note.iter().map(|note| format!("  {note}")));
        }
        if let Some(width) = width {
            // Who asks for bytes gets them, cut.
            lines.iter_mut().for_each(|line| *line = cut(line, width));
        }
        lines
    }
}

/// Takes from the names, the longer one first, what is too much.
fn make_room(widths: &mut [usize; COLUMNS], width: usize) {
    let taken = widths.iter().sum::<usize>() + COLUMNS - 1;
    for _ in width..taken {
        let longest = widths[..NAMES].iter_mut().max_by_key(|name| **name);
        if let Some(name) = longest.filter(|name| **name > SHORTEST_NAME) {
            *name -= 1;
        }
    }
}

impl Row {
    fn new(active: &Active, change: &Change, units: Units) -> Self {
        let size = |sectors: u64| units.short(u128::from(sectors) * u128::from(SECTOR_BYTES));
        let unknown = || UNKNOWN.to_owned();
        let show = |shown: Option<String>| shown.unwrap_or_else(unknown);
        let (fill, used, status) = match &active.state {
            Live::Active(usage) => (
                percent(usage.used as f64 / usage.total.max(1) as f64),
                size(usage.used),
                None,
            ),
            Live::Other(status) => (unknown(), unknown(), Some(status.clone())),
        };
        let exceptions = active.figures.as_ref().and_then(|f| f.get("exceptions"));
        let cells = [
            cut(&active.name, usize::MAX),
            cut(&active.origin, usize::MAX),
            fill,
            used,
            show((active.chunk_size > 0).then(|| size(active.chunk_size))),
            show(change.growth.map(|growth| rate(growth, units))),
            show(change.full_in.map(time)),
            show(exceptions.map(|n| count(n as f64))),
            show(change.exceptions_per_commit.map(count)),
            show(change.commits_per_second.map(count)),
            show(change.wait_p50.map(wait)),
            show(change.wait_p99.map(wait)),
        ];
        Self {
            cells,
            status,
            note: change.merge.as_ref().map(note),
        }
    }

    fn line(&self, widths: &[usize; COLUMNS]) -> String {
        let mut line = String::new();
        for (column, (cell, width)) in self.cells.iter().zip(widths).enumerate() {
            if column > 0 && !(column == USED && self.status.is_some()) {
                line.push(' ');
            }
            match &self.status {
                Some(status) if column == FILL => {
                    let width = widths[FILL] + 1 + widths[USED];
                    line.push_str(&format!("{:<width$}", cut(status, width)));
                }
                Some(_) if column == USED => {}
                _ if column < NAMES => line.push_str(&format!("{:<width$}", cut(cell, *width))),
                _ => line.push_str(&format!("{cell:>width$}")),
            }
        }
        line
    }
}

/// Bytes a second.
fn rate(growth: f64, units: Units) -> String {
    // CAST: It saturates.
    let shown = units.short(growth.abs().round() as u128);
    if growth < 0.0 {
        format!("-{shown}")
    } else {
        shown
    }
}

/// How far a merge is, in a line of its own.
fn note(merge: &Merge) -> String {
    let mut note = "merging".to_owned();
    if let Some(share) = merge.share {
        note.push_str(&format!(": {} done", percent(share)));
    }
    if let Some(left) = merge.left {
        note.push_str(&format!(", {left} chunks left"));
    }
    if let Some(seconds) = merge.done_in {
        note.push_str(&format!(", {} to go", time(seconds)));
    }
    note
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::figures::Figures;
    use crate::stat::Usage;
    use std::time::Duration;

    /// A snapshot of which so many of so many sectors are used, 16 of them metadata.
    pub fn snapshot(name: &str, used: u64, total: u64) -> Active {
        let usage = Usage {
            chunk_size: 8,
            total,
            used,
            metadata: 16,
        };
        Active {
            name: name.into(),
            start: 0,
            disk: None,
            cow_number: "254:2".into(),
            origin_number: "254:1".into(),
            origin: "vg-root".into(),
            merging: false,
            chunk_size: 8,
            state: Live::Active(usage),
            figures: None,
        }
    }

    /// The same, which is merged.
    pub fn merging(name: &str, used: u64, total: u64) -> Active {
        Active {
            merging: true,
            ..snapshot(name, used, total)
        }
    }

    /// `active` with what it answers.
    pub fn with_figures(active: Active, answer: &str) -> Active {
        Active {
            figures: Figures::parse(answer),
            ..active
        }
    }

    fn units(text: &str) -> Units {
        Units::parse(text).unwrap()
    }

    fn lines(actives: &[Active], changes: &[Change], width: Option<usize>) -> Vec<String> {
        Table::new(actives, changes, units("h")).lines(width)
    }

    #[test]
    fn each_snapshot_is_a_row() {
        let then = with_figures(
            snapshot("vg-snap", 8000, 1 << 21),
            "commits 0\ncommitted 0\n",
        );
        let now = with_figures(
            snapshot("vg-snap", 12_096, 1 << 21),
            "exceptions 12345\ncommits 20\ncommitted 250\nwaits_below_64_us 9\nwaits_below_2048_us 1\n",
        );
        let merge = merging("vg-root", 816, 4000);
        let mut invalid = snapshot("vg-old", 0, 0);
        invalid.state = Live::Other("Merge failed".into());
        let passed = Duration::from_secs(2);
        let changes = [
            Change::of(&now, Some((&then, passed))),
            Change::of(&merge, Some((&merging("vg-root", 1016, 4000), passed))),
            Change::of(&invalid, None),
        ];
        let found = lines(&[now, merge, invalid], &changes, None);
        assert_eq!(
            found,
            [
                "NAME    ORIGIN   FILL   USED CHUNK  RATE FULL  EXC E/C C/S   P50   P99",
                "vg-snap vg-root  0.5%   5.9m    4k    1m  16m  12K  12  10  64us   2ms",
                "vg-root vg-root 20.4%   408k    4k  -50k    -    -   -   -     -     -",
                "  merging, 100 chunks left, 8s to go",
                "vg-old  vg-root Merge failed    4k     -    -    -   -   -     -     -",
            ]
        );
    }

    #[test]
    fn the_widest_rows_fit_eighty_columns() {
        let widest =
            "exceptions 999999\ncommits 999999\ncommitted 99999999\nwaits_below_512_us 99\n\
                      waits_below_524288_us 99\nmerged 1\n";
        let name = "a".repeat(127);
        let mut actives = Vec::new();
        for (name, used) in [
            (&name[..], 1 << 62),
            ("b\x1b[2J\u{202e}\u{4e2d}", 999_999_999),
        ] {
            let mut active = with_figures(snapshot(name, used, u64::MAX / 3), widest);
            active.origin = name.repeat(2);
            active.chunk_size = 1 << 21;
            actives.push(active.clone());
            active.merging = true;
            actives.push(active.clone());
            active.state = Live::Other("x".repeat(300));
            actives.push(active);
        }
        let change = Change {
            growth: Some(-1e17),
            full_in: Some(1e9),
            commits_per_second: Some(123_456.7),
            exceptions_per_commit: Some(9999.0),
            wait_p50: Some(crate::waits::Below::Microseconds(512)),
            wait_p99: Some(crate::waits::Below::Microseconds(524_288)),
            merge: Some(Merge {
                left: Some(u64::MAX),
                share: Some(0.999),
                done_in: Some(1e300),
            }),
        };
        let changes = vec![change; actives.len()];
        for unit in ["h", "H", "s", "b", "k", "e"] {
            let table = Table::new(&actives, &changes, units(unit));
            for width in [80, 132, 40, 1, 0] {
                for line in table.lines(Some(width)) {
                    assert!(line.len() <= width, "{width}: {line}");
                    assert!(
                        line.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
                        "{line}"
                    );
                }
            }
            if "hH".contains(unit) {
                // Nothing but names is cut in 80 columns.
                let lines = table.lines(Some(80));
                assert!(lines[0].ends_with("P50   P99"), "{}", lines[0]);
                assert!(lines[1].ends_with("512us 524ms"), "{}", lines[1]);
                assert_eq!(lines[0].len(), 80, "{}", lines[0]);
            }
        }
    }
}

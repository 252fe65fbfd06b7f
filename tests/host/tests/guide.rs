// SPDX-License-Identifier: GPL-2.0-only

//! The administrator's guide has every line that the module can log, as it is logged.

use host_tests::format::{ChunkSize, ChunkSizeFault, Fault, FaultClass, Place};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The rows of the guide's table below `heading`: the line in the first column, without its
/// backquotes, and the second column.
fn rows(heading: &str) -> Vec<(String, String)> {
    let guide = fs::read_to_string(project().join("Documentation/admin-guide.md")).unwrap();
    let section = guide
        .split("\n## ")
        .find_map(|section| section.strip_prefix(heading))
        .unwrap();
    let rows: Vec<_> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|row| {
            let (line, rest) = row.split_once('`').unwrap();
            let (_, second) = rest.split_once("| ").unwrap();
            (line.into(), second.trim_end_matches(" |").into())
        })
        .collect();
    assert!(!rows.is_empty());
    rows
}

/// Whether `row` says `text`: a capital letter that stands alone is a number, "…" is anything.
fn says(row: &str, text: &str) -> bool {
    fn rest(row: &[char], alone: bool, text: &[char]) -> bool {
        match row {
            [] => text.is_empty(),
            ['…', row @ ..] => (0..=text.len()).any(|at| rest(row, true, &text[at..])),
            [letter @ 'A'..='Z', row @ ..]
                if alone && row.first().is_none_or(|next| !next.is_alphanumeric()) =>
            {
                let digits = text.iter().take_while(|c| c.is_ascii_digit()).count();
                (digits > 0 && rest(row, true, &text[digits..]))
                    || (text.first() == Some(letter) && rest(row, false, &text[1..]))
            }
            [c, row @ ..] => text.first() == Some(c) && rest(row, !c.is_alphanumeric(), &text[1..]),
        }
    }
    let chars = |text: &str| text.chars().collect::<Vec<_>>();
    rest(&chars(row), true, &chars(text))
}

/// One of each fault.
fn faults() -> Vec<Fault> {
    let place = Place {
        area: 3,
        index: 25,
        byte: 1 << 40,
    };
    let faults = vec![
        Fault::Magic(0xcafe),
        Fault::Version(20),
        Fault::ChunkSize(12, ChunkSizeFault::NotPowerOfTwo),
        Fault::TableChunkSize(1 << 31, ChunkSizeFault::NotCowBlocks(4096)),
        Fault::CowTooSmall {
            chunk_sectors: ChunkSize::MAX_SECTORS,
            cow_sectors: 77,
        },
        Fault::AreaBeyondDevice {
            area: 14,
            cow_chunks: 1000,
        },
        Fault::NewIsMetadata(place, 10),
        Fault::NewBeyondDevice(place, u64::MAX),
        Fault::NewUsedTwice(place, 11),
        Fault::OldUsedTwice {
            old: 12,
            new: [2, 30],
        },
        Fault::OldBeyondOrigin(place, 13),
        Fault::Missing(place),
        Fault::NoMemory,
        Fault::Interrupted,
    ];
    // What is added to the type is to be added above, too.
    for fault in &faults {
        match fault {
            Fault::Magic(..)
            | Fault::Version(..)
            | Fault::ChunkSize(..)
            | Fault::TableChunkSize(..)
            | Fault::CowTooSmall { .. }
            | Fault::AreaBeyondDevice { .. }
            | Fault::NewIsMetadata(..)
            | Fault::NewBeyondDevice(..)
            | Fault::NewUsedTwice(..)
            | Fault::OldUsedTwice { .. }
            | Fault::OldBeyondOrigin(..)
            | Fault::Missing(..)
            | Fault::NoMemory
            | Fault::Interrupted => {}
        }
    }
    let kinds: BTreeSet<_> = faults
        .iter()
        .map(std::mem::discriminant)
        .map(|d| format!("{d:?}"))
        .collect();
    assert_eq!((faults.len(), kinds.len()), (14, 14));
    faults
}

#[test]
fn faults_are_in_the_guide() {
    let rows = rows("Metadata that is refused");
    for fault in faults() {
        let text = fault.to_string();
        let found: Vec<_> = rows.iter().filter(|(line, _)| says(line, &text)).collect();
        let [(_, error)] = found[..] else {
            panic!("`{text}` is in {} rows of the guide", found.len());
        };
        let expected = match fault.class() {
            FaultClass::Memory => "ENOMEM",
            FaultClass::Interrupted => "EINTR",
            FaultClass::Foreign => "ENXIO",
            FaultClass::Argument => "EINVAL",
            FaultClass::Damage => "EUCLEAN",
        };
        assert_eq!(error.rsplit(' ').next(), Some(expected), "{text}");
        assert_eq!(
            fault.place().is_some(),
            text.starts_with("area 3 record 25 (byte 1099511627776): ")
        );
    }
    for (line, _) in &rows {
        let faults = faults();
        assert!(
            faults.iter().any(|fault| says(line, &fault.to_string())),
            "no fault says `{line}`"
        );
    }
}

#[test]
fn a_fault_has_a_word_of_its_own() {
    let kinds: BTreeSet<_> = faults().iter().map(Fault::kind).collect();
    assert_eq!(kinds.len(), faults().len());
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// What `text` has up to the quote that ends a string literal, with "…" for what is put in.
fn literal(text: &str) -> String {
    let mut line = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => match chars.next().unwrap() {
                '\n' => {
                    let rest = chars.as_str().trim_start();
                    chars = rest.chars();
                }
                escaped => line.push(escaped),
            },
            '{' => {
                line.push('…');
                chars.find(|c| *c == '}').unwrap();
            }
            c => line.push(c),
        }
    }
    line
}

/// What the module logs, from its source: without the device that a line begins with.
fn logged() -> BTreeSet<String> {
    let mut files = Vec::new();
    sources(&project().join("src"), &mut files);
    let mut lines = BTreeSet::new();
    for file in files {
        let source = fs::read_to_string(file).unwrap();
        for name in ["dm_err!(", "dm_warn!(", "dm_info!("] {
            for (at, _) in source.match_indices(name) {
                let call = &source[at + name.len()..];
                let Some(text) = call.trim_start().strip_prefix('"') else {
                    panic!("not a literal: {}", &call[..40]);
                };
                let line = literal(text);
                lines.insert(line.strip_prefix("…: ").unwrap_or(&line).into());
            }
        }
    }
    // a fault
    assert!(lines.remove("…"));
    lines
}

#[test]
fn other_lines_are_in_the_guide() {
    let rows: BTreeSet<String> = rows("What else the log says")
        .into_iter()
        .map(|(line, _)| line)
        .collect();
    assert_eq!(logged(), rows);
}

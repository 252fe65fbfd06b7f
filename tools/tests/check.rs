// SPDX-License-Identifier: GPL-2.0-only

//! `snap_check`: its verdict and what it says about damage.

mod common;

use common::{fails, ok, patch, run, tool, Image, Ran};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use tempfile::tempdir;

fn json(command: &mut Command) -> Value {
    serde_json::from_str(&run(command.arg("--json")).stdout).unwrap()
}

fn verdict(cow: &Path) -> String {
    let ran = run(tool("check").arg("--json").arg(cow));
    let json: Value = serde_json::from_str(&ran.stdout).unwrap();
    let verdict = json["verdict"].as_str().unwrap().to_owned();
    let good = ["loads", "new"].contains(&verdict.as_str());
    assert_eq!(ran.code, Some(i32::from(!good)), "{ran:?}");
    verdict
}

/// Runs a check, which must find what `message` says. All that it finds is on standard output.
fn finds(command: &mut Command, message: &str) -> Ran {
    let ran = run(command);
    assert_eq!(ran.code, Some(1), "{command:?}: {ran:?}");
    assert!(ran.stdout.contains(message), "no `{message}` in {ran:?}");
    assert_eq!(ran.stderr, "");
    ran
}

fn check_error(cow: &Path, message: &str) -> Ran {
    assert_eq!(verdict(cow), "refused");
    finds(tool("check").arg(cow), message)
}

fn count_errors(ran: &Ran) -> usize {
    let is_error = |line: &&str| line.starts_with("error: ");
    ran.stdout.lines().filter(is_error).count()
}

#[test]
fn sound_images_load() {
    let dir = tempdir().unwrap();
    for chunk_sectors in [1, 8, 32, 256] {
        for records in [0, 1, 31, 32, 33, 300, 1000] {
            let old: Vec<u64> = (0..records).map(|i| i * 7919 % 100_003).collect();
            let cow = Image::of(chunk_sectors, &old).write_cow(&dir.path().join("cow"));
            let ran = ok(tool("check").arg(&cow));
            assert!(
                ran.stdout.contains(&format!(" {records} records ")),
                "{ran:?}"
            );
            assert!(ran.stdout.contains(" 0 holes"), "{ran:?}");
            assert_eq!(ran.stderr, "");
            assert_eq!(verdict(&cow), "loads");
        }
    }
}

#[test]
fn tells_new_and_invalid_from_valid() {
    let dir = tempdir().unwrap();
    let cow = dir.path().join("cow");
    std::fs::write(&cow, [0; 65536]).unwrap();
    assert_eq!(verdict(&cow), "new");

    // Too small for two chunks of the default size, but not for smaller ones.
    std::fs::write(&cow, [0; 16384]).unwrap();
    assert_eq!(verdict(&cow), "refused");
    ok(tool("check").arg("--chunk-size=8").arg(&cow));
    finds(
        tool("check").arg("--chunk-size=9").arg(&cow),
        "table: chunk size 9",
    );

    let mut image = Image::of(8, &[1, 2, 3]);
    image.valid = 0;
    image.write_cow(&cow);
    assert_eq!(verdict(&cow), "invalid");
    // An invalid snapshot is not even laid out.
    patch(&cow, 12, &(1_u32 << 21).to_le_bytes());
    assert_eq!(verdict(&cow), "invalid");
    patch(&cow, 12, &8_u32.to_le_bytes());
    let ran = run(tool("check").arg(&cow));
    assert!(ran.stdout.contains("as invalid"), "{ran:?}");
}

#[test]
fn header_damage() {
    let dir = tempdir().unwrap();
    let cow = dir.path().join("cow");
    let image = Image::of(8, &[1, 2, 3]);
    for (offset, value, message) in [
        (0, 0x0bad_cafe_u32, "magic 0x0badcafe"),
        (8, 2, "version 2"),
        (12, 0, "chunk size 0 sectors"),
        (12, 12, "not a power of two"),
        (12, 1 << 22, "the largest is"),
        (12, 1 << 21, "too large for a COW device"),
    ] {
        image.write_cow(&cow);
        patch(&cow, offset, &value.to_le_bytes());
        check_error(&cow, message);
    }
    std::fs::write(&cow, [1; 100]).unwrap();
    fails(tool("check").arg(&cow), "smaller than a sector");
}

#[test]
fn record_damage() {
    let dir = tempdir().unwrap();
    let cow = dir.path().join("cow");
    let image = Image::of(8, &[10, 11, 12, 20, 21]);
    let (area, byte) = ("area 0 record 1", image.place(1));
    for (new, message) in [
        (1_u64, "new chunk 1 is a metadata chunk"),
        (258, "lies beyond the end"),
        (u64::MAX, "lies beyond the end"),
        (5, "area 0 record 3"),
        (2, "new chunk 2 is used by an earlier record"),
    ] {
        image.write_cow(&cow);
        patch(&cow, byte + 8, &new.to_le_bytes());
        let ran = check_error(&cow, message);
        if new != 5 {
            assert!(
                ran.stdout.contains(&format!("{area} (byte {byte})")),
                "{ran:?}"
            );
        }
    }
}

#[test]
fn every_fault_is_told() {
    let dir = tempdir().unwrap();
    let cow = dir.path().join("cow");
    let mut image = Image::of(8, &(0..600).collect::<Vec<_>>());
    for bad in [3, 300, 301, 599] {
        image.records[bad].1 = 1;
    }
    image.records[400].1 = image.records[10].1;
    image.write_cow(&cow);
    let ran = check_error(&cow, "area 0 record 3 ");
    for place in [
        "area 1 record 44",
        "area 1 record 45",
        "area 2 record 87",
        "area 1 record 144",
    ] {
        assert!(ran.stdout.contains(place), "no `{place}` in {ran:?}");
    }
    assert_eq!(count_errors(&ran), 5, "{ran:?}");
}

#[test]
fn old_chunks_need_an_origin() {
    let dir = tempdir().unwrap();
    let image = Image::of(8, &[10, 11, 99]);
    let cow = image.write_cow(&dir.path().join("cow"));
    assert_eq!(verdict(&cow), "loads");
    ok(tool("check").arg("--origin-size=800").arg(&cow));
    ok(tool("check").arg("--origin-size=793").arg(&cow));
    let message = "old chunk 99 lies beyond the end of the origin";
    finds(tool("check").arg("--origin-size=792").arg(&cow), message);
    let origin = dir.path().join("origin");
    std::fs::write(&origin, vec![0; 792 * 512]).unwrap();
    finds(
        tool("check").arg("--origin").arg(&origin).arg(&cow),
        message,
    );
}

#[test]
fn oddities_are_warnings() {
    let dir = tempdir().unwrap();
    let cow = dir.path().join("cow");
    let mut image = Image::of(8, &[10, 11, 13, 12, 14]);
    image.records[4].1 = 20;
    image.write_cow(&cow);
    patch(&cow, 4, &7_u32.to_le_bytes());
    patch(&cow, image.place(9), &[1]);
    let ran = ok(tool("check").arg(&cow));
    for message in ["valid is 7", "not zero after it"] {
        assert!(ran.stdout.contains(message), "no `{message}` in {ran:?}");
    }
    assert_eq!(ran.stderr, "");
    assert!(ran.stdout.contains(" 14 holes"), "{ran:?}");
    let quiet = ok(tool("check").arg("-q").arg(&cow));
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
}

#[test]
fn an_old_chunk_is_used_once() {
    let dir = tempdir().unwrap();
    let cow = dir.path().join("cow");
    let message = "old chunk 10 is used by two records, with new chunks 2 and 4";
    Image::of(8, &[10, 11, 10, 12, 10]).write_cow(&cow);
    let ran = check_error(&cow, message);
    assert!(ran.stdout.contains("with new chunks 2 and 6"), "{ran:?}");
    // Too far apart to be found by bits of all that lie between.
    let mut old: Vec<u64> = (0..8000).map(|i| i << 40).collect();
    Image::of(8, &old).write_cow(&cow);
    assert_eq!(verdict(&cow), "loads");
    old[7999] = old[3];
    let image = Image::of(8, &old);
    image.write_cow(&cow);
    let ran = check_error(&cow, "old chunk 3298534883328 is used by two records");
    assert_eq!(count_errors(&ran), 1, "{ran:?}");

    // Together with other faults.
    patch(&cow, image.place(1) + 8, &1_u64.to_le_bytes());
    let ran = check_error(&cow, "old chunk 3298534883328 is used by two records");
    assert_eq!(count_errors(&ran), 2, "{ran:?}");

    // The kernel does not look at the records of an invalid snapshot.
    let mut image = Image::of(8, &[10, 10]);
    image.valid = 0;
    image.write_cow(&cow);
    assert_eq!(verdict(&cow), "invalid");
}

#[test]
fn a_list_without_end_is_refused() {
    let dir = tempdir().unwrap();
    let cow = dir.path().join("cow");
    let mut image = Image::of(1, &(0..64).collect::<Vec<_>>());
    // Two full areas, and the device ends before a third.
    image.cow_chunks = 67;
    image.write_cow(&cow);
    check_error(&cow, "area 2 lies beyond the end");
}

#[test]
fn all_means_all() {
    let dir = tempdir().unwrap();
    let cow = dir.path().join("cow");
    let mut image = Image::of(8, &(0..3000).collect::<Vec<_>>());
    for (_, new) in &mut image.records {
        *new = 1;
    }
    image.write_cow(&cow);
    let ran = finds(
        tool("check").arg(&cow),
        "2980 more faults (--all tells them)",
    );
    assert_eq!(count_errors(&ran), 21);
    let ran = finds(tool("check").arg("--all").arg(&cow), "area 11 record 183 ");
    assert_eq!(count_errors(&ran), 3000);
    assert!(!ran.stdout.contains("more faults"), "{ran:?}");

    let told = |json: &Value| json["faults"].as_array().unwrap().len();
    let first = json(tool("check").arg(&cow));
    assert_eq!((told(&first), &first["fault_count"]), (1000, &3000.into()));
    let all = json(tool("check").arg("--all").arg(&cow));
    assert_eq!((told(&all), &all["fault_count"]), (3000, &3000.into()));
}

#[test]
fn the_header_alone_says_nothing_of_records() {
    let dir = tempdir().unwrap();
    let cow = dir.path().join("cow");
    let mut image = Image::of(8, &[1, 2, 3]);
    image.records[1].1 = 1;
    image.write_cow(&cow);
    let header_only = || {
        let mut command = tool("check");
        command.arg("--header-only").arg(&cow);
        command
    };
    let ran = ok(&mut header_only());
    assert!(ran.stdout.contains("the records were not read"), "{ran:?}");
    for claim in ["3 records", "0 records", "would load"] {
        assert!(!ran.stdout.contains(claim), "{ran:?}");
    }
    let json = json(&mut header_only());
    assert_eq!(json["verdict"], "header");
    for unknown in ["records", "runs", "holes"] {
        assert_eq!(json[unknown], Value::Null);
    }
    patch(&cow, 8, &2_u32.to_le_bytes());
    finds(&mut header_only(), "would refuse");
}

#[test]
fn a_lost_header_is_no_new_snapshot() {
    let dir = tempdir().unwrap();
    let cow = dir.path().join("cow");
    // In ascending order, and as kernels before 3.13 left them.
    let mut descending = Image::of(8, &[1, 2, 3, 4]);
    descending.records = vec![(1, 5), (2, 4), (3, 3), (4, 2)];
    let mut small = Image::of(1, &[7]);
    small.cow_chunks = 1000;
    for image in [small, Image::of(256, &[7, 8]), descending] {
        image.write_cow(&cow);
        patch(&cow, 0, &[0; 512]);
        let advice = format!("snap_repair --chunk-size {} ", image.chunk_sectors);
        for option in ["--chunk-size=0", "--header-only"] {
            let ran = finds(
                tool("check").arg(option).arg(&cow),
                "warning: the header is zero",
            );
            assert!(ran.stdout.contains(&advice), "{ran:?}");
        }
        let json = json(tool("check").arg(&cow));
        assert_eq!(json["verdict"], "new");
        assert_eq!(json["warnings"][0]["kind"], "header-lost");
        assert_eq!(json["warnings"][0]["chunk_size"], image.chunk_sectors);
        fails(
            tool("dump").arg(&cow),
            "snap_check tells whether records stand behind it",
        );

        let repaired = dir.path().join("repaired");
        ok(tool("repair")
            .arg(format!("--chunk-size={}", image.chunk_sectors))
            .args(["--trust-invalid", "--force", "-i"])
            .arg(&cow)
            .arg("-o")
            .arg(&repaired));
        assert_eq!(verdict(&repaired), "loads");
    }
}

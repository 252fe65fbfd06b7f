// SPDX-License-Identifier: GPL-2.0-only

//! Sizes with units, `snap_size` and `snap_rmap`.

mod common;

use common::{fails, ok, run, tool, Image};
use serde_json::{json, Value};
use tempfile::tempdir;

fn json_of(command: &mut std::process::Command) -> Value {
    serde_json::from_str(&ok(command.arg("--json")).stdout).unwrap()
}

#[test]
fn the_size_that_is_told_is_just_enough() {
    let dir = tempdir().unwrap();
    let cow = dir.path().join("cow");
    // Chunks of a sector have 32 records in an area: one less, all of it, one more.
    for records in [0, 1, 31, 32, 33, 63, 64, 100] {
        let origin = format!("--origin-size={}s", records.max(1));
        let changed = format!("--changed={records}s");
        let size = json_of(tool("size").args(["-c", "1s", &origin, &changed]));
        let mut image = Image::of(1, &(0..records).collect::<Vec<_>>());
        let check = |image: &Image| {
            image.write_cow(&cow);
            run(tool("check").arg(&cow)).code
        };
        image.cow_chunks = size["size"].as_u64().unwrap();
        assert_eq!(check(&image), Some(0), "{records}: {size}");
        assert_eq!(size["chunks"], records);
        assert_eq!(size["metadata"], image.cow_chunks - records);
        image.cow_chunks -= 1;
        assert_eq!(check(&image), Some(1), "{records}: {size}");
    }
}

#[test]
fn sizes_are_told_as_asked() {
    let size = |arguments: &[&str]| ok(tool("size").args(arguments)).stdout;
    let told = size(&["--origin-size", "100g", "--changed", "10%", "-c", "64k"]);
    assert_eq!(
        told,
        "chunk size  64 KiB\ndata        10 GiB in 163840 chunks\nmetadata    2.62 MiB\n\
         COW device  10.00 GiB\nlvcreate -s -c 64k -L 10488448k\n"
    );
    let told = size(&["--origin-size", "1GiB", "--units", "s"]);
    assert!(told.contains("chunk size  8 sectors\n"), "{told}");
    // A part of a chunk is one; more than all is all.
    let all = json_of(tool("size").args(["--origin-size=9s", "-c", "4k", "--changed=1t"]));
    assert_eq!(
        all,
        json!({ "chunk_size": 8, "chunks": 2, "metadata": 16, "size": 32 })
    );
    // LVM has no chunks of 2 MiB.
    assert!(!size(&["--origin-size=1g", "-c", "2m"]).contains("lvcreate"));
    for wrong in [
        &["--origin-size=1x"][..],
        &["--origin-size=1g", "-c", "3k"],
        &["--origin-size=1g", "--changed=101%"],
        &["--origin-size=1g", "--changed=-1"],
        &["--origin-size=1g", "--units=q"],
        &["--origin-size=0"],
        &[],
    ] {
        let ran = run(tool("size").args(wrong));
        assert!(matches!(ran.code, Some(1 | 2)), "{wrong:?}: {ran:?}");
    }
}

#[test]
fn advice_can_be_pasted() {
    let dir = tempdir().unwrap();
    let cow = dir.path().join("cow");
    for (sectors, old, expected) in [
        (
            8,
            (0..256).collect::<Vec<_>>(),
            "chunk size 32 KiB: lvcreate -s -c 32k\n",
        ),
        (
            2048,
            vec![1, 900],
            "as near as LVM can: lvcreate -s -c 512k\n",
        ),
        (
            8,
            (0..256).map(|i| i * 999).collect(),
            "chunk size 4 KiB: lvcreate -s -c 4k\n",
        ),
        (
            1,
            (0..20).map(|i| i * 999).collect(),
            "as near as LVM can: lvcreate -s -c 4k\n",
        ),
    ] {
        Image::of(sectors, &old).write_cow(&cow);
        let ran = ok(tool("stat").arg(&cow));
        assert!(ran.stdout.ends_with(expected), "{ran:?}");
        let ran = ok(tool("stat").args(["--units", "s"]).arg(&cow));
        assert!(
            ran.stdout.contains(&format!(" {sectors} sectors\n")),
            "{ran:?}"
        );
    }
}

#[test]
fn sizes_are_read_with_units() {
    let dir = tempdir().unwrap();
    let cow = Image::of(8, &[3, 4, 9]).write_cow(&dir.path().join("cow"));
    for size in ["76", "76s", "38k", "38KiB", "38912b"] {
        let ran = ok(tool("delta").args(["--origin-size", size]).arg(&cow));
        assert_eq!(ran.stdout, "24 16\n72 4\n", "{size}");
    }
    ok(tool("check").args(["--origin-size", "1g"]).arg(&cow));
    let ran = run(tool("check").args(["--origin-size", "1.3k"]).arg(&cow));
    assert!(
        ran.code == Some(2) && ran.stderr.contains("whole number of sectors"),
        "{ran:?}"
    );
}

#[test]
fn check_and_delta_tell_units() {
    let dir = tempdir().unwrap();
    let cow = Image::of(8, &[3, 4, 900]).write_cow(&dir.path().join("cow"));
    let told = |arguments: &[&str]| ok(tool(arguments[0]).args(&arguments[1..]).arg(&cow)).stdout;
    for (units, chunk, ranges) in [
        (&[][..], "8 sectors", "24 16\n7200 8\n"),
        (&["--units", "s"], "8 sectors", "24 16\n7200 8\n"),
        (
            &["--units=b"],
            "4096 B",
            "       12288 B         8192 B\n     3686400 B         4096 B\n",
        ),
        (
            &["--units=h"],
            "4 KiB",
            "        12 KiB          8 KiB\n      3.51 MiB          4 KiB\n",
        ),
        (
            &["--units", "K"],
            "4.09 kB",
            "      12.28 kB        8.19 kB\n    3686.40 kB        4.09 kB\n",
        ),
    ] {
        let check = told(&[&["check"], units].concat());
        assert!(
            check.starts_with(&format!("chunk size {chunk}, 258 chunks, ")),
            "{units:?}: {check}"
        );
        assert_eq!(told(&[&["delta"], units].concat()), ranges, "{units:?}");
        // For programs it stays in sectors.
        let json = told(&[&["delta", "--format=json"], units].concat());
        assert_eq!(json, "[\n[24,16],\n[7200,8]\n]\n");
        let json = json_of(tool("check").args(units).arg(&cow));
        assert_eq!(json["header"]["chunk_size"], 8);
    }
    for name in ["check", "delta"] {
        let ran = run(tool(name).args(["--units", "q"]).arg(&cow));
        assert_eq!(ran.code, Some(2), "{ran:?}");
    }
}

#[test]
fn every_chunk_is_told_of() {
    let dir = tempdir().unwrap();
    let mut image = Image::of(1, &(0..40).map(|i| i * 3).collect::<Vec<_>>());
    image.cow_chunks = 50;
    let cow = image.write_cow(&dir.path().join("cow"));
    let all = json_of(tool("rmap").arg(&cow).arg("0..50"));
    let all = all.as_array().unwrap();
    assert_eq!(all.len(), 50);
    for (new, told) in all.iter().enumerate() {
        let record = image.records.iter().position(|(_, of)| *of == new as u64);
        let expected = match (new, record) {
            (0, _) => json!({ "new": 0, "kind": "header" }),
            (1 | 34, _) => json!({ "new": new, "kind": "area", "area": new / 33 }),
            (_, Some(record)) => {
                let old = image.records[record].0;
                json!({ "new": new, "kind": "data", "old": old, "record": record })
            }
            (_, None) => json!({ "new": new, "kind": "unused" }),
        };
        assert_eq!(*told, expected);
    }
    // In order and once, whatever was asked; a sector's chunk.
    let ran = ok(tool("rmap").arg(&cow).args(["5..7", "6", "0..2", "48"]));
    assert_eq!(
        ran.stdout,
        "0: header\n1: area 0\n5: old chunk 9, origin sectors 9 to 9\n\
         6: old chunk 12, origin sectors 12 to 12\n48: unused\n"
    );
    let larger = Image::of(8, &[7, 9]).write_cow(&dir.path().join("larger"));
    let ran = ok(tool("rmap").arg("--sectors").arg(&larger).arg("23"));
    assert_eq!(ran.stdout, "2: old chunk 7, origin sectors 56 to 63\n");
    fails(tool("rmap").arg(&cow).arg("50"), "lies beyond its end");
    assert_eq!(run(tool("rmap").arg(&cow)).code, Some(2));
}

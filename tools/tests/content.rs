// SPDX-License-Identifier: GPL-2.0-only

//! `snap_export`, `snap_merge`, `snap_delta` and `snap_stat`: what the chunks hold.

mod common;

use common::{fails, ok, patch, run, tool, Image, Ran};
use proptest::prelude::*;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tempfile::{tempdir, TempDir};

struct Files {
    dir: TempDir,
    cow: PathBuf,
    origin: PathBuf,
}

impl Files {
    fn of(image: &Image) -> Self {
        let dir = tempdir().unwrap();
        let cow = image.write_cow(&dir.path().join("cow"));
        let origin = image.write_origin(&dir.path().join("origin"));
        Self { dir, cow, origin }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn export(&self, output: &Path, options: &[&str]) -> Ran {
        let mut command = tool("export");
        command.arg("-i").arg(&self.cow).arg("-o").arg(output);
        if !options.contains(&"--cow-only") {
            command.arg("--origin").arg(&self.origin);
        }
        run(command.args(options))
    }

    fn merge(&self, options: &[&str]) -> Ran {
        let mut command = tool("merge");
        command
            .arg("-i")
            .arg(&self.cow)
            .arg("--origin")
            .arg(&self.origin);
        run(command.args(options))
    }
}

fn image() -> impl Strategy<Value = Image> {
    let old = prop::collection::vec((0_u64..200, 1_u64..20), 0..20);
    (0_u32..5, old, 0_u64..32).prop_map(|(shift, runs, short)| {
        let mut seen = std::collections::HashSet::new();
        let old = runs.into_iter().flat_map(|(old, length)| old..old + length);
        let old: Vec<u64> = old.filter(|old| seen.insert(*old)).collect();
        let mut image = Image::of(1 << shift, &old);
        // The origin's last chunk may be a part of one.
        image.origin_sectors += 1000;
        image.origin_sectors -= short;
        if image.origin_sectors > 1032 {
            image.origin_sectors -= 1000;
        }
        let chunk = u64::from(image.chunk_sectors);
        let last = old.iter().max().unwrap_or(&0) * chunk;
        image.origin_sectors = image.origin_sectors.max(last + 1);
        image
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn export_is_the_snapshot_and_merge_makes_it_the_origin(
        image in image(),
        batch in prop::sample::select(vec!["1", "64", "131072"])
    ) {
        let files = Files::of(&image);
        let output = files.path("out");
        let ran = files.export(&output, &["-q"]);
        prop_assert_eq!(ran.code, Some(0), "{:?}", ran);
        prop_assert!(std::fs::read(&output).unwrap() == image.snapshot());
        prop_assert!(std::fs::read(&files.origin).unwrap() == image.origin());

        let dry = files.merge(&["--dry-run"]);
        prop_assert!(dry.stderr.contains(&format!("{} records", image.records.len())), "{:?}", dry);
        prop_assert!(std::fs::read(&files.origin).unwrap() == image.origin());

        let ran = files.merge(&["--batch", batch]);
        prop_assert_eq!(ran.code, Some(0), "{:?}", ran);
        prop_assert!(std::fs::read(&files.origin).unwrap() == image.snapshot());
        let check = ok(tool("check").arg(&files.cow));
        prop_assert!(check.stdout.contains(" 0 records"), "{:?}", check);
        prop_assert!(!check.stdout.contains("warning"), "{:?}", check);
    }

    #[test]
    fn delta_tells_where_bytes_differ(left in image(), right in image()) {
        let mut right = right;
        right.origin_sectors = left.origin_sectors.max(right.origin_sectors);
        let left = Image { origin_sectors: right.origin_sectors, ..left };
        let files = Files::of(&left);
        let other = right.write_cow(&files.path("other"));
        let differs = |a: &[u8], b: &[u8], grain: u32| -> Vec<bool> {
            let grain = grain as usize;
            a.chunks(512 * grain).zip(b.chunks(512 * grain))
                .flat_map(|(a, b)| vec![a != b; a.len() / 512]).collect()
        };
        let told = |text: &str| -> Vec<bool> {
            let mut sectors = vec![false; left.origin_sectors as usize];
            for line in text.lines() {
                let (begin, length) = line.split_once(' ').unwrap();
                let (begin, length): (usize, usize) = (begin.parse().unwrap(), length.parse().unwrap());
                sectors[begin..begin + length].fill(true);
            }
            sectors
        };
        let delta = |options: &[&Path]| {
            let mut command = tool("delta");
            command.arg("--origin").arg(&files.origin).args(options);
            ok(&mut command).stdout
        };
        let compare = Path::new("--compare");
        let grain = left.chunk_sectors;
        prop_assert_eq!(
            told(&delta(&[compare, &files.cow])),
            differs(&left.snapshot(), &left.origin(), grain)
        );
        let grain = grain.min(right.chunk_sectors);
        let expected = differs(&left.snapshot(), &right.snapshot(), grain);
        prop_assert_eq!(told(&delta(&[compare, &files.cow, &other])), expected.clone());
        // Without reading, nothing that differs is left out.
        let may = told(&delta(&[&files.cow, &other]));
        prop_assert!(expected.iter().zip(&may).all(|(differs, may)| *may || !differs));
    }
}

#[test]
fn delta_as_json() {
    let files = Files::of(&Image::of(8, &[3, 4, 9]));
    let ran = ok(tool("delta").args(["-f", "json"]).arg(&files.cow));
    assert_eq!(ran.stdout, "[\n[24,16],\n[72,8]\n]\n");
    // What would be beyond any file needs the origin's size.
    let mut far = Image::of(8, &[3]);
    far.records[0].0 = 1 << 60;
    let far = far.write_cow(&files.path("far"));
    fails(tool("delta").arg(&far), "--origin-size");
    let ran = ok(tool("delta").arg("--origin-size=76").arg(&files.cow));
    assert_eq!(ran.stdout, "24 16\n72 4\n");
    let empty = Files::of(&Image::of(8, &[]));
    let ran = ok(tool("delta").args(["-f", "json"]).arg(&empty.cow));
    let value: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(value, serde_json::json!([]));
}

#[test]
fn cow_only_is_zero_elsewhere_and_sparse() {
    let image = Image::of(8, &[3, 900, 4000]);
    let files = Files::of(&image);
    let output = files.path("out");
    let ran = files.export(&output, &["--cow-only"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let mut expected = vec![0; 4001 * 4096];
    for (old, _) in &image.records {
        let chunk = *old as usize * 4096..(*old as usize + 1) * 4096;
        expected[chunk.clone()].copy_from_slice(&image.snapshot()[chunk]);
    }
    assert!(std::fs::read(&output).unwrap() == expected);
    let blocks = std::fs::metadata(&output).unwrap().blocks();
    assert!(blocks * 512 < 1 << 20, "{blocks} blocks");

    let sized = files.path("sized");
    assert_eq!(
        files
            .export(&sized, &["--cow-only", "--origin-size=40000"])
            .code,
        Some(0)
    );
    assert_eq!(std::fs::metadata(&sized).unwrap().len(), 40000 * 512);
}

#[test]
fn an_invalid_snapshot_needs_trust() {
    let mut image = Image::of(8, &[3, 4]);
    image.valid = 0;
    let files = Files::of(&image);
    let output = files.path("out");
    let ran = files.export(&output, &[]);
    assert!(
        ran.code == Some(1) && ran.stderr.contains("--trust-invalid"),
        "{ran:?}"
    );
    assert!(!output.exists());
    let ran = files.merge(&[]);
    assert!(
        ran.code == Some(1) && ran.stderr.contains("--trust-invalid"),
        "{ran:?}"
    );
    assert!(std::fs::read(&files.origin).unwrap() == image.origin());
    assert_eq!(files.export(&output, &["--trust-invalid"]).code, Some(0));
    assert_eq!(files.merge(&["--trust-invalid"]).code, Some(0));
    assert!(std::fs::read(&files.origin).unwrap() == std::fs::read(output).unwrap());
}

#[test]
fn repeated_old_chunks_are_refused_until_repaired() {
    let image = Image::of(8, &[3, 4, 3]);
    let files = Files::of(&image);
    let output = files.path("out");
    for ran in [files.export(&output, &[]), files.merge(&[])] {
        assert_eq!(ran.code, Some(1));
        assert!(
            ran.stderr.contains("old chunk 3 is named by two records"),
            "{ran:?}"
        );
    }
    assert!(std::fs::read(&files.origin).unwrap() == image.origin());
    let repaired = files.path("repaired");
    ok(tool("repair")
        .arg("-i")
        .arg(&files.cow)
        .arg("-o")
        .arg(&repaired));
    std::fs::rename(repaired, &files.cow).unwrap();
    assert_eq!(files.export(&output, &[]).code, Some(0));
    // The first record is the copy that was made before the chunk was first overwritten.
    let mut first = image.clone();
    first.records.truncate(2);
    assert!(std::fs::read(&output).unwrap() == first.snapshot());
}

#[test]
fn stale_records_go_with_a_merge() {
    let image = Image::of(8, &[3, 4]);
    let files = Files::of(&image);
    patch(&files.cow, image.place(5), &[9; 32]);
    assert_eq!(files.merge(&[]).code, Some(0));
    let check = ok(tool("check").arg(&files.cow));
    assert!(!check.stdout.contains("warning"), "{check:?}");
}

#[test]
fn outputs_are_not_overwritten() {
    let files = Files::of(&Image::of(8, &[3, 4]));
    let output = files.path("out");
    std::fs::write(&output, "precious").unwrap();
    let ran = files.export(&output, &[]);
    assert!(ran.stderr.contains("--force"), "{ran:?}");
    assert_eq!(std::fs::read(&output).unwrap(), b"precious");
    assert_eq!(files.export(&output, &["--force"]).code, Some(0));
    assert!(!files.path("out.partial").exists() && !files.path("out.partial.state").exists());

    // By whatever name the COW device is called.
    let link = files.path("link");
    std::os::unix::fs::symlink(&files.cow, &link).unwrap();
    for origin in [&files.cow, &link] {
        let mut same = tool("merge");
        same.arg("-i").arg(&files.cow).arg("--origin").arg(origin);
        fails(&mut same, "cannot be its origin");
        let mut same = tool("export");
        same.arg("-i").arg(&files.cow).arg("--origin").arg(origin);
        fails(
            same.arg("-o").arg(files.path("new")),
            "cannot be its origin",
        );
        let mut same = tool("delta");
        fails(same.arg(&files.cow).arg(origin), "the same COW device");
    }
}

#[test]
fn stat_counts() {
    let old: Vec<u64> = (0..255).chain([1000, 2000, 3000]).collect();
    let files = Files::of(&Image::of(8, &old));
    let ran = ok(tool("stat").arg("--json").arg(&files.cow));
    let stat: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(stat["records"], 258);
    // The run goes on over the end of area 0, and the three are apart.
    assert_eq!(
        stat["run_lengths"],
        serde_json::json!([3, 0, 0, 0, 0, 0, 0, 1])
    );
    // Header and two areas.
    assert_eq!(stat["metadata"], 24);
    assert_eq!(stat["used"], (258 + 3) * 8);
    ok(tool("stat").arg(&files.cow));
    fails(tool("stat").arg("no-such-snapshot"), "no-such-snapshot");
}

// SPDX-License-Identifier: GPL-2.0-only

//! `snap_repair`: what is kept of random damage.

mod common;

use common::{ok, patch, run, tool, Image, Ran};
use proptest::prelude::*;
use std::path::Path;
use tempfile::tempdir;

/// Damage to an image.
#[derive(Clone, Debug)]
enum Damage {
    /// A record's new chunk becomes this.
    New(prop::sample::Index, u64),
    /// A record gets another's new chunk.
    SameNew(prop::sample::Index, prop::sample::Index),
    /// A record gets another's old chunk.
    SameOld(prop::sample::Index, prop::sample::Index),
    /// A bit of a record flips.
    Bit(prop::sample::Index, u32),
}

fn damage() -> impl Strategy<Value = Damage> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        (index(), prop_oneof![Just(1), 1_u64..2000, any::<u64>()])
            .prop_filter("that would end the list", |(_, new)| *new != 0)
            .prop_map(|(at, new)| Damage::New(at, new)),
        (index(), index()).prop_map(|(at, of)| Damage::SameNew(at, of)),
        (index(), index()).prop_map(|(at, of)| Damage::SameOld(at, of)),
        (index(), 0_u32..127).prop_map(|(at, bit)| Damage::Bit(at, bit)),
    ]
}

fn apply(image: &mut Image, damage: &[Damage]) {
    let count = image.records.len();
    for damage in damage {
        match damage {
            Damage::New(at, new) => image.records[at.index(count)].1 = *new,
            Damage::SameNew(at, of) => {
                image.records[at.index(count)].1 = image.records[of.index(count)].1;
            }
            Damage::SameOld(at, of) => {
                image.records[at.index(count)].0 = image.records[of.index(count)].0;
            }
            Damage::Bit(at, bit) => {
                let record = &mut image.records[at.index(count)];
                match bit {
                    0..64 => record.0 ^= 1 << bit,
                    _ => record.1 ^= 1 << (bit - 64),
                }
                if record.1 == 0 {
                    record.1 = 1;
                }
            }
        }
    }
}

fn records_in(cow: &Path) -> Vec<(u64, u64)> {
    let text = ok(tool("dump").arg("--raw").arg(cow)).stdout;
    let lines = text
        .lines()
        .skip_while(|line| *line != "exceptions")
        .skip(1);
    let numbers = lines.take_while(|line| !line.starts_with("end"));
    numbers
        .flat_map(|line| {
            let words: Vec<u64> = line.split(' ').map(|word| word.parse().unwrap()).collect();
            let length = *words.get(2).unwrap_or(&1);
            (0..length).map(move |i| (words[0] + i, words[1] + i))
        })
        .collect()
}

fn repair(cow: &Path, output: &Path, options: &[&str]) -> Ran {
    run(tool("repair")
        .args(options)
        .arg("-i")
        .arg(cow)
        .arg("-o")
        .arg(output))
}

/// The bytes of chunk `chunk` in sectors of `image`'s COW file.
fn chunk_of(path: &Path, image: &Image, chunk: u64) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap();
    let at = (chunk * image.chunk_bytes()) as usize;
    bytes[at..at + image.chunk_bytes() as usize].to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn what_is_kept_loads_and_what_is_untouched_is_kept(
        records in 1_u64..200,
        shift in 0_u32..4,
        damage in prop::collection::vec(damage(), 0..8)
    ) {
        let dir = tempdir().unwrap();
        let sound = Image::of(1 << shift, &(0..records).map(|i| i * 37 % 1009).collect::<Vec<_>>());
        let mut image = sound.clone();
        apply(&mut image, &damage);
        let cow = image.write_cow(&dir.path().join("cow"));
        let before = std::fs::read(&cow).unwrap();
        let output = dir.path().join("out");
        let size = format!("--origin-size={}", 1009 << shift);
        let ran = repair(&cow, &output, &[&size]);
        prop_assert_eq!(ran.code, Some(0), "{:?}", ran);
        prop_assert!(before == std::fs::read(&cow).unwrap());

        let check = ok(tool("check").arg(&size).arg(&output));
        prop_assert_eq!(check.stderr, "");
        let kept = records_in(&output);
        let dropped = ran.stdout.lines().count();
        prop_assert_eq!(kept.len() + dropped, image.records.len(), "{:?}", ran);
        // A record that shares nothing with a damaged one is kept.
        for (number, record) in sound.records.iter().enumerate() {
            let alone = image.records.iter().enumerate().all(|(other, (old, new))| {
                other == number || (*old != record.0 && *new != record.1)
            });
            if image.records[number] == *record && alone {
                prop_assert!(kept.contains(record), "{:?} is not in {:?}", record, ran);
            }
        }
        for (_, new) in kept {
            prop_assert!(chunk_of(&cow, &image, new) == chunk_of(&output, &image, new));
        }
    }
}

#[test]
fn each_reason_is_told() {
    let dir = tempdir().unwrap();
    let mut image = Image::of(8, &(10..30).collect::<Vec<_>>());
    image.records[3].1 = 1;
    image.records[5].1 = 1 << 40;
    image.records[7].1 = image.records[12].1;
    image.records[9].0 = image.records[2].0;
    image.records[15].0 = 1 << 50;
    let cow = image.write_cow(&dir.path().join("cow"));
    patch(&cow, image.place(22), &[7; 16]);
    let output = dir.path().join("out");
    let ran = repair(&cow, &output, &["--origin-size=400"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for message in [
        "dropped 13 1: area 0 record 3 (byte 4144): new chunk 1 is a metadata chunk",
        "area 0 record 5 (byte 4176): new chunk 1099511627776 lies beyond",
        "area 0 record 7 (byte 4208): new chunk 14 is used by an earlier record",
        "dropped 12 4: old chunk 12 is also that of area 0 record 9 (byte 4240), which is kept",
        "old chunk 1125899906842624 lies beyond the end of the origin",
        "area 0 record 22 (byte 4448): it stands after the end of the list",
    ] {
        assert!(
            ran.stdout.contains(message),
            "no `{message}` in {}",
            ran.stdout
        );
    }
    assert_eq!(ran.stdout.lines().count(), 6);
    assert!(ran.stderr.contains("15 records kept, 6 dropped"), "{ran:?}");
    // Again: it holds a snapshot now.
    assert!(repair(&cow, &output, &[]).stderr.contains("--force"));
    assert!(repair(&cow, &cow, &["--force"])
        .stderr
        .contains("cannot be the output"));
}

#[test]
fn a_lost_header_can_be_replaced() {
    let dir = tempdir().unwrap();
    for (chunk_sectors, descending) in [
        (1, false),
        (8, false),
        (32, false),
        (256, false),
        (1, true),
        (8, true),
        (256, true),
    ] {
        let old: Vec<u64> = (0..300).map(|i| i * 13 % 1000).collect();
        let mut image = Image::of(chunk_sectors, &old);
        if descending {
            image.records.reverse();
        }
        let cow = image.write_cow(&dir.path().join("cow"));
        let text = ok(tool("dump").arg(&cow)).stdout;
        patch(&cow, 0, &[0xff; 512]);
        let output = dir.path().join("out");
        let ran = repair(&cow, &output, &[]);
        let advice = format!("looks like chunks of {chunk_sectors} sectors");
        assert!(
            ran.code == Some(1) && ran.stderr.contains(&advice),
            "{ran:?}"
        );
        assert!(!output.exists());
        let size = format!("--chunk-size={chunk_sectors}");
        let ran = repair(&cow, &output, &[&size]);
        assert!(ran.stderr.contains("still marked invalid"), "{ran:?}");
        let ran = repair(&cow, &output, &[&size, "--trust-invalid", "--force"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert_eq!(ok(tool("dump").arg(&output)).stdout, text);
        std::fs::remove_file(output).unwrap();
    }
}

#[test]
fn trust_makes_valid() {
    let dir = tempdir().unwrap();
    let mut image = Image::of(8, &[1, 2]);
    image.valid = 0;
    let cow = image.write_cow(&dir.path().join("cow"));
    let output = dir.path().join("out");
    assert_eq!(repair(&cow, &output, &[]).code, Some(0));
    assert_eq!(run(tool("check").arg("-q").arg(&output)).code, Some(1));
    let ran = repair(&cow, &output, &["--force", "--trust-invalid"]);
    assert!(ran.stderr.contains("reads as new data"), "{ran:?}");
    ok(tool("check").arg(&output));
}

#[test]
fn past_the_end_only_when_asked() {
    let dir = tempdir().unwrap();
    let image = Image::of(1, &(0..100).collect::<Vec<_>>());
    let cow = image.write_cow(&dir.path().join("cow"));
    // A hole in area 1: records 40 to 43.
    patch(&cow, image.place(40), &[0; 64]);
    let output = dir.path().join("out");
    let ran = repair(&cow, &output, &[]);
    assert!(ran.stderr.contains("40 records kept"), "{ran:?}");
    let ran = repair(&cow, &output, &["--force", "--past-end"]);
    assert!(ran.stderr.contains("96 records kept"), "{ran:?}");
    ok(tool("check").arg(&output));
    assert_eq!(records_in(&output)[40], image.records[44]);
}

#[test]
fn a_device_cut_short_loses_what_was_there() {
    let dir = tempdir().unwrap();
    let image = Image::of(8, &(0..300).collect::<Vec<_>>());
    let cow = image.write_cow(&dir.path().join("cow"));
    let file = std::fs::File::options().write(true).open(&cow).unwrap();
    file.set_len(280 * 4096).unwrap();
    let damaged = run(tool("check").arg(&cow));
    assert_eq!(damaged.code, Some(1));
    let message = "lies beyond the end of the COW device";
    assert!(damaged.stdout.contains(message), "{damaged:?}");
    let output = dir.path().join("out");
    let ran = repair(&cow, &output, &[]);
    // Chunks 2 to 279 but for area 1.
    assert!(
        ran.stderr.contains("277 records kept, 23 dropped"),
        "{ran:?}"
    );
    ok(tool("check").arg(&output));
}

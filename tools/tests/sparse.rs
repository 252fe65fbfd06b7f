// SPDX-License-Identifier: GPL-2.0-only

//! Holes of the inputs are not read, and are zero in the output, whatever that held before.

mod common;
#[path = "common/loops.rs"]
mod loops;

use common::{ok, tool, Image};
use loops::Loop;
use proptest::prelude::*;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::tempdir;

fn export(directory: &Path, options: &[&str]) {
    let mut command = tool("export");
    command.current_dir(directory).args(["-q", "-i", "cow"]);
    ok(command.args(options));
}

/// Makes zeros into holes.
fn dig(path: &Path) {
    let dug = Command::new("fallocate").arg("-d").arg(path).status();
    assert!(dug.unwrap().success());
}

#[test]
fn a_large_origin_that_is_nearly_empty_takes_no_time() {
    let dir = tempdir().unwrap();
    let mut image = Image::of(128, &[1, 2, 3, 700_000]);
    image.origin_sectors = 64 << 21;
    image.write_cow(&dir.path().join("cow"));
    dig(&dir.path().join("cow"));
    let origin = File::create(dir.path().join("origin")).unwrap();
    origin.set_len(64 << 30).unwrap();
    for place in 0..100 {
        origin
            .write_all_at(&[7; 1 << 16], place * (600 << 20))
            .unwrap();
    }
    let start = Instant::now();
    export(dir.path(), &["--origin", "origin", "-o", "out"]);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
    let out = File::open(dir.path().join("out")).unwrap();
    let meta = out.metadata().unwrap();
    assert_eq!(meta.len(), 64 << 30);
    assert!(meta.blocks() * 512 < 16 << 20, "{} blocks", meta.blocks());
    let mut bytes = vec![0; 1 << 16];
    for place in 0..100 {
        out.read_exact_at(&mut bytes, place * (600 << 20)).unwrap();
        assert!(bytes == [7; 1 << 16], "place {place}");
    }
    out.read_exact_at(&mut bytes, 700_000 << 16).unwrap();
    // The fourth record's chunk is chunk 5, which is zero; the first's is not.
    assert!(bytes == [0; 1 << 16]);
    out.read_exact_at(&mut bytes, 1 << 16).unwrap();
    assert_eq!(bytes[0], image.cow_byte(2 * 128));
}

fn image() -> impl Strategy<Value = (Image, Vec<u64>)> {
    let old = prop::collection::btree_set(0_u64..300, 0..120);
    let holes = prop::collection::vec(0_u64..300, 0..60);
    (0_u32..6, old, holes).prop_map(|(shift, old, holes)| {
        let mut image = Image::of(1 << shift, &old.into_iter().collect::<Vec<_>>());
        let chunk = u64::from(image.chunk_sectors);
        image.origin_sectors = 300 * chunk - u64::from(chunk > 1);
        (image, holes)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn holes_are_zero((image, holes) in image()) {
        let dir = tempdir().unwrap();
        let [cow, origin] = ["cow", "origin"].map(|name| dir.path().join(name));
        image.write_cow(&cow);
        image.write_origin(&origin);
        let chunk = image.chunk_bytes();
        let mut expected = image.snapshot();
        let file = File::options().write(true).open(&origin).unwrap();
        for old in holes {
            let bytes = chunk.min(image.origin_sectors * 512 - old * chunk) as usize;
            file.write_all_at(&vec![0; bytes], old * chunk).unwrap();
            if image.records.iter().all(|(kept, _)| *kept != old) {
                let at = (old * chunk) as usize;
                expected[at..at + bytes].fill(0);
            }
        }
        dig(&cow);
        dig(&origin);
        export(dir.path(), &["--origin", "origin", "-o", "out"]);
        prop_assert!(fs::read(dir.path().join("out")).unwrap() == expected);

        let disk = dir.path().join("disk");
        fs::write(&disk, vec![0xaa; expected.len() + 4096]).unwrap();
        if let Some(device) = Loop::new(&disk, &[]) {
            let path = device.path().to_str().unwrap();
            export(dir.path(), &["--origin", "origin", "--force", "-o", path]);
            let found = fs::read(&disk).unwrap();
            prop_assert!(found[..expected.len()] == expected);
            prop_assert!(found[expected.len()..].iter().all(|byte| *byte == 0xaa));
        }
    }
}

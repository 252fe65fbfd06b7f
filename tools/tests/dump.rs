// SPDX-License-Identifier: GPL-2.0-only

//! `snap_dump` and `snap_restore`: one undoes the other.

mod common;

use common::{fails, ok, patch, run, tool, Image};
use proptest::prelude::*;
use std::path::Path;
use tempfile::tempdir;

fn dump(cow: &Path, options: &[&str]) -> String {
    ok(tool("dump").args(options).arg(cow)).stdout
}

fn restore(text: &str, dir: &Path, output: &Path, options: &[&str]) -> common::Ran {
    let input = dir.join("dump");
    std::fs::write(&input, text).unwrap();
    run(tool("restore")
        .args(options)
        .arg("-i")
        .arg(input)
        .arg("-o")
        .arg(output))
}

#[test]
fn the_documented_example() {
    let dir = tempdir().unwrap();
    let mut image = Image::of(8, &[17, 18, 19, 20]);
    image.cow_chunks = 10240;
    image.records = vec![(17, 2), (18, 4), (19, 5), (20, 6)];
    let cow = image.write_cow(&dir.path().join("cow"));
    let text =
        "snap_dump 1\nchunk_size 8\nvalid 1\ncow_size 81920\nexceptions\n17 2\n18 4 3\nend 4\n";
    assert_eq!(dump(&cow, &[]), text);
    assert_eq!(
        dump(&cow, &["-f", "json"]),
        "{\"snap_dump\":1,\"chunk_size\":8,\"valid\":true,\"cow_size\":81920,\"exceptions\":[\n\
         [17,2,1],\n[18,4,3]\n],\"records\":4}\n"
    );
    assert_eq!(
        dump(&cow, &["--format=xml"]),
        "<snapshot version=\"1\" chunk_size=\"8\" valid=\"1\" cow_size=\"81920\">\n  \
         <exception old=\"17\" new=\"2\"/>\n  \
         <run old_begin=\"18\" new_begin=\"4\" length=\"3\"/>\n</snapshot>\n"
    );
    assert_eq!(
        dump(&cow, &["--range=18..20"]),
        text.replace("17 2\n18 4 3\nend 4", "18 4 2\nend 2")
    );
    for format in ["text", "json", "xml"] {
        let header = dump(&cow, &["--header-only", "-f", format]);
        let ran = restore(&header, dir.path(), &dir.path().join("new"), &[]);
        assert!(ran.stderr.contains("header only"), "{format}: {ran:?}");
    }
}

fn image() -> impl Strategy<Value = Image> {
    let old = prop::collection::btree_set(0_u64..5000, 0..400);
    (0_u32..7, old.prop_shuffle_vec(), any::<bool>(), 0_u64..3).prop_map(
        |(shift, old, valid, room)| {
            let mut image = Image::of(1 << shift, &old);
            image.valid = valid.into();
            image.cow_chunks += room * 100;
            image
        },
    )
}

trait ShuffleVec {
    fn prop_shuffle_vec(self) -> BoxedStrategy<Vec<u64>>;
}

impl<S: Strategy<Value = std::collections::BTreeSet<u64>> + 'static> ShuffleVec for S {
    fn prop_shuffle_vec(self) -> BoxedStrategy<Vec<u64>> {
        self.prop_map(|set| set.into_iter().collect::<Vec<_>>())
            .prop_flat_map(|list| {
                let shuffled = Just(list.clone()).prop_shuffle().boxed();
                prop_oneof![Just(list), shuffled]
            })
            .boxed()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Header and areas written from a dump are those dumped, byte for byte; and a dump of them is
    /// the dump.
    #[test]
    fn restore_undoes_dump(image in image()) {
        let dir = tempdir().unwrap();
        let cow = image.write_cow(&dir.path().join("cow"));
        let metadata = |path: &Path| -> Vec<u8> {
            let bytes = std::fs::read(path).unwrap();
            assert_eq!(bytes.len() as u64, image.cow_chunks * image.chunk_bytes());
            let chunks = bytes.chunks(image.chunk_bytes() as usize).enumerate();
            chunks.filter(|(chunk, _)| image.is_metadata(*chunk as u64)).flat_map(|(_, c)| c.to_vec()).collect()
        };
        for format in ["text", "json", "xml"] {
            let text = dump(&cow, &["-f", format]);
            let new = dir.path().join(format);
            let ran = restore(&text, dir.path(), &new, &["-q"]);
            prop_assert_eq!(ran.code, Some(0), "{:?}", ran);
            prop_assert!(metadata(&cow) == metadata(&new));
            prop_assert_eq!(&dump(&new, &["-f", format]), &text);
            // Over itself: only the metadata is written.
            let before = std::fs::read(&cow).unwrap();
            let ran = restore(&text, dir.path(), &cow, &["--force"]);
            prop_assert_eq!(ran.code, Some(0), "{:?}", ran);
            prop_assert!(before == std::fs::read(&cow).unwrap());
        }
    }
}

#[test]
fn stale_records_do_not_survive() {
    let dir = tempdir().unwrap();
    // A full area, and garbage in the next one.
    let image = Image::of(1, &(0..32).collect::<Vec<_>>());
    let cow = image.write_cow(&dir.path().join("cow"));
    let text = dump(&cow, &[]);
    patch(&cow, image.place(32), &[0x55; 512]);
    let ran = restore(&text, dir.path(), &cow, &["--force"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(dump(&cow, &[]), text);
    ok(tool("check").arg(&cow));
}

#[test]
fn data_is_not_overwritten_without_force() {
    let dir = tempdir().unwrap();
    let image = Image::of(8, &[1, 2, 3]);
    let cow = image.write_cow(&dir.path().join("cow"));
    let text = dump(&cow, &[]);
    let ran = restore(&text, dir.path(), &cow, &[]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("holds a snapshot") && ran.stderr.contains("--force"),
        "{ran:?}"
    );

    let disk = dir.path().join("disk");
    std::fs::write(&disk, vec![0; 1 << 20]).unwrap();
    patch(&disk, 1080, &[0x53, 0xef]);
    let ran = restore(&text, dir.path(), &disk, &[]);
    assert!(ran.stderr.contains("holds data"), "{ran:?}");

    // An empty file will do.
    let empty = dir.path().join("empty");
    std::fs::write(&empty, []).unwrap();
    assert_eq!(restore(&text, dir.path(), &empty, &[]).code, Some(0));
    assert_eq!(dump(&empty, &[]), text);
}

#[test]
fn damage_ends_a_dump() {
    let dir = tempdir().unwrap();
    let image = Image::of(8, &[1, 2, 3]);
    let cow = image.write_cow(&dir.path().join("cow"));
    patch(&cow, image.place(2) + 8, &1_u64.to_le_bytes());
    let ran = fails(tool("dump").arg(&cow), "area 0 record 2");
    assert!(!ran.stdout.contains("end"), "{ran:?}");
    let output = dir.path().join("out");
    fails(
        tool("dump").arg(&cow).arg("-o").arg(&output),
        "area 0 record 2",
    );
    // Of a file that is not complete nothing is left.
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    assert!(dump(&cow, &["--raw"]).ends_with("3 1\nend 3\n"));
    fails(
        tool("dump")
            .arg("--raw")
            .arg(&cow)
            .args(["-o", "/dev/full"]),
        "/dev/full: cannot write",
    );
}

#[test]
fn bad_dumps_are_refused() {
    let dir = tempdir().unwrap();
    let new = dir.path().join("new");
    let text =
        "snap_dump 1\nchunk_size 8\nvalid 1\ncow_size 8192\nexceptions\n17 2\n18 4 3\nend 4\n";
    let xml = "<snapshot version=\"1\" chunk_size=\"8\" valid=\"1\" cow_size=\"8192\">\n\
               <exception old=\"17\" new=\"2\"/>\n</snapshot>\n";
    let json = "{\"snap_dump\":1,\"chunk_size\":8,\"valid\":true,\"cow_size\":8192,\
                \"exceptions\":[[17,2,1]],\"records\":1}";
    for good in [text, xml, json] {
        assert_eq!(restore(good, dir.path(), &new, &[]).code, Some(0), "{good}");
        std::fs::remove_file(&new).unwrap();
        for cut in 0..good.trim_end().len() {
            let ran = restore(&good[..cut], dir.path(), &new, &[]);
            assert_eq!(ran.code, Some(1), "{}: {ran:?}", &good[..cut]);
            if new.exists() {
                // Begun, but marked.
                assert_eq!(run(tool("check").arg("-q").arg(&new)).code, Some(1));
                std::fs::remove_file(&new).unwrap();
            }
        }
    }
    for (from, to, message) in [
        ("dump 1", "dump 2", "line 1: version 2"),
        ("size 8\n", "size 9\n", "not a power of two"),
        ("17 2", "17 1", "metadata chunk"),
        ("18 4 3", "18 4 0", "line 7: expected"),
        ("18 4 3", "18 +4 3", "line 7: expected"),
        ("18 4 3", "18 18446744073709551615 3", "line 7: expected"),
        ("18 4 3", "18 4000 3", "lies beyond the end"),
        ("18 4 3", "18 2 3", "used by an earlier record"),
        ("end 4", "end 5", "4 records came before"),
        ("end 4\n", "end 4\n1 2\n", "something follows"),
    ] {
        let ran = restore(&text.replace(from, to), dir.path(), &new, &["--force"]);
        assert_eq!(ran.code, Some(1));
        assert!(ran.stderr.contains(message), "no `{message}` in {ran:?}");
    }
}

#[test]
fn a_dump_cut_short_costs_no_snapshot() {
    let dir = tempdir().unwrap();
    let image = Image::of(8, &(0..600).map(|i| i * 7 % 601).collect::<Vec<_>>());
    let cow = image.write_cow(&dir.path().join("cow"));
    let before = std::fs::read(&cow).unwrap();
    for format in ["text", "json", "xml"] {
        let text = dump(&cow, &["-f", format]);
        for cut in [0, 10, text.len() / 2, text.len() - 3] {
            let ran = restore(&text[..cut], dir.path(), &cow, &["--force"]);
            assert_eq!(ran.code, Some(1), "{ran:?}");
            assert!(std::fs::read(&cow).unwrap() == before, "{format}, {cut}");
            // The same from a pipe, which cannot be read twice.
            let mut pipe = tool("restore");
            pipe.args(["--force", "-i", "-", "-o"]).arg(&cow);
            let input = std::fs::File::open(dir.path().join("dump")).unwrap();
            let mut cat = std::process::Command::new("cat");
            let mut cat = cat
                .stdin(input)
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let ran = run(pipe.stdin(cat.stdout.take().unwrap()));
            cat.wait().unwrap();
            assert_eq!(ran.code, Some(1), "{ran:?}");
            assert!(std::fs::read(&cow).unwrap() == before, "{format}, {cut}");
        }
        let bad = text.replacen("600", "599", 1).replace("601", "600");
        restore(&bad, dir.path(), &cow, &["--force"]);
        patch(&cow, 0, &before);
        assert_eq!(restore(&text, dir.path(), &cow, &["--force"]).code, Some(0));
        assert!(std::fs::read(&cow).unwrap() == before);
    }
    // A list that the device has no room for is none that was cut short, but costs none either.
    let full = Image::of(1, &(0..64).collect::<Vec<_>>());
    let text = dump(&full.write_cow(&dir.path().join("full")), &[]);
    let mut small = Image::of(1, &[5]);
    small.cow_chunks = 67;
    let cow = small.write_cow(&dir.path().join("small"));
    let before = std::fs::read(&cow).unwrap();
    let text = text.replace(&format!("cow_size {}", full.cow_chunks), "cow_size 67");
    let ran = restore(&text, dir.path(), &cow, &["--force"]);
    assert!(ran.stderr.contains("area 2 lies beyond"), "{ran:?}");
    assert!(std::fs::read(&cow).unwrap() == before);
}

#[test]
fn names_need_not_be_utf_8() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempdir().unwrap();
    let name = |name: &[u8]| dir.path().join(std::ffi::OsStr::from_bytes(name));
    let cow = Image::of(8, &[1]).write_cow(&name(b"c\xff"));
    for tool_name in ["check", "stat", "dump", "delta"] {
        ok(tool(tool_name).arg(&cow));
    }
    ok(tool("dump").arg(&cow).arg("-o").arg(name(b"d\xff")));
    ok(tool("restore")
        .arg("-i")
        .arg(name(b"d\xff"))
        .arg("-o")
        .arg(name(b"e\xff")));
    let export = |state: &[u8]| {
        let mut command = tool("export");
        command
            .arg("--cow-only")
            .arg("-i")
            .arg(&cow)
            .arg("-o")
            .arg(name(b"f\xff"));
        ok(command.arg("--force").arg("--state").arg(name(state)));
    };
    export(b"s\xff");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 4);
}

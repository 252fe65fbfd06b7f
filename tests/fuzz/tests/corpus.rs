// SPDX-License-Identifier: GPL-2.0-only

//! Runs the corpus, and every seed with each of its bytes changed, without the fuzzer.

use std::fs;
use std::path::Path;

fn run(target: &str, check: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    let mut seeds = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let seed = fs::read(entry.unwrap().path()).unwrap();
        check(&seed);
        for at in 0..seed.len() {
            check(&seed[..at]);
            for change in [1, 0x10, 0x80, 0xff] {
                let mut changed = seed.clone();
                changed[at] ^= change;
                check(&changed);
            }
            // What is mostly zero does not get more interesting at every byte.
            if seed.len() > 2048 && at > 1024 {
                break;
            }
        }
        seeds += 1;
    }
    assert!(seeds > 0);
}

#[test]
fn header() {
    run("header", snap_fuzz::header);
}

#[test]
fn walk() {
    run("walk", snap_fuzz::walk);
}

#[test]
fn dump_text() {
    run("dump_text", snap_fuzz::dump_text);
}

#[test]
fn dump_json() {
    run("dump_json", snap_fuzz::dump_json);
}

#[test]
fn dump_xml() {
    run("dump_xml", snap_fuzz::dump_xml);
}

#[test]
fn stream() {
    run("stream", snap_fuzz::stream);
}

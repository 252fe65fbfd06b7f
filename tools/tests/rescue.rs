// SPDX-License-Identifier: GPL-2.0-only

//! The rescue in README.md, command by command; and that the documents are made of the command
//! lines.

mod common;

use common::{ok, tool, Image};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use tempfile::tempdir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_snap_tools");

/// The blocks between ``` of `text`: what kind, and the lines.
fn blocks(text: &str) -> Vec<(&str, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(&str, String)> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(kind), None) => open = Some((kind, String::new())),
            (None, Some((_, block))) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

#[test]
fn the_readme_works() {
    let dir = tempdir().unwrap();
    for name in ["check", "dump", "restore", "repair", "export", "merge"] {
        symlink(PROGRAM, dir.path().join(format!("snap_{name}"))).unwrap();
    }
    let mut image = Image::of(8, &(100..110).collect::<Vec<_>>());
    image.write_origin(&dir.path().join("origin.img"));
    let sound = image.snapshot();
    image.write_cow(&dir.path().join("cow.img"));
    image.records[3].1 = 1;
    image.records[6].1 |= 1 << 40;
    for (record, (_, new)) in image.records.iter().enumerate() {
        let place = image.place(record as u64) + 8;
        common::patch(&dir.path().join("cow.img"), place, &new.to_le_bytes());
    }

    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"));
    let readme = readme.unwrap();
    let (_, rescue) = readme.split_once("## A rescue").unwrap();
    let blocks = blocks(rescue);
    let mut path = dir.path().as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap());
    for (at, (kind, script)) in blocks.iter().enumerate() {
        if *kind != "sh" {
            continue;
        }
        let output = Command::new("sh")
            .args(["-c", &format!("exec 2>&1; {script}")])
            .current_dir(dir.path())
            .env("PATH", &path)
            .output()
            .unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        match blocks.get(at + 1) {
            Some(("text", expected)) => assert_eq!(output, *expected, "after {script}"),
            _ => assert!(!output.contains("snap_"), "after {script}: {output}"),
        }
    }
    assert!(std::fs::read(dir.path().join("origin.img")).unwrap() == sound);
    ok(tool("check").arg(dir.path().join("repaired.img")));
}

#[test]
fn pages_and_completions_name_every_option() {
    let dir = tempdir().unwrap();
    for what in ["man", "completions"] {
        let made = Command::new(PROGRAM)
            .args(["generate", what])
            .arg(dir.path())
            .status();
        assert!(made.unwrap().success());
    }
    let links = Command::new(PROGRAM)
        .arg("install-links")
        .arg(dir.path())
        .status();
    assert!(links.unwrap().success());
    for name in [
        "check", "dump", "restore", "repair", "export", "merge", "delta", "stat", "rmap", "size",
        "top",
    ] {
        let name = format!("snap_{name}");
        let help = ok(Command::new(dir.path().join(&name)).arg("--help")).stdout;
        let page = std::fs::read_to_string(dir.path().join(format!("{name}.8"))).unwrap();
        let page = page.replace("\\-", "-");
        let options: Vec<&str> = help
            .split_whitespace()
            .map(|word| word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()))
            .filter(|word| word.starts_with("--"))
            .collect();
        assert!(options.contains(&"--quiet"), "{name}: {options:?}");
        for option in options {
            assert!(
                page.contains(option),
                "{option} is not in the page of {name}"
            );
        }
        for file in [
            format!("{name}.bash"),
            format!("_{name}"),
            format!("{name}.fish"),
        ] {
            let text = std::fs::read_to_string(dir.path().join(&file)).unwrap();
            assert!(text.contains("quiet"), "{file}");
        }
    }
    // The subcommands are the same tools.
    let cow = Image::of(8, &[1]).write_cow(&dir.path().join("cow"));
    let by_link = ok(Command::new(dir.path().join("snap_check")).arg(&cow));
    assert_eq!(by_link.stdout, ok(tool("check").arg(&cow)).stdout);
}

#[test]
fn pages_have_sections_and_name_only_pages_that_there_are() {
    let dir = tempdir().unwrap();
    let made = Command::new(PROGRAM)
        .args(["generate", "man"])
        .arg(dir.path())
        .status();
    assert!(made.unwrap().success());
    let elsewhere = ["dmsetup(8)", "lvconvert(8)", "lvcreate(8)"];
    let mut pages = 0;
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let page = std::fs::read_to_string(&path).unwrap().replace('\\', "");
        pages += 1;
        let mut sections = vec!["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS"];
        sections.extend(["EXIT STATUS", "SEE ALSO"]);
        if name != "snap_tools" {
            sections.push("EXAMPLES");
        }
        for section in sections {
            let heading = [format!(".SH {section}\n"), format!(".SH \"{section}\"\n")];
            let is_there = heading.iter().any(|heading| page.contains(heading));
            assert!(is_there, "no {section} in {name}");
        }
        assert!(!page.contains(".SH EXTRA"), "{name}");
        for word in page.split(|c: char| c.is_whitespace() || c == ',') {
            let Some(title) = word.strip_suffix("(8)") else {
                continue;
            };
            let exists = dir.path().join(format!("{title}.8")).exists();
            assert!(exists || elsewhere.contains(&word), "{word} in {name}");
        }
    }
    assert_eq!(pages, 14);
    let page = std::fs::read_to_string(dir.path().join("snap_export.8")).unwrap();
    // Options have their values.
    assert!(
        page.contains("\\-\\-input <FILE> \\-\\-output <FILE>"),
        "{page}"
    );
}

// SPDX-License-Identifier: GPL-2.0-only

//! What the tools write as JSON is what schema.json says, and schema.json says no more than that.

mod common;

use common::{ok, patch, run, tool, Image};
use jsonschema::Validator;
use serde_json::{json, Value};
use std::fs;
use std::path::PathBuf;
use tempfile::{tempdir, TempDir};

/// The schema of one definition.
fn schema(definition: &str) -> Validator {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schema.json");
    let all: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    assert!(jsonschema::meta::is_valid(&all));
    assert!(all["$defs"].get(definition).is_some(), "{definition}");
    let one = json!({
        "$schema": all["$schema"],
        "$ref": format!("#/$defs/{definition}"),
        "$defs": all["$defs"],
    });
    jsonschema::validator_for(&one).unwrap()
}

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What the tool writes, which must be as `definition` has it.
    fn json(&self, definition: &str, arguments: &[&str]) -> Value {
        let mut command = tool(arguments[0]);
        command.args(&arguments[1..]).current_dir(&self.0);
        let ran = run(&mut command);
        let value: Value = serde_json::from_str(&ran.stdout)
            .unwrap_or_else(|e| panic!("{arguments:?}: {e}: {ran:?}"));
        let schema = schema(definition);
        let errors: Vec<String> = schema
            .iter_errors(&value)
            .map(|e| format!("{}: {e}", e.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{arguments:?}: {errors:?} in {value:#}");
        // Nothing else would do.
        if let Value::Object(object) = &value {
            let refuses = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
                let mut other = object.clone();
                change(&mut other);
                !schema.is_valid(&Value::Object(other))
            };
            assert!(refuses(&|o| drop(o.insert("other".into(), 1.into()))));
            for key in object.keys() {
                assert!(refuses(&|o| drop(o.remove(key))), "without {key}");
                let wrong = json!(["no such thing"]);
                let is_refused = refuses(&|o| drop(o.insert(key.clone(), wrong.clone())));
                assert!(is_refused, "{key} of another type");
            }
        }
        value
    }
}

#[test]
fn check() {
    let files = Files::new();
    let cow = files.path("cow");
    let check =
        |options: &[&str]| files.json("check", &[&["check", "--json", "cow"], options].concat());
    let image = Image::of(8, &[10, 11, 12, 20, 21]);
    image.write_cow(&cow);
    assert_eq!(check(&[])["verdict"], "loads");
    assert_eq!(check(&["--header-only"])["verdict"], "header");

    let kind = |json: &Value| json["faults"][0]["kind"].as_str().unwrap().to_owned();
    for (offset, bytes, options, expected) in [
        (0, &[1, 2][..], &[][..], "magic"),
        (8, &[2], &[], "version"),
        (12, &[12], &[], "chunk-size"),
        (12, &[0, 0, 0x20], &[], "cow-too-small"),
        (image.place(1) + 8, &[1], &[], "new-is-metadata"),
        (image.place(1) + 8, &[0, 0, 0, 9], &[], "new-beyond-device"),
        (image.place(1) + 8, &[2], &[], "new-used-twice"),
        (image.place(1), &[10], &[], "old-used-twice"),
        (
            image.place(1),
            &[99],
            &["--origin-size=200"],
            "old-beyond-origin",
        ),
    ] {
        image.write_cow(&cow);
        patch(&cow, offset, bytes);
        let json = check(options);
        assert_eq!(
            (kind(&json).as_str(), &json["verdict"]),
            (expected, &json!("refused"))
        );
    }
    let mut endless = Image::of(1, &(0..64).collect::<Vec<_>>());
    endless.cow_chunks = 67;
    endless.write_cow(&cow);
    assert_eq!(kind(&check(&["--all"])), "area-beyond-device");

    image.write_cow(&cow);
    patch(&cow, 4, &[7]);
    patch(&cow, image.place(9), &[1]);
    assert_eq!(check(&[])["warning_count"], 2);
    patch(&cow, 0, &[0; 16]);
    assert_eq!(check(&[])["warnings"][0]["kind"], "header-lost");
    fs::write(&cow, vec![0; 65536]).unwrap();
    assert_eq!(check(&[])["verdict"], "new");
    assert_eq!(kind(&check(&["--chunk-size=9"])), "table-chunk-size");
    let mut invalid = image.clone();
    invalid.valid = 0;
    invalid.write_cow(&cow);
    assert_eq!(check(&[])["verdict"], "invalid");
}

#[test]
fn what_reads() {
    let files = Files::new();
    let image = Image::of(8, &[10, 11, 12, 20, 21]);
    image.write_cow(&files.path("cow"));
    image.write_origin(&files.path("origin"));
    assert_eq!(files.json("stat", &["stat", "--json", "cow"])["records"], 5);
    let ranges = json!([[80, 24], [160, 16]]);
    assert_eq!(files.json("delta", &["delta", "-f", "json", "cow"]), ranges);
    assert!(!schema("delta").is_valid(&json!([[1, 2, 3]])));
    let dump = files.json("dump", &["dump", "-f", "json", "cow"]);
    assert_eq!(dump["exceptions"], json!([[10, 2, 3], [20, 5, 2]]));
    files.json("dump", &["dump", "-f", "json", "--header-only", "cow"]);
    let size = ["size", "--json", "--origin-size", "1g"];
    assert_eq!(files.json("size", &size)["chunks"], 1 << 18);
    let chunks = files.json("rmap", &["rmap", "--json", "cow", "0..4", "100"]);
    assert_eq!(chunks.as_array().unwrap().len(), 5);
    assert!(!schema("rmap").is_valid(&json!([{ "new": 1, "kind": "data" }])));
    Image::of(8, &[]).write_cow(&files.path("cow"));
    let none = files.json("dump", &["dump", "-f", "json", "cow"]);
    assert_eq!(none["records"], 0);
    files.json("stat", &["stat", "--json", "cow"]);
}

#[test]
fn what_writes() {
    let files = Files::new();
    let image = Image::of(8, &(0..400).map(|i| i * 3).collect::<Vec<_>>());
    image.write_cow(&files.path("cow"));
    image.write_origin(&files.path("origin"));
    let export = [
        "export", "--json", "-i", "cow", "--origin", "origin", "-o", "image",
    ];
    let exported = files.json("export", &export);
    assert_eq!(exported["bytes"], image.origin().len());
    assert_eq!(
        (&exported["sha256"], &exported["verified"]),
        (&json!(null), &json!(false))
    );
    let asked = [&export[..], &["--force", "--sha256", "--verify"]].concat();
    let exported = files.json("export", &asked);
    assert!(exported["sha256"].is_string() && exported["verified"] == json!(true));
    let send = [
        "send", "--json", "--base", "cow", "--origin", "origin", "-o", "stream",
    ];
    let sent = files.json("send", &send);
    assert_eq!(sent["ranges"], json!(400));
    assert!(sent["sha256"].is_string());
    let trusting = [&send[..], &["--force", "--trust-base"]].concat();
    assert_eq!(files.json("send", &trusting)["sha256"], json!(null));
    files.json("send", &[&send[..], &["--force"]].concat());
    let receive = ["receive", "--json", "-i", "stream", "-o", "image"];
    let dry = files.json("receive", &[&receive[..], &["--dry-run"]].concat());
    assert_eq!(
        (&dry["dry_run"], &dry["written"]),
        (&json!(true), &json!(0))
    );
    let received = files.json("receive", &receive);
    assert_eq!(
        (&received["verified"], &received["already"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(files.json("receive", &receive)["already"], json!(true));
    let merge = [
        "merge",
        "--json",
        "-i",
        "cow",
        "--origin",
        "origin",
        "--dry-run",
    ];
    let dry = files.json("merge", &merge);
    assert_eq!(
        (&dry["dry_run"], &dry["records"]),
        (&json!(true), &json!(400))
    );
    let merged = files.json("merge", &merge[..6]);
    assert_eq!(
        (&merged["dry_run"], &merged["records"]),
        (&json!(false), &json!(400))
    );
    assert!(fs::read(files.path("origin")).unwrap() == image.snapshot());

    let mut damaged = image.clone();
    for record in 100..300 {
        damaged.records[record].1 = 1;
    }
    damaged.records[5].1 = damaged.records[9].1;
    damaged.records[20].0 = damaged.records[30].0;
    damaged.write_cow(&files.path("cow"));
    let repair = |options: &[&str]| {
        let line = [
            &["repair", "--json", "--force", "-i", "cow", "-o", "out"],
            options,
        ]
        .concat();
        let json = files.json("repair", &line);
        assert_eq!(
            (&json["kept"], &json["dropped"]),
            (&json!(198), &json!(202))
        );
        let list = json["list"].as_array().unwrap().len();
        (list, json["not_listed"]["new-is-metadata"].as_u64())
    };
    assert_eq!(repair(&["--dry-run"]), (100, Some(102)));
    assert!(!files.path("out").exists());
    assert_eq!(repair(&[]), (100, Some(102)));
    assert_eq!(repair(&["--verbose"]), (202, None));
    let dump = ok(tool("dump").arg(files.path("out"))).stdout;
    fs::write(files.path("dump"), dump).unwrap();
    let restore = ["restore", "--json", "-i", "dump", "-o", "restored"];
    assert_eq!(files.json("restore", &restore), json!({ "records": 198 }));
}

#[test]
fn the_program_brings_the_schema() {
    let dir = tempdir().unwrap();
    ok(tool("generate").arg("schema").arg(dir.path()));
    let brought = fs::read_to_string(dir.path().join("snap_tools.schema.json")).unwrap();
    let all: Value = serde_json::from_str(&brought).unwrap();
    let validator = jsonschema::validator_for(&all).unwrap();
    assert!(validator.is_valid(&json!({ "records": 1 })));
    assert!(!validator.is_valid(&json!({ "record": 1 })));
}

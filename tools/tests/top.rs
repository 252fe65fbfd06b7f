// SPDX-License-Identifier: GPL-2.0-only

//! `snap_top` where it has nothing to show; what it shows is in tests/vm/tools.

mod common;

use common::{fails, ok, run, tool};
use std::fs;
use tempfile::tempdir;

#[test]
fn refuses_what_it_cannot_do() {
    for arguments in [
        &["--interval", "0"][..],
        &["--interval", "x"],
        &["--units", "x"],
        &["a/b/c"],
    ] {
        let ran = run(tool("top").args(arguments));
        assert_eq!(ran.code, Some(2), "{arguments:?}: {ran:?}");
    }
}

#[test]
fn keeps_what_it_did_not_write() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("precious");
    fs::write(&path, "# HELP other\n").unwrap();
    fails(
        tool("top").args(["--once", "--prometheus"]).arg(&path),
        "precious: it holds something that snap_top did not write",
    );
    fails(
        tool("top").args(["--once", "--prometheus"]).arg(dir.path()),
        "it is no regular file",
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "# HELP other\n");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn says_that_it_takes_nothing_apart() {
    let help = ok(tool("top").arg("--help")).stdout;
    assert!(help.contains("LVM NAMES") && !help.contains("splitsnapshot"));
}

#[cfg(not(feature = "live"))]
#[test]
fn says_what_it_was_built_without() {
    let missing =
        "this program was built without asking device-mapper; install it with --features \
                   live";
    for arguments in [&["--once"][..], &["--once", "--json"], &[]] {
        let ran = fails(tool("top").args(arguments), missing);
        assert!(
            ran.stdout.is_empty() && ran.stderr.lines().count() == 1,
            "{ran:?}"
        );
    }
    fails(tool("stat").arg("no-such-name"), missing);
}

// SPDX-License-Identifier: GPL-2.0-only

//! There is one version.

use std::process::Command;

const VERSION: &str = include_str!("../../VERSION");

#[test]
fn tools_say_what_the_file_says() {
    let program = env!("CARGO_BIN_EXE_snap_tools");
    let output = Command::new(program).arg("--version").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, format!("snap_tools {VERSION}"));
}

#[test]
fn cargo_says_what_the_file_says() {
    assert_eq!(env!("CARGO_PKG_VERSION"), VERSION.trim_end());
}

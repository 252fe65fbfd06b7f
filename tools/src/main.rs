// SPDX-License-Identifier: GPL-2.0-only

//! All tools in one program: called by the name of a tool it is that tool, called by its own name
//! it takes the tool as its first argument.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    snap_tools::commands::main(std::env::args_os().collect())
}

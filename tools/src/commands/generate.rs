// SPDX-License-Identifier: GPL-2.0-only

//! Manual pages, completions and links, all made from the command lines themselves; and the schema
//! of what `--json` prints.

use super::{manual, multi_call, TOOLS};
use crate::error::{Error, Result};
use clap::{Arg, ArgMatches, Command};
use clap_complete::Shell;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The schema of every JSON text that a tool writes.
pub const SCHEMA: &str = include_str!("../../schema.json");

/// The subcommands of `snap_tools` that are no tool.
pub fn commands() -> [Command; 2] {
    let directory = Arg::new("directory")
        .value_name("DIR")
        .required(true)
        .value_parser(clap::value_parser!(PathBuf));
    let generate = Command::new("generate")
        .about(
            "Write the manual pages, the shell completions or the JSON schema of what --json \
             prints to a directory",
        )
        .arg(
            Arg::new("what")
                .value_name("WHAT")
                .required(true)
                .value_parser(["man", "completions", "schema"]),
        )
        .arg(
            directory
                .clone()
                .help("Where to write them; made if needed"),
        );
    let links = Command::new("install-links")
        .about("Make the links by which the tools are called, beside this program or in DIR")
        .arg(
            directory
                .help("The directory for the links; that of this program by default")
                .required(false),
        );
    [generate, links]
}

/// Runs one of [`commands`].
pub fn run(name: &str, matches: &ArgMatches) -> Result<()> {
    let directory = matches.get_one::<PathBuf>("directory");
    match (name, directory) {
        ("install-links", directory) => links(directory.map(PathBuf::as_path)),
        (_, Some(directory)) => {
            fs::create_dir_all(directory).map_err(|e| Error::file(directory, "create", e))?;
            match matches.get_one::<String>("what").map(String::as_str) {
                Some("man") => man(directory),
                Some("schema") => {
                    let path = directory.join("snap_tools.schema.json");
                    fs::write(&path, SCHEMA).map_err(|e| Error::file(&path, "write", e))
                }
                _ => completions(directory),
            }
        }
        _ => Ok(()),
    }
}

fn man(directory: &Path) -> Result<()> {
    for tool in TOOLS {
        let path = directory.join(format!("{}.8", tool.name));
        write_man((tool.command)(), &path)?;
    }
    write_man(multi_call(), &directory.join("snap_tools.8"))
}

fn write_man(command: Command, path: &Path) -> Result<()> {
    let mut page = Vec::new();
    manual::write(command, &mut page)
        .and_then(|()| fs::write(path, &page))
        .map_err(|e| Error::file(path, "write", e))
}

fn completions(directory: &Path) -> Result<()> {
    let commands = TOOLS.iter().map(|tool| (tool.command)());
    for mut command in commands.chain([multi_call()]) {
        let name = command.get_name().to_owned();
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            clap_complete::generate_to(shell, &mut command, &name, directory)
                .map_err(|e| Error::file(directory, "write completions to", e))?;
        }
    }
    Ok(())
}

/// Makes a link for each tool; in the program's own directory a relative one.
fn links(directory: Option<&Path>) -> Result<()> {
    let program = std::env::current_exe()
        .map_err(|e| Error::file(Path::new("snap_tools"), "find the program", e))?;
    let (directory, program) = match (directory, program.parent(), program.file_name()) {
        (Some(directory), ..) => (directory, program.as_path()),
        (None, Some(parent), Some(name)) => (parent, Path::new(name)),
        _ => return Ok(()),
    };
    for tool in TOOLS {
        let link = directory.join(tool.name);
        match fs::remove_file(&link) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(Error::file(&link, "replace", e));
            }
            _ => {}
        }
        symlink(program, &link).map_err(|e| Error::file(&link, "create", e))?;
    }
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0-only

//! A manual page, made from a command line.

use super::TOOLS;
use clap::Command;
use clap_mangen::roff::{bold, roman, Roff};
use clap_mangen::Man;
use std::io::{self, Write};

/// The section of the manual that the tools are in.
const SECTION: &str = "8";

/// Writes the page of `command`: what clap knows, then the sections of its `after_long_help`, each
/// of which begins with a line in capitals, then what else there is to read.
pub fn write(mut command: Command, page: &mut Vec<u8>) -> io::Result<()> {
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").to_owned();
    let name = command.get_name().to_owned();
    let sections = command.get_after_long_help().map(ToString::to_string);
    let man = Man::new(command.clone().override_usage(usage))
        .section(SECTION)
        .manual("System Administration");
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    let mut rest = Roff::new();
    if command.has_subcommands() {
        subcommands(&command, &mut rest);
    }
    for block in sections.iter().flat_map(|sections| sections.split("\n\n")) {
        put_block(block, &mut rest);
    }
    see_also(&name, &mut rest);
    rest.to_writer(page)?;
    page.flush()
}

/// The subcommands: the tools by their pages, the others in full.
fn subcommands(command: &Command, to: &mut Roff) {
    to.control("SH", ["SUBCOMMANDS"]);
    for subcommand in command.get_subcommands() {
        let name = subcommand.get_name();
        let tool = TOOLS.iter().find(|tool| tool.short_name() == name);
        let about = subcommand.get_about().map(ToString::to_string);
        let about = about.unwrap_or_default();
        let (heading, about) = match tool {
            Some(tool) => (
                vec![bold(name)],
                format!("{about}: {}({SECTION})", tool.name),
            ),
            None => {
                let usage = subcommand.clone().render_usage().to_string();
                (vec![bold(usage.trim_start_matches("Usage: "))], about)
            }
        };
        to.control("TP", []);
        to.text(heading);
        to.text([roman(about)]);
    }
}

/// Lines between empty ones: a heading, if the first is in capitals; a long line is a paragraph to
/// be filled, others are shown as they stand.
fn put_block(block: &str, to: &mut Roff) {
    const PARAGRAPH: usize = 79;
    let mut lines: Vec<&str> = block.lines().collect();
    let is_heading = |line: &&str| {
        let capital = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || " -".contains(c);
        line.starts_with(|c: char| c.is_ascii_uppercase()) && line.chars().all(capital)
    };
    match lines.first().filter(|line| is_heading(line)) {
        Some(heading) => {
            to.control("SH", [*heading]);
            lines.remove(0);
        }
        None => {
            to.control("PP", []);
        }
    }
    let filled = lines.iter().any(|line| line.len() > PARAGRAPH);
    if !filled {
        to.control("nf", []);
    }
    for line in lines {
        to.text([roman(if filled { line.trim() } else { line })]);
    }
    if !filled {
        to.control("fi", []);
    }
}

fn see_also(name: &str, to: &mut Roff) {
    let tools = TOOLS.iter().map(|tool| tool.name).chain(["snap_tools"]);
    let pages = tools
        .filter(|tool| *tool != name)
        .chain(["dmsetup", "lvconvert", "lvcreate"]);
    let pages: Vec<String> = pages.map(|page| format!("{page}({SECTION})")).collect();
    to.control("SH", ["SEE ALSO"]);
    to.text([roman(pages.join(", "))]);
}

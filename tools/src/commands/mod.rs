// SPDX-License-Identifier: GPL-2.0-only

//! The command lines: each file here parses options, calls the library and reports.

mod check;
mod delta;
mod dump;
mod export;
mod figures;
mod generate;
mod manual;
mod merge;
mod receive;
mod repair;
mod restore;
mod rmap;
mod send;
mod siblings;
mod size;
mod stat;
mod top;

use crate::cow::Origin;
use crate::device::{Access, Device};
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::lvm::{Named, Volumes};
use crate::output::Output;
use crate::report::{say, Report};
use crate::units::sectors;
use clap::{ArgMatches, Args, Command};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The version of the module, the tools and the packages, without the line's end.
const VERSION: &str = include_str!("../../../VERSION").trim_ascii();

/// What the manual pages of tools that read COW devices say of LVM.
const LVM: &str = "\
LVM NAMES
  A COW device may be given as VG/LV, the name of a snapshot. It is then taken out of the \
snapshot (lvconvert --splitsnapshot), it and its origin are activated, and afterwards it is put \
back, even if the tool fails or is interrupted. A snapshot that is active, or whose origin is, is \
refused; so is one that is being merged, a thin one, and a snapshot as an output. Should the tool \
be killed, the commands that put it back are those that it said before; nobody may write to the \
origin until then. Other devices may be given as VG/LV, too, and must be active.";

/// What the manual pages of tools say of JSON.
const JSON: &str = "\
JSON
  The fields of what is written as JSON are in the schema that snap_tools generate schema \
writes. Sectors have 512 bytes.";

/// And of sizes.
const SIZES: &str = "\
SIZES
  A size without a unit is in sectors of 512 bytes. With a unit it is as LVM takes it: b for bytes, \
s for sectors, k, m, g, t, p, e for KiB, MiB, GiB and so on, also written 4KiB. Where --units says \
in which unit sizes are told, a capital letter stands for powers of 1000, and h for the unit that \
fits.";

/// What ends every manual page.
const EXIT_STATUS: &str = "\
EXIT STATUS
  0  success
  1  failure; a line on standard error says why
  2  the command line makes no sense";

/// One tool: its command line and what it does.
trait Tool: Args {
    /// The name, `snap_…`.
    const NAME: &'static str;
    /// One line for the list of tools.
    const ABOUT: &'static str;
    /// What it does, for `--help` and the manual page.
    const LONG_ABOUT: &'static str;
    /// Examples and what else the manual page says at its end.
    const EXTRA: &'static str;
    /// What the manual page says of LVM's names.
    const NAMES: &'static str = LVM;

    /// Whether messages are suppressed.
    fn quiet(&self) -> bool;

    /// Does it; `false` stands for a clear negative answer that was reported already. `volumes`
    /// knows LVM's names, and puts back what it took for them when all devices are closed again.
    fn run(self, report: &Report, volumes: &Volumes) -> Result<bool>;
}

/// A tool, whatever its options.
struct Entry {
    name: &'static str,
    command: fn() -> Command,
    run: fn(&ArgMatches) -> ExitCode,
}

impl Entry {
    /// The name as a subcommand of `snap_tools`.
    fn short_name(&self) -> &'static str {
        self.name.strip_prefix("snap_").unwrap_or(self.name)
    }
}

const TOOLS: &[Entry] = &[
    entry::<check::Check>(),
    entry::<dump::Dump>(),
    entry::<restore::Restore>(),
    entry::<repair::Repair>(),
    entry::<export::Export>(),
    entry::<merge::Merge>(),
    entry::<delta::Delta>(),
    entry::<send::Send>(),
    entry::<receive::Receive>(),
    entry::<stat::Stat>(),
    entry::<rmap::Rmap>(),
    entry::<size::Size>(),
    entry::<top::Top>(),
];

const fn entry<T: Tool>() -> Entry {
    Entry {
        name: T::NAME,
        command: command::<T>,
        run: run::<T>,
    }
}

fn command<T: Tool>() -> Command {
    let command = Command::new(T::NAME)
        .version(VERSION)
        .after_long_help(format!(
            "{}\n\n{}\n\n{SIZES}\n\n{JSON}\n\n{EXIT_STATUS}",
            T::EXTRA,
            T::NAMES
        ));
    // The description comes last: it would else be that of the options.
    T::augment_args(command).about(T::ABOUT).long_about(format!(
        "{}\n\n{}",
        T::ABOUT,
        T::LONG_ABOUT
    ))
}

fn run<T: Tool>(matches: &ArgMatches) -> ExitCode {
    let tool = T::from_arg_matches(matches).unwrap_or_else(|e| e.exit());
    let report = Report::new(tool.quiet());
    let volumes = Volumes::new(&report);
    let done = tool.run(&report, &volumes);
    let put_back = volumes.finish();
    // Why a tool failed matters more than what followed from that.
    let done = done.and_then(|done| put_back.and(Ok(done)));
    match report.finish().and(done) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            if !error.is_broken_pipe() {
                // Even a quiet tool says why it failed.
                say(format_args!("{}: {error}", T::NAME));
            }
            ExitCode::FAILURE
        }
    }
}

/// The whole program's command line.
fn multi_call() -> Command {
    let tools = TOOLS.iter().map(|tool| {
        (tool.command)()
            .name(tool.short_name())
            .display_name(tool.name)
    });
    Command::new("snap_tools")
        .version(VERSION)
        .about(
            "Check, dump, restore, repair, export, merge and send the COW devices of dm-snapshot",
        )
        .long_about(
            "All tools in one program. Called by the name of a tool (snap_check, snap_dump, …), \
             through a link, it is that tool.",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(tools)
        .subcommands(generate::commands())
        .after_long_help(EXIT_STATUS)
}

/// Runs the tool that `args` ask for.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let name = args.first().map(Path::new).and_then(Path::file_name);
    let name = name.and_then(|name| name.to_str()).unwrap_or_default();
    if let Some(tool) = TOOLS.iter().find(|tool| tool.name == name) {
        return (tool.run)(&(tool.command)().get_matches_from(args));
    }
    let matches = multi_call().get_matches_from(args);
    let Some((name, matches)) = matches.subcommand() else {
        return ExitCode::FAILURE;
    };
    match TOOLS.iter().find(|tool| tool.short_name() == name) {
        Some(tool) => (tool.run)(matches),
        None => match generate::run(name, matches) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                say(format_args!("snap_tools: {error}"));
                ExitCode::FAILURE
            }
        },
    }
}

/// What a tool is told of the origin, where it does not need its data.
#[derive(Args, Clone, Debug)]
struct OriginArgs {
    /// The origin; checks that every old chunk lies on it. Where the COW device is given by LVM's
    /// name its origin is known
    #[arg(long, value_name = "DEV", conflicts_with = "origin_size")]
    origin: Option<PathBuf>,

    /// The origin's size, where the device is not at hand: sectors of 512 bytes, or with a unit as in
    /// 10g or 10GiB
    #[arg(long, value_name = "SIZE", value_parser = sectors)]
    origin_size: Option<u64>,
}

impl OriginArgs {
    /// The same, with the origin of a COW device that LVM knows, or that which LVM knows by this
    /// name.
    fn known(self, named: &Named, volumes: &Volumes) -> Result<Self> {
        if named.origin.is_some() && self.origin_size.is_some() {
            return Err(Error::Refused(
                "LVM knows the snapshot's origin; leave out --origin-size".into(),
            ));
        }
        Ok(Self {
            origin: volumes.origin(named, self.origin.as_deref())?,
            ..self
        })
    }

    fn origin(&self) -> Result<Origin> {
        match &self.origin {
            Some(path) => Origin::of(&Device::open(path, Access::Read)?),
            None => Origin::of_size(self.origin_size),
        }
    }

    /// `output`, which must not be the origin.
    fn keep_from(&self, output: Output) -> Output {
        match &self.origin {
            Some(path) => output.apart_from_path(path),
            None => output,
        }
    }
}

/// Refuses an origin that is the COW device itself, by whatever name, before either is opened: the
/// second opening would only find it in use.
fn refuse_own_cow(origin: &Path, cow: &Path) -> Result<()> {
    if !Identity::of_path(origin).overlaps(&Identity::of_path(cow)) {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "{}: it is (or holds, or is a part of) the COW device {} and cannot be its origin",
        origin.display(),
        cow.display()
    )))
}

/// Parses a range of chunks: `FIRST..END`, `FIRST..` or `..END`.
fn chunk_range(text: &str) -> std::result::Result<std::ops::Range<u64>, String> {
    let (first, end) = text.split_once("..").ok_or("expected FIRST..END")?;
    let number = |text: &str, default| match text {
        "" => Ok(default),
        _ => text.parse().map_err(|_| format!("`{text}` is no number")),
    };
    let range = number(first, 0)?..number(end, u64::MAX)?;
    if range.is_empty() {
        return Err("it is empty; END is not included".into());
    }
    Ok(range)
}

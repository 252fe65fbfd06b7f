// SPDX-License-Identifier: GPL-2.0-only

//! A dump as lines of text.

use super::{Bounded, Head, Visitor, VERSION};
use crate::error::{Error, Result};
use crate::run::Run;
use crate::stream::Stream;
use std::io::{BufRead, Read};

/// Writes a dump as text.
pub struct Writer {
    output: Stream,
    has_list: bool,
}

impl Writer {
    /// Writes to `output`.
    pub fn new(output: Stream) -> Self {
        Self {
            output,
            has_list: false,
        }
    }

    fn line(&mut self, word: &str, number: u64) -> Result<()> {
        self.output.put(word.as_bytes())?;
        self.output.put(b" ")?;
        self.output.put_number(number)?;
        self.output.put(b"\n")
    }
}

impl Visitor for Writer {
    fn head(&mut self, head: &Head) -> Result<()> {
        self.line("snap_dump", VERSION.into())?;
        self.line("chunk_size", head.chunk_sectors.into())?;
        self.line("valid", head.valid.into())?;
        self.line("cow_size", head.cow_sectors)?;
        self.has_list = head.has_list;
        self.output.put(if head.has_list {
            b"exceptions\n"
        } else {
            b"header_only\n"
        })
    }

    fn run(&mut self, run: Run) -> Result<()> {
        self.output.put_number(run.old)?;
        self.output.put(b" ")?;
        self.output.put_number(run.new)?;
        if run.length != 1 {
            self.output.put(b" ")?;
            self.output.put_number(run.length)?;
        }
        self.output.put(b"\n")
    }

    fn end(&mut self, records: u64) -> Result<()> {
        if self.has_list {
            self.line("end", records)?;
        }
        self.output.finish()
    }
}

/// Reads a dump in text.
pub fn read<R: BufRead>(input: Bounded<R>, visitor: &mut dyn Visitor) -> Result<()> {
    let mut lines = Lines {
        input,
        line: Vec::new(),
        number: 0,
    };
    let version = lines.field("snap_dump")?;
    if version != u64::from(VERSION) {
        return Err(lines.error(format!("version {version} is unknown")));
    }
    let chunk_size = lines.field("chunk_size")?;
    let head = Head {
        chunk_sectors: u32::try_from(chunk_size).map_err(|_| lines.error("too large"))?,
        valid: match lines.field("valid")? {
            0 => false,
            1 => true,
            _ => return Err(lines.error("valid must be 0 or 1")),
        },
        cow_sectors: lines.field("cow_size")?,
        has_list: match lines.need()? {
            "exceptions" => true,
            "header_only" => false,
            _ => return Err(lines.error("expected `exceptions`")),
        },
    };
    visitor.head(&head)?;
    let records = if head.has_list {
        read_list(&mut lines, visitor)?
    } else {
        0
    };
    if lines.next()?.is_some() {
        return Err(lines.error("something follows the end"));
    }
    visitor.end(records)
}

/// Reads the list with its end; returns the number of records.
fn read_list<R: BufRead>(lines: &mut Lines<R>, visitor: &mut dyn Visitor) -> Result<u64> {
    let mut records = 0_u64;
    loop {
        let line = lines.need()?;
        if let Some(count) = line.strip_prefix("end ") {
            if parse_number(count) != Some(records) {
                return Err(lines.error(format_args!("{records} records came before")));
            }
            return Ok(records);
        }
        let Some(run) = parse_run(line) else {
            return Err(lines.error("expected `OLD NEW`, `OLD NEW LENGTH` or `end RECORDS`"));
        };
        records = records
            .checked_add(run.length)
            .ok_or_else(|| lines.error("too many records"))?;
        visitor.run(run)?;
    }
}

fn parse_number(text: &str) -> Option<u64> {
    // `parse` alone would take a sign.
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

fn parse_run(line: &str) -> Option<Run> {
    let mut words = line.split_ascii_whitespace();
    let old = parse_number(words.next()?)?;
    let new = parse_number(words.next()?)?;
    let length = match words.next() {
        Some(word) => parse_number(word)?,
        None => 1,
    };
    if words.next().is_some() {
        return None;
    }
    Run::checked(old, new, length)
}

struct Lines<R> {
    input: Bounded<R>,
    line: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    fn error(&self, what: impl ToString) -> Error {
        Error::parse(format_args!("line {}", self.number), what)
    }

    /// The next line that says something.
    fn next(&mut self) -> Result<Option<&str>> {
        loop {
            self.line.clear();
            self.number += 1;
            self.input.renew();
            let read = self.input.by_ref().read_until(b'\n', &mut self.line);
            if read.map_err(|e| self.error(e))? == 0 {
                return Ok(None);
            }
            let line = self.line.trim_ascii();
            if !line.is_empty() && !line.starts_with(b"#") {
                break;
            }
        }
        match std::str::from_utf8(self.line.trim_ascii()) {
            Ok(line) => Ok(Some(line)),
            Err(e) => Err(Error::parse(format_args!("line {}", self.number), e)),
        }
    }

    fn need(&mut self) -> Result<&str> {
        let number = self.number + 1;
        self.next()?
            .ok_or_else(|| Error::parse(format_args!("line {number}"), "the dump was cut short"))
    }

    fn field(&mut self, word: &str) -> Result<u64> {
        let line = self.need()?;
        let number = line
            .strip_prefix(word)
            .and_then(|rest| rest.strip_prefix(' '))
            .and_then(parse_number);
        number.ok_or_else(|| self.error(format_args!("expected `{word} NUMBER`")))
    }
}

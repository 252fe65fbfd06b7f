// SPDX-License-Identifier: GPL-2.0-only

//! A dump as XML.

use super::{Bounded, Head, Visitor, VERSION};
use crate::error::{Error, Result};
use crate::run::Run;
use crate::stream::Stream;
use quick_xml::events::{BytesStart, Event};
use quick_xml::Reader;
use std::io::BufRead;

/// Writes a dump as XML.
pub struct Writer {
    output: Stream,
}

impl Writer {
    /// Writes to `output`.
    pub fn new(output: Stream) -> Self {
        Self { output }
    }

    fn attribute(&mut self, before: &[u8], number: u64) -> Result<()> {
        self.output.put(before)?;
        self.output.put_number(number)
    }
}

impl Visitor for Writer {
    fn head(&mut self, head: &Head) -> Result<()> {
        self.attribute(b"<snapshot version=\"", VERSION.into())?;
        self.attribute(b"\" chunk_size=\"", head.chunk_sectors.into())?;
        self.attribute(b"\" valid=\"", head.valid.into())?;
        self.attribute(b"\" cow_size=\"", head.cow_sectors)?;
        self.output.put(if head.has_list {
            b"\">\n"
        } else {
            b"\" header_only=\"1\">\n"
        })
    }

    fn run(&mut self, run: Run) -> Result<()> {
        if run.length == 1 {
            self.attribute(b"  <exception old=\"", run.old)?;
            self.attribute(b"\" new=\"", run.new)?;
        } else {
            self.attribute(b"  <run old_begin=\"", run.old)?;
            self.attribute(b"\" new_begin=\"", run.new)?;
            self.attribute(b"\" length=\"", run.length)?;
        }
        self.output.put(b"\"/>\n")
    }

    fn end(&mut self, _records: u64) -> Result<()> {
        self.output.put(b"</snapshot>\n")?;
        self.output.finish()
    }
}

/// Reads a dump in XML.
pub fn read<R: BufRead>(input: Bounded<R>, visitor: &mut dyn Visitor) -> Result<()> {
    let mut parser = Parser {
        visitor,
        has_list: None,
        records: 0,
    };
    let mut xml = Reader::from_reader(input);
    let mut event = Vec::new();
    let mut depth = 0_u32;
    loop {
        event.clear();
        xml.get_mut().renew();
        let read = xml.read_event_into(&mut event);
        let place = format!("byte {}", xml.buffer_position());
        let failed = |what: &dyn ToString| Error::parse(&place, what.to_string());
        match read.map_err(|e| failed(&e))? {
            Event::Start(element) => {
                depth += 1;
                parser.element(&element, depth).map_err(|e| e.at(&place))?;
            }
            Event::Empty(element) => {
                parser
                    .element(&element, depth + 1)
                    .map_err(|e| e.at(&place))?;
                if depth == 0 {
                    break;
                }
            }
            Event::End(_) => {
                depth -= 1;
                if depth == 0 {
                    break;
                }
            }
            Event::Text(text) if text.trim_ascii().is_empty() => {}
            Event::Decl(_) | Event::Comment(_) => {}
            Event::Eof => return Err(failed(&"the dump was cut short")),
            _ => return Err(failed(&"expected an element")),
        }
    }
    parser.visitor.end(parser.records)
}

/// Why an element was not taken.
enum Refusal {
    /// It is wrong.
    Parse(String),
    /// The visitor refused it.
    Visitor(Error),
}

impl Refusal {
    fn at(self, place: &str) -> Error {
        match self {
            Self::Parse(what) => Error::parse(place, what),
            Self::Visitor(error) => error,
        }
    }
}

impl From<String> for Refusal {
    fn from(what: String) -> Self {
        Self::Parse(what)
    }
}

struct Parser<'a> {
    visitor: &'a mut dyn Visitor,
    /// Whether records may follow; `None` before the element `snapshot`.
    has_list: Option<bool>,
    records: u64,
}

impl Parser<'_> {
    fn element(
        &mut self,
        element: &BytesStart<'_>,
        depth: u32,
    ) -> std::result::Result<(), Refusal> {
        match (element.name().as_ref(), depth, self.has_list) {
            (b"snapshot", 1, None) => {
                let [version, chunk_size, valid, cow_size, header_only] = numbers(
                    element,
                    ["version", "chunk_size", "valid", "cow_size", "header_only"],
                )?;
                if version != Some(VERSION.into()) {
                    return Err(Refusal::Parse("the dump's version is unknown".into()));
                }
                let chunk_size = u32::try_from(need(chunk_size, "chunk_size")?);
                let head = Head {
                    chunk_sectors: chunk_size
                        .map_err(|_| Refusal::Parse("chunk_size is too large".into()))?,
                    valid: flag(need(valid, "valid")?, "valid")?,
                    cow_sectors: need(cow_size, "cow_size")?,
                    has_list: !flag(header_only.unwrap_or(0), "header_only")?,
                };
                self.has_list = Some(head.has_list);
                self.visitor.head(&head).map_err(Refusal::Visitor)
            }
            (b"exception", 2, Some(true)) => {
                let [old, new] = numbers(element, ["old", "new"])?;
                self.run(need(old, "old")?, need(new, "new")?, 1)
            }
            (b"run", 2, Some(true)) => {
                let [old, new, length] = numbers(element, ["old_begin", "new_begin", "length"])?;
                self.run(
                    need(old, "old_begin")?,
                    need(new, "new_begin")?,
                    need(length, "length")?,
                )
            }
            (name, ..) => Err(Refusal::Parse(format!(
                "element <{}> does not belong here",
                String::from_utf8_lossy(name)
            ))),
        }
    }

    fn run(&mut self, old: u64, new: u64, length: u64) -> std::result::Result<(), Refusal> {
        let records = self.records.checked_add(length);
        let (Some(run), Some(records)) = (Run::checked(old, new, length), records) else {
            return Err(Refusal::Parse("the run's length is impossible".into()));
        };
        self.records = records;
        self.visitor.run(run).map_err(Refusal::Visitor)
    }
}

/// The attributes `names` of `element`, each a number; others are refused.
fn numbers<const N: usize>(
    element: &BytesStart<'_>,
    names: [&str; N],
) -> std::result::Result<[Option<u64>; N], Refusal> {
    let mut values = [None; N];
    for attribute in element.attributes() {
        let attribute = attribute.map_err(|e| e.to_string())?;
        let key = attribute.key.as_ref();
        let Some(at) = names.iter().position(|name| name.as_bytes() == key) else {
            let key = String::from_utf8_lossy(key);
            return Err(Refusal::Parse(format!("attribute {key} is unknown")));
        };
        let value = std::str::from_utf8(&attribute.value).unwrap_or_default();
        let number = value
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| value.parse().ok())
            .flatten();
        values[at] = Some(number.ok_or_else(|| format!("attribute {}: no number", names[at]))?);
    }
    Ok(values)
}

fn need(value: Option<u64>, name: &str) -> std::result::Result<u64, Refusal> {
    value.ok_or_else(|| Refusal::Parse(format!("attribute {name} is missing")))
}

fn flag(value: u64, name: &str) -> std::result::Result<bool, Refusal> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Refusal::Parse(format!("{name} must be 0 or 1"))),
    }
}

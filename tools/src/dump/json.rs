// SPDX-License-Identifier: GPL-2.0-only

//! A dump as JSON.

use super::{Bounded, Head, Visitor, VERSION};
use crate::error::{Error, Result};
use crate::run::Run;
use crate::stream::Stream;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess};
use std::fmt;
use std::io::BufRead;

/// Writes a dump as JSON.
pub struct Writer {
    output: Stream,
    has_list: bool,
    /// What stands before the next run.
    separator: &'static [u8],
}

impl Writer {
    /// Writes to `output`.
    pub fn new(output: Stream) -> Self {
        Self {
            output,
            has_list: false,
            separator: b"\n[",
        }
    }
}

impl Visitor for Writer {
    fn head(&mut self, head: &Head) -> Result<()> {
        let (chunk_size, valid, cow_size) = (head.chunk_sectors, head.valid, head.cow_sectors);
        let list = if head.has_list {
            r#""exceptions":["#
        } else {
            r#""header_only":true"#
        };
        self.has_list = head.has_list;
        self.output.put(
            format!(
                r#"{{"snap_dump":{VERSION},"chunk_size":{chunk_size},"valid":{valid},"cow_size":{cow_size},{list}"#
            )
            .as_bytes(),
        )
    }

    fn run(&mut self, run: Run) -> Result<()> {
        self.output.put(self.separator)?;
        self.output.put_number(run.old)?;
        self.output.put(b",")?;
        self.output.put_number(run.new)?;
        self.output.put(b",")?;
        self.output.put_number(run.length)?;
        self.output.put(b"]")?;
        self.separator = b",\n[";
        Ok(())
    }

    fn end(&mut self, records: u64) -> Result<()> {
        if self.has_list {
            self.output.put(b"\n],\"records\":")?;
            self.output.put_number(records)?;
        }
        self.output.put(b"}\n")?;
        self.output.finish()
    }
}

/// Reads a dump in JSON.
pub fn read<R: BufRead>(input: Bounded<R>, visitor: &mut dyn Visitor) -> Result<()> {
    let budget = input.budget();
    let mut json = serde_json::Deserializer::from_reader(input);
    let mut failed = None;
    let dump = Dump {
        visitor,
        failed: &mut failed,
        renew: &|| budget.renew(),
    };
    let read = dump.deserialize(&mut json).and_then(|()| json.end());
    match (failed, read) {
        (Some(error), _) => Err(error),
        (None, Ok(())) => Ok(()),
        (None, Err(e)) => Err(Error::parse(
            format_args!("line {} column {}", e.line(), e.column()),
            e,
        )),
    }
}

/// The whole object.
struct Dump<'a> {
    visitor: &'a mut dyn Visitor,
    /// What the visitor said, which serde has no room for.
    failed: &'a mut Option<Error>,
    /// Allows the input to go on.
    renew: &'a dyn Fn(),
}

impl<'de> DeserializeSeed<'de> for Dump<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

/// Takes the key `name` and its value from `map`.
fn field<'de, T: de::Deserialize<'de>, A: MapAccess<'de>>(
    map: &mut A,
    name: &'static str,
) -> std::result::Result<T, A::Error> {
    match map.next_key::<String>()? {
        Some(key) if key == name => map.next_value(),
        _ => Err(de::Error::missing_field(name)),
    }
}

impl<'de> de::Visitor<'de> for Dump<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a dump made by snap_dump")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        if field::<u32, _>(&mut map, "snap_dump")? != VERSION {
            return Err(de::Error::custom("the dump's version is unknown"));
        }
        let chunk_sectors = field(&mut map, "chunk_size")?;
        let valid = field(&mut map, "valid")?;
        let cow_sectors = field(&mut map, "cow_size")?;
        let has_list = match map.next_key::<String>()?.as_deref() {
            Some("exceptions") => true,
            Some("header_only") => false,
            _ => return Err(de::Error::missing_field("exceptions")),
        };
        let Self {
            visitor,
            failed,
            renew,
        } = self;
        let head = Head {
            chunk_sectors,
            valid,
            cow_sectors,
            has_list,
        };
        keep(failed, visitor.head(&head))?;
        let mut records = 0;
        if has_list {
            records = map.next_value_seed(List {
                visitor: &mut *visitor,
                failed: &mut *failed,
                renew,
            })?;
            if field::<u64, _>(&mut map, "records")? != records {
                return Err(de::Error::custom("the number of records is another"));
            }
        } else if !map.next_value::<bool>()? {
            return Err(de::Error::custom("header_only must be true"));
        }
        if map.next_key::<String>()?.is_some() {
            return Err(de::Error::custom("something follows the end"));
        }
        keep(failed, visitor.end(records))
    }
}

/// Keeps what the visitor said in `failed`; for serde only the message remains.
fn keep<E: de::Error>(
    failed: &mut Option<Error>,
    result: Result<()>,
) -> std::result::Result<(), E> {
    result.map_err(|error| {
        let message = de::Error::custom(&error);
        *failed = Some(error);
        message
    })
}

/// The list of runs; its value is the number of records.
struct List<'a> {
    visitor: &'a mut dyn Visitor,
    failed: &'a mut Option<Error>,
    renew: &'a dyn Fn(),
}

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<u64, D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> de::Visitor<'de> for List<'_> {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of [OLD, NEW, LENGTH]")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<u64, A::Error> {
        let mut records = 0_u64;
        while let Some([old, new, length]) = seq.next_element::<[u64; 3]>()? {
            (self.renew)();
            let run = Run::checked(old, new, length);
            let run = run.ok_or_else(|| de::Error::custom("the run's length is impossible"))?;
            records = records
                .checked_add(length)
                .ok_or_else(|| de::Error::custom("too many records"))?;
            keep(self.failed, self.visitor.run(run))?;
        }
        Ok(records)
    }
}

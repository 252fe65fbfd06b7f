// SPDX-License-Identifier: GPL-2.0-only

//! What the fuzz targets do with their input; each panics if something is wrong.

mod store;

use snap_tools::cow::{byte_range, layout, Origin, Userspace};
use snap_tools::digest::Digest;
use snap_tools::dump::{read, Format, Head, Visitor};
use snap_tools::format::{Exception, Header, Walk};
use snap_tools::run::Run;
use snap_tools::stream::Stream;
use snap_tools::transfer::{self, Before, Content, Reader, Writer};
use snap_tools::Result;
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Reads the first bytes as a header, on devices of several sizes.
pub fn header(data: &[u8]) {
    let Some(bytes) = data.first_chunk::<{ Header::BYTES }>() else {
        return;
    };
    for cow_sectors in [0, 1, 2, 16, 1 << 30, u64::MAX] {
        match layout(bytes, cow_sectors, 512, Origin::UNKNOWN) {
            Ok(None) => assert_eq!(bytes[..4], [0; 4]),
            Ok(Some(layout)) => {
                let chunks = u128::from(layout.geometry.cow_chunks());
                let sectors = u128::from(layout.header.chunk_sectors);
                assert!(chunks >= 2 && chunks * sectors <= u128::from(cow_sectors));
            }
            Err(fault) => assert!(!fault.to_string().is_empty()),
        }
    }
}

/// Sectors of the origin.
const ORIGIN_SECTORS: u64 = 1 << 20;

/// Loads the bytes as the content of a COW device. The tools and the module agree.
pub fn walk(data: &[u8]) {
    if let Some(header) = data.first_chunk().filter(|_| data.len() >= 512) {
        assert_eq!(records(data, header), store::live(data, ORIGIN_SECTORS));
    }
}

/// How many records the tools find; `None` if the device is refused, new or invalid.
fn records(data: &[u8], header: &[u8; Header::BYTES]) -> Option<u64> {
    let origin = Origin {
        sectors: ORIGIN_SECTORS,
        ..Origin::UNKNOWN
    };
    let layout = layout(header, data.len() as u64 / 512, 512, origin).ok()??;
    if !layout.header.valid {
        return None;
    }
    let geometry = layout.geometry;
    let mut walk = Walk::<Userspace>::new(geometry);
    let mut seen: Vec<Exception> = Vec::new();
    while let Some(extent) = walk
        .next_window()
        .and_then(|window| geometry.window(window))
    {
        let (at, length) = byte_range(extent);
        let window = &data[at as usize..at as usize + length];
        let fed = walk.feed(window, |e| {
            seen.push(e);
            Ok::<_, ()>(())
        });
        fed.ok()?;
    }
    let walked = walk.finish().ok()?;
    assert_eq!(walked.records, seen.len() as u64);
    let mut new: Vec<u64> = seen.iter().map(|e| e.new).collect();
    assert!(new
        .iter()
        .all(|new| *new < walked.next_new && !geometry.is_metadata(*new)));
    assert!(seen.iter().all(|e| e.old < geometry.origin_chunks()));
    new.sort_unstable();
    new.dedup();
    assert_eq!(new.len(), seen.len());
    let mut old: Vec<u64> = seen.iter().map(|e| e.old).collect();
    old.sort_unstable();
    old.dedup();
    (old.len() == seen.len()).then_some(walked.records)
}

/// Reads the bytes as a dump, which is in text if it is neither of the others.
pub fn dump_text(data: &[u8]) {
    dump(data, Format::Text);
}

/// Reads the bytes as a dump in JSON.
pub fn dump_json(data: &[u8]) {
    if data.first() == Some(&b'{') {
        dump(data, Format::Json);
    }
}

/// Reads the bytes as a dump in XML.
pub fn dump_xml(data: &[u8]) {
    if data.first() == Some(&b'<') {
        dump(data, Format::Xml);
    }
}

/// What is read, written and read once more is the same.
fn dump(data: &[u8], format: Format) {
    let mut first = Record::default();
    if read(data, &mut first).is_err() {
        return;
    }
    let written = Shared::default();
    let mut writer = format.writer(Stream::writer(written.clone(), Path::new("memory")));
    first.replay(writer.as_mut()).unwrap();
    let mut second = Record::default();
    read(&written.0.lock().unwrap()[..], &mut second).unwrap();
    assert_eq!(first, second);
}

/// Reads the bytes as a stream of snap_send, with the seals that they need, since no fuzzer finds
/// a SHA-256, and as they are. What is read, written and read once more is the same.
pub fn stream(data: &[u8]) {
    for sealed in [seal(data), data.to_vec()] {
        let Ok(first) = frames(&sealed) else {
            continue;
        };
        let written = Shared::default();
        let stream = Stream::writer(written.clone(), Path::new("memory"));
        let mut writer = Writer::new(stream, first.head).unwrap();
        first
            .before
            .iter()
            .for_each(|before| writer.before(before).unwrap());
        for (range, bytes) in &first.content {
            let content = match bytes {
                Some(bytes) => Content::Data {
                    offset: range.start,
                    bytes,
                },
                None => Content::Zero(range.clone()),
            };
            writer.content(&content).unwrap();
        }
        let snapshot = first.snapshot;
        writer.content(&Content::End { snapshot }).unwrap();
        writer.finish().unwrap();
        assert!(written.0.lock().unwrap()[..] == sealed);
    }
}

/// What a stream says.
struct Frames {
    head: transfer::Head,
    before: Vec<Before>,
    content: Vec<(Range<u64>, Option<Vec<u8>>)>,
    snapshot: Option<Digest>,
}

fn frames(mut data: &[u8]) -> Result<Frames> {
    let mut reader = Reader::new(&mut data)?;
    let head = reader.head();
    assert!(head.bytes > 0 && head.bytes % 512 == 0);
    let mut before = Vec::new();
    let mut told = 0;
    let mut end = 0;
    let total = loop {
        let next = reader.before()?;
        before.push(next.clone());
        match next {
            Before::Check(check) => {
                assert!(head.has_base && check.range.start >= end && !check.range.is_empty());
                end = check.range.end;
                told += end - check.range.start;
            }
            Before::Begin { bytes, .. } => break bytes,
        }
    };
    assert!(end <= head.bytes);
    assert_eq!(total, if head.has_base { told } else { head.bytes });
    let mut content = Vec::new();
    let (mut end, mut replaced) = (0, 0);
    loop {
        let (range, bytes) = match reader.content()? {
            Content::Data { offset, bytes } => {
                (offset..offset + bytes.len() as u64, Some(bytes.to_vec()))
            }
            Content::Zero(range) => (range, None),
            Content::End { snapshot } => {
                assert_eq!(replaced, total);
                return Ok(Frames {
                    head,
                    before,
                    content,
                    snapshot,
                });
            }
        };
        assert!(range.start >= end && range.end > range.start && range.end <= head.bytes);
        assert!(head.has_base || range.start == end);
        end = range.end;
        replaced += range.end - range.start;
        content.push((range, bytes));
    }
}

/// The bytes with the seals that they need.
fn seal(data: &[u8]) -> Vec<u8> {
    const SEAL: usize = 32;
    let mut sealed = Vec::new();
    let mut put = |part: &[u8]| {
        sealed.extend_from_slice(part);
        let digest = Digest::of(&sealed);
        sealed.extend_from_slice(&digest.0);
    };
    let mut rest = data;
    let mut part = 24;
    loop {
        let Some((sealed_part, after)) = rest.split_at_checked(part + SEAL) else {
            sealed.extend_from_slice(rest);
            return sealed;
        };
        put(&sealed_part[..part]);
        rest = after;
        let payload = rest.get(4..8).and_then(|bytes| bytes.try_into().ok());
        part = 24 + payload.map_or(0, |bytes| u32::from_le_bytes(bytes) as usize);
    }
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Remembers a dump.
#[derive(Debug, Default, PartialEq, Eq)]
struct Record {
    head: Option<Head>,
    runs: Vec<Run>,
    records: Option<u64>,
}

impl Record {
    fn replay(&self, visitor: &mut dyn Visitor) -> Result<()> {
        visitor.head(&self.head.unwrap())?;
        self.runs.iter().try_for_each(|run| visitor.run(*run))?;
        visitor.end(self.records.unwrap())
    }
}

impl Visitor for Record {
    fn head(&mut self, head: &Head) -> Result<()> {
        assert_eq!(self.head.replace(*head), None);
        Ok(())
    }

    fn run(&mut self, run: Run) -> Result<()> {
        assert!(run.length > 0 && self.head.is_some());
        self.runs.push(run);
        Ok(())
    }

    fn end(&mut self, records: u64) -> Result<()> {
        assert_eq!(self.runs.iter().map(|run| run.length).sum::<u64>(), records);
        assert_eq!(self.records.replace(records), None);
        Ok(())
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! What the fuzz targets do with their input; each panics if something is wrong.

mod store;

use snap_tools::cow::{byte_range, layout, Origin, Userspace};
use snap_tools::dump::{read, Format, Head, Visitor};
use snap_tools::format::{Exception, Header, Walk};
use snap_tools::run::Run;
use snap_tools::stream::Stream;
use snap_tools::Result;
use std::io::{self, Write};
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

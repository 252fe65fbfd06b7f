// SPDX-License-Identifier: GPL-2.0-only

//! Writes the seeds of the corpus: `seeds DIRECTORY`.

use snap_tools::digest::Digest;
use snap_tools::dump::{self, Format};
use snap_tools::output::Output;
use snap_tools::run::Run;
use snap_tools::stream::Stream;
use snap_tools::transfer::{Before, Check, Content, Head, Writer};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A COW device with chunks of a sector.
fn image(records: &[(u64, u64)], chunks: usize) -> Vec<u8> {
    let mut bytes = vec![0; chunks * 512];
    for (at, field) in [0x7041_6e53_u32, 1, 1, 1].into_iter().enumerate() {
        bytes[at * 4..][..4].copy_from_slice(&field.to_le_bytes());
    }
    for (at, (old, new)) in records.iter().enumerate() {
        let at = (1 + at / 32 * 33) * 512 + at % 32 * 16;
        bytes[at..at + 8].copy_from_slice(&old.to_le_bytes());
        bytes[at + 8..at + 16].copy_from_slice(&new.to_le_bytes());
    }
    bytes
}

fn seed(directory: &Path, target: &str, name: &str, bytes: &[u8]) -> Result<()> {
    let directory = directory.join(target);
    fs::create_dir_all(&directory)?;
    Ok(fs::write(directory.join(name), bytes)?)
}

fn main() -> Result<()> {
    let directory: PathBuf = std::env::args_os()
        .nth(1)
        .ok_or("usage: seeds DIRECTORY")?
        .into();

    let header = |fields: [u32; 4]| fields.map(u32::to_le_bytes).concat();
    let magic = 0x7041_6e53;
    for (name, fields) in [
        ("valid", [magic, 1, 1, 8]),
        ("invalid", [magic, 0, 1, 32]),
        ("largest", [magic, 1, 1, 1 << 21]),
        ("too-large", [magic, 1, 1, 1 << 22]),
        ("odd-size", [magic, 1, 1, 12]),
        ("version", [magic, 1, 2, 8]),
        ("magic", [1, 1, 1, 8]),
        ("new", [0, 7, 7, 7]),
    ] {
        seed(&directory, "header", name, &header(fields))?;
    }

    let list = |count: u64| -> Vec<(u64, u64)> {
        let data = (2..).filter(|new| (new - 1) % 33 != 0);
        (0..count).map(|i| i * 7 % 101).zip(data).collect()
    };
    let with = |count, at: usize, record: (u64, u64)| {
        let mut list = list(count);
        list[at] = record;
        list
    };
    for (name, records, chunks) in [
        ("empty", list(0), 3),
        ("few", list(5), 10),
        ("area-full", list(32), 36),
        ("two-areas", list(50), 60),
        ("no-end", list(32), 34),
        ("beyond-device", with(5, 2, (1, 500)), 10),
        ("beyond-origin", with(5, 2, (1 << 40, 4)), 10),
        ("metadata", with(5, 2, (1, 1)), 10),
        ("twice", with(5, 4, (1, 2)), 10),
        ("late", with(5, 0, (1, 9)), 10),
    ] {
        seed(&directory, "walk", name, &image(&records, chunks))?;
    }

    for (target, format) in [
        ("dump_text", Format::Text),
        ("dump_json", Format::Json),
        ("dump_xml", Format::Xml),
    ] {
        fs::create_dir_all(directory.join(target))?;
        for (name, has_list, runs) in [
            ("header-only", false, &[][..]),
            ("empty", true, &[][..]),
            (
                "runs",
                true,
                &[(17, 2, 1), (18, 4, 3), (u64::MAX, 9, 1)][..],
            ),
        ] {
            let file = Output::new(&directory.join(target).join(name), true);
            let mut writer = format.writer(Stream::file(&file)?);
            writer.head(&dump::Head {
                chunk_sectors: 8,
                valid: true,
                cow_sectors: 8192,
                has_list,
            })?;
            let mut records = 0;
            for &(old, new, length) in runs {
                writer.run(Run { old, new, length })?;
                records += length;
            }
            writer.end(records)?;
        }
    }

    for (name, has_base) in [("whole", false), ("change", true)] {
        let directory = directory.join("stream");
        fs::create_dir_all(&directory)?;
        let file = Output::new(&directory.join(name), true);
        let head = Head {
            bytes: 2048,
            has_base,
        };
        let mut writer = Writer::new(Stream::file(&file)?, head)?;
        let (base, snapshot) = (Digest::of(b"base"), Digest::of(b"snapshot"));
        if has_base {
            for range in [0..512, 1024..2048] {
                writer.before(&Before::Check(Check {
                    range,
                    base,
                    snapshot,
                }))?;
            }
        }
        let base = has_base.then_some(base);
        let bytes = if has_base { 1536 } else { 2048 };
        writer.before(&Before::Begin { bytes, base })?;
        writer.content(&Content::Data {
            offset: 0,
            bytes: &[7; 512],
        })?;
        if !has_base {
            writer.content(&Content::Zero(512..1024))?;
        }
        writer.content(&Content::Zero(1024..2048))?;
        let snapshot = Some(snapshot);
        writer.content(&Content::End { snapshot })?;
        writer.finish()?;
    }
    Ok(())
}

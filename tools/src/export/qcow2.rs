// SPDX-License-Identifier: GPL-2.0-only

//! A qcow2 image, written and read from its first byte to its last.
//!
//! The format is QEMU's (docs/interop/qcow2.rst in its source), of which this is version 3 with
//! nothing optional. All numbers are big-endian. The content is in clusters, which are found by
//! tables of two levels: an entry of the first is where a table of the second lies, an entry of
//! that where a cluster does; 0 is a cluster of zeros, or a table of such. Each cluster of the
//! file, whatever it holds, has a count of the references to it, which is 1 here:
//!
//! ```text
//! header, first table, clusters of content with the second tables among them,
//! blocks of counts, table of these
//! ```

use super::image::{forget, HOLE_BYTES};
use super::sink::zeros;
use crate::buffer::{is_zero, AlignedBuf};
use crate::error::{Error, Result};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What the file is made of; QEMU's default.
const CLUSTER_BITS: u32 = HOLE_BYTES.trailing_zeros();
const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// Bytes of an entry of a table.
const ENTRY: u64 = 8;
/// Entries of a table of the second level, which is one cluster.
const ENTRIES: u64 = CLUSTER / ENTRY;
/// Bytes of content that a table of the second level is for.
const TABLE: u64 = ENTRIES * CLUSTER;
/// Set in an entry whose cluster has one reference.
const COPIED: u64 = 1 << 63;
/// The bits of an entry that are an offset.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Counts in a block of them, of 16 bits each.
const COUNT_ORDER: u32 = 4;
const COUNTS: u64 = CLUSTER / 2;
/// What the header begins with: the magic number and the version.
const START: [u8; 8] = *b"QFI\xfb\0\0\0\x03";
const HEADER_BYTES: u32 = 104;
/// QEMU's own bound of the first table.
const MAX_FIRST_BYTES: u64 = 32 << 20;

/// An image that is written. Clusters that are zero are left out.
pub struct Writer {
    file: Place,
    bytes: u64,
    /// The byte of the content that comes next.
    at: u64,
    /// What of the cluster that holds it came before it, and zeros.
    cluster: AlignedBuf,
    /// Whether anything but zeros may be in it.
    is_filled: bool,
    /// The first table.
    first: Vec<u64>,
    /// The table of the second level that `at` is in, if it has a cluster.
    second: Option<Box<[u64]>>,
    /// Clusters of the file.
    clusters: u64,
    /// Bytes of the content that were written.
    written: u64,
}

impl Writer {
    /// Makes `file`, which is empty, an image for `bytes` of content; messages call it `name`.
    pub fn new(file: &File, name: &Path, bytes: u64) -> Result<Self> {
        let file = Place::new(file, name)?;
        let entries = bytes.div_ceil(TABLE).max(1);
        if entries * ENTRY > MAX_FIRST_BYTES {
            return Err(file.refused("the snapshot is too large for a qcow2 image"));
        }
        Ok(Self {
            file,
            bytes,
            at: 0,
            cluster: AlignedBuf::new(CLUSTER as usize),
            is_filled: false,
            first: vec![0; entries as usize],
            second: None,
            clusters: 1 + (entries * ENTRY).div_ceil(CLUSTER),
            written: 0,
        })
    }

    /// Writes what comes next.
    pub fn put(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let from = (self.at % CLUSTER) as usize;
            let (part, rest) = bytes.split_at(bytes.len().min(CLUSTER as usize - from));
            self.cluster[from..from + part.len()].copy_from_slice(part);
            self.is_filled = true;
            self.advance(part.len() as u64)?;
            bytes = rest;
        }
        Ok(())
    }

    /// What comes next are `bytes` zeros.
    pub fn put_zeros(&mut self, bytes: u64) -> Result<()> {
        let end = self.at + bytes;
        while self.at < end {
            // Where no cluster is begun, all of a table at once.
            let unit = match self.at % CLUSTER {
                0 => TABLE,
                _ => CLUSTER,
            };
            self.advance((unit - self.at % unit).min(end - self.at))?;
        }
        Ok(())
    }

    /// `bytes` have come: of a cluster that is begun, or zeros of a table, at most the rest of it.
    fn advance(&mut self, bytes: u64) -> Result<()> {
        let cluster = self.at / CLUSTER;
        self.at += bytes;
        if self.at % CLUSTER == 0 || self.at == self.bytes {
            self.end_cluster(cluster)?;
        }
        if self.at % TABLE == 0 || self.at == self.bytes {
            self.end_table(cluster / ENTRIES)?;
        }
        Ok(())
    }

    /// The content's cluster of that number is whole.
    fn end_cluster(&mut self, number: u64) -> Result<()> {
        if !std::mem::take(&mut self.is_filled) || is_zero(&self.cluster) {
            return Ok(());
        }
        let offset = self.allocate();
        self.file.write(&self.cluster, offset)?;
        self.written += CLUSTER.min(self.bytes - number * CLUSTER);
        let second = self
            .second
            .get_or_insert_with(|| vec![0; ENTRIES as usize].into());
        second[(number % ENTRIES) as usize] = offset | COPIED;
        self.cluster.fill(0);
        Ok(())
    }

    /// The table of the second level of that number is whole.
    fn end_table(&mut self, number: u64) -> Result<()> {
        let Some(second) = self.second.take() else {
            return Ok(());
        };
        let offset = self.allocate();
        self.file.write(&big_endian(&second), offset)?;
        self.first[number as usize] = offset | COPIED;
        Ok(())
    }

    /// A new cluster of the file: where it begins.
    fn allocate(&mut self) -> u64 {
        self.clusters += 1;
        (self.clusters - 1) * CLUSTER
    }

    /// Makes the image complete and durable; returns how many bytes of the content were written.
    pub fn finish(mut self) -> Result<u64> {
        let content = self.clusters;
        // The counts count themselves.
        let (mut blocks, mut table) = (0, 0);
        while blocks * COUNTS < content + blocks + table || table * ENTRIES < blocks {
            blocks = (content + blocks + table).div_ceil(COUNTS);
            table = blocks.div_ceil(ENTRIES);
        }
        let all = content + blocks + table;
        let mut entries = Vec::new();
        for block in 0..blocks {
            let offset = self.allocate();
            let counted = (all - block * COUNTS).min(COUNTS) as usize;
            let mut counts = vec![0; CLUSTER as usize];
            counts[..counted * 2]
                .chunks_exact_mut(2)
                .for_each(|count| count.copy_from_slice(&1_u16.to_be_bytes()));
            self.file.write(&counts, offset)?;
            entries.push(offset);
        }
        let table_offset = self.clusters * CLUSTER;
        // The file ends with a whole cluster.
        entries.resize((table * ENTRIES) as usize, 0);
        self.file.write(&big_endian(&entries), table_offset)?;
        self.file.write(&big_endian(&self.first), CLUSTER)?;
        self.file.write(&self.header(table_offset, table), 0)?;
        self.file.flush_and_forget()?;
        Ok(self.written)
    }

    fn header(&self, table_offset: u64, table: u64) -> Vec<u8> {
        let mut header = START.to_vec();
        let long = |header: &mut Vec<u8>, number: u64| header.extend(number.to_be_bytes());
        let word = |header: &mut Vec<u8>, number: u32| header.extend(number.to_be_bytes());
        long(&mut header, 0); // where the name of another image is that this one is based on
        word(&mut header, 0); // and how long it is
        word(&mut header, CLUSTER_BITS);
        long(&mut header, self.bytes);
        word(&mut header, 0); // encryption
        word(&mut header, self.first.len() as u32);
        long(&mut header, CLUSTER); // where the first table is
        long(&mut header, table_offset);
        word(&mut header, table as u32);
        word(&mut header, 0); // snapshots
        long(&mut header, 0); // and where they are
        long(&mut header, 0); // features: those that a reader must know
        long(&mut header, 0); // that it need not know
        long(&mut header, 0); // that a writer that does not know them clears
        word(&mut header, COUNT_ORDER);
        word(&mut header, HEADER_BYTES);
        long(&mut header, 0); // no extensions
        header
    }
}

/// An image that is compared.
pub struct Reader {
    file: Place,
    bytes: u64,
    at: u64,
    first: Vec<u64>,
    /// The table of the second level that was looked into last, by its number; `None` where all of
    /// its content is zero.
    second: (u64, Option<Vec<u64>>),
    cluster: AlignedBuf,
}

impl Reader {
    /// Opens the image in `file`, one of [`Writer`]'s; messages call it `name`.
    pub fn new(file: &File, name: &Path) -> Result<Self> {
        let file = Place::new(file, name)?;
        let mut header = [0; HEADER_BYTES as usize];
        file.read(&mut header, 0)?;
        let word = |at: usize| header[at..at + 4].try_into().map_or(0, u32::from_be_bytes);
        let long = |at: usize| header[at..at + 8].try_into().map_or(0, u64::from_be_bytes);
        if header[..START.len()] != START || word(20) != CLUSTER_BITS {
            return Err(file.refused("it is not the image that was written"));
        }
        let entries = u64::from(word(36)).min(MAX_FIRST_BYTES / ENTRY);
        Ok(Self {
            bytes: long(24),
            at: 0,
            first: file.table(long(40), entries)?,
            second: (u64::MAX, None),
            cluster: AlignedBuf::new(CLUSTER as usize),
            file,
        })
    }

    /// The size of its content in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Refuses an image that does not hold `bytes` next.
    pub fn compare(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let from = (self.at % CLUSTER) as usize;
            let (part, rest) = bytes.split_at(bytes.len().min(CLUSTER as usize - from));
            let is_same = match self.find()? {
                None => is_zero(part),
                Some(offset) => {
                    let found = &mut self.cluster[..part.len()];
                    self.file.read(found, offset + from as u64)?;
                    found == part
                }
            };
            self.advance(part.len() as u64, is_same)?;
            bytes = rest;
        }
        Ok(())
    }

    /// Refuses an image that does not hold `bytes` zeros next.
    pub fn compare_zeros(&mut self, bytes: u64) -> Result<()> {
        let end = self.at + bytes;
        while self.at < end {
            let found = self.find()?;
            let unit = match self.second.1 {
                None => TABLE,
                Some(_) => CLUSTER,
            };
            let part = (unit - self.at % unit).min(end - self.at);
            match found {
                None => self.advance(part, true)?,
                Some(_) => zeros(part).try_for_each(|zeros| self.compare(zeros))?,
            }
        }
        Ok(())
    }

    /// Where the cluster is that holds the next byte; `None` where it is zero.
    fn find(&mut self) -> Result<Option<u64>> {
        let number = self.at / TABLE;
        if self.second.0 != number {
            let entry = self.first.get(number as usize).copied().unwrap_or(0);
            let table = match entry & OFFSET {
                0 => None,
                offset => Some(self.file.table(offset, ENTRIES)?),
            };
            self.second = (number, table);
        }
        let Some(table) = &self.second.1 else {
            return Ok(None);
        };
        let entry = table[(self.at / CLUSTER % ENTRIES) as usize];
        Ok(Some(entry & OFFSET).filter(|offset| *offset != 0))
    }

    fn advance(&mut self, bytes: u64, is_same: bool) -> Result<()> {
        if !is_same {
            let what = format!(
                "it does not hold what was written to it, at byte {} or after",
                self.at
            );
            return Err(self.file.refused(&what));
        }
        self.at += bytes;
        Ok(())
    }
}

fn big_endian(table: &[u64]) -> Vec<u8> {
    table.iter().flat_map(|entry| entry.to_be_bytes()).collect()
}

/// A file that is written here and there.
struct Place {
    file: File,
    /// What to call it in messages.
    name: PathBuf,
}

impl Place {
    fn new(file: &File, name: &Path) -> Result<Self> {
        let file = file
            .try_clone()
            .map_err(|source| Error::file(name, "open", source))?;
        Ok(Self {
            file,
            name: name.into(),
        })
    }

    fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let written = self.file.write_all_at(bytes, offset);
        written.map_err(|source| Error::io(&self.name, "write", offset, source))
    }

    fn read(&self, bytes: &mut [u8], offset: u64) -> Result<()> {
        let read = self.file.read_exact_at(bytes, offset);
        read.map_err(|source| Error::io(&self.name, "read", offset, source))
    }

    fn table(&self, offset: u64, entries: u64) -> Result<Vec<u64>> {
        let mut bytes = vec![0; (entries * ENTRY) as usize];
        self.read(&mut bytes, offset)?;
        let entries = bytes.chunks_exact(ENTRY as usize);
        Ok(entries
            .map(|entry| entry.try_into().map_or(0, u64::from_be_bytes))
            .collect())
    }

    /// Makes it durable, and has what is read next come from where it is stored.
    fn flush_and_forget(&self) -> Result<()> {
        let flushed = self.file.sync_all();
        flushed.map_err(|source| Error::file(&self.name, "flush", source))?;
        forget(&self.file);
        Ok(())
    }

    fn refused(&self, what: &str) -> Error {
        Error::Refused(format!("{}: {what}", self.name.display()))
    }
}

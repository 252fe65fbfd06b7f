// SPDX-License-Identifier: GPL-2.0-only

//! Makes COW images, sound and damaged, and runs the tools on them.
//!
//! The arithmetic is written out here once more, in the plainest way, so that the tests do not ask
//! the code under test what is right.

#![allow(dead_code)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A snapshot to make an image of.
#[derive(Clone, Debug)]
pub struct Image {
    /// Sectors in a chunk.
    pub chunk_sectors: u32,
    pub valid: u32,
    /// Chunks of the COW device.
    pub cow_chunks: u64,
    /// Sectors of the origin.
    pub origin_sectors: u64,
    /// (old chunk, new chunk).
    pub records: Vec<(u64, u64)>,
}

impl Image {
    pub fn chunk_bytes(&self) -> u64 {
        u64::from(self.chunk_sectors) * 512
    }

    pub fn epa(&self) -> u64 {
        self.chunk_bytes() / 16
    }

    /// The byte at which record number `record` stands.
    pub fn place(&self, record: u64) -> u64 {
        let area = 1 + record / self.epa() * (self.epa() + 1);
        area * self.chunk_bytes() + record % self.epa() * 16
    }

    pub fn is_metadata(&self, chunk: u64) -> bool {
        chunk == 0 || (chunk - 1) % (self.epa() + 1) == 0
    }

    /// The chunks that may hold data, in the order in which the kernel hands them out.
    pub fn data_chunks(&self) -> impl Iterator<Item = u64> + '_ {
        (2..).filter(|chunk| !self.is_metadata(*chunk))
    }

    /// A snapshot whose `old` chunks were copied in this order.
    pub fn of(chunk_sectors: u32, old: &[u64]) -> Self {
        let mut image = Self {
            chunk_sectors,
            valid: 1,
            cow_chunks: 0,
            origin_sectors: (old.iter().max().unwrap_or(&0) + 1) * u64::from(chunk_sectors),
            records: Vec::new(),
        };
        image.records = old.iter().copied().zip(image.data_chunks()).collect();
        let areas = old.len() as u64 / image.epa() + 1;
        image.cow_chunks = areas * (image.epa() + 1) + 1;
        image
    }

    pub fn header(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        for (at, value) in [0x7041_6e53, self.valid, 1, self.chunk_sectors]
            .into_iter()
            .enumerate()
        {
            bytes[at * 4..][..4].copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    /// What the origin holds in sector `sector`: never zero.
    pub fn origin_byte(sector: u64) -> u8 {
        (sector % 251) as u8 + 1
    }

    /// What the COW device holds in sector `sector` of a data chunk: every fifth chunk is zero.
    pub fn cow_byte(&self, sector: u64) -> u8 {
        if sector / u64::from(self.chunk_sectors) % 5 == 0 {
            0
        } else {
            (sector % 241) as u8 + 7
        }
    }

    /// Writes header, areas and data to a new file.
    pub fn write_cow(&self, path: &Path) -> PathBuf {
        let file = File::create(path).unwrap();
        file.set_len(self.cow_chunks * self.chunk_bytes()).unwrap();
        file.write_all_at(&self.header(), 0).unwrap();
        for (number, (old, new)) in self.records.iter().enumerate() {
            let mut record = [0; 16];
            record[..8].copy_from_slice(&old.to_le_bytes());
            record[8..].copy_from_slice(&new.to_le_bytes());
            file.write_all_at(&record, self.place(number as u64))
                .unwrap();
            if *new >= self.cow_chunks || self.is_metadata(*new) {
                continue;
            }
            for sector in 0..u64::from(self.chunk_sectors) {
                let sector = new * u64::from(self.chunk_sectors) + sector;
                let bytes = [self.cow_byte(sector); 512];
                file.write_all_at(&bytes, sector * 512).unwrap();
            }
        }
        path.into()
    }

    pub fn write_origin(&self, path: &Path) -> PathBuf {
        std::fs::write(path, self.origin()).unwrap();
        path.into()
    }

    pub fn origin(&self) -> Vec<u8> {
        (0..self.origin_sectors)
            .flat_map(|sector| [Self::origin_byte(sector); 512])
            .collect()
    }

    /// What the snapshot reads as.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut bytes = self.origin();
        // The last record that names a chunk is the one that counts.
        for (old, new) in &self.records {
            let chunk = u64::from(self.chunk_sectors);
            for sector in 0..chunk.min(self.origin_sectors - old * chunk) {
                let at = (old * chunk + sector) as usize * 512;
                bytes[at..at + 512].fill(self.cow_byte(new * chunk + sector));
            }
        }
        bytes
    }
}

/// Writes `bytes` over those at `offset` of the file `path`.
pub fn patch(path: &Path, offset: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

/// The command line of `snap_NAME`.
pub fn tool(name: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_snap_tools"));
    command.arg(name).stdin(Stdio::null());
    command
}

/// What a tool did.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Runs `command` to its end.
pub fn run(command: &mut Command) -> Ran {
    command.output().unwrap().into()
}

/// Runs `command`, which must succeed.
pub fn ok(command: &mut Command) -> Ran {
    let ran = run(command);
    assert_eq!(ran.code, Some(0), "{command:?}: {ran:?}");
    ran
}

/// Runs `command`, which must fail with a message that contains `message`.
pub fn fails(command: &mut Command, message: &str) -> Ran {
    let ran = run(command);
    assert_eq!(ran.code, Some(1), "{command:?}: {ran:?}");
    assert!(ran.stderr.contains(message), "no `{message}` in {ran:?}");
    ran
}

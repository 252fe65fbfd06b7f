// SPDX-License-Identifier: GPL-2.0-only

//! Disks with a volatile cache.

use crate::rng::Rng;

/// What is in a sector: which write put it there, and for which sector it was meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// The write; 0 is what was there at first.
    pub tag: u32,
    /// The index of the origin's sector.
    pub at: u32,
}

impl Content {
    /// What nobody may ever read.
    pub const GARBAGE: Self = Self {
        tag: u32::MAX,
        at: u32::MAX,
    };
}

/// What a sector may be after a crash.
#[derive(Clone)]
struct Version {
    content: Content,
    /// The request that wrote it.
    request: u64,
    /// When that was completed; `u64::MAX` if it was not yet.
    completed: u64,
}

/// A disk. A request's sectors get into its cache one after the other. They are on stable storage
/// once a flush has ended that did not begin before the request was completed; after a crash, a sector is
/// what it was then or anything that was written to it later.
pub struct Disk {
    /// The first version of each sector is on stable storage.
    sectors: Vec<Vec<Version>>,
    /// Sectors with more than one version.
    dirty: Vec<usize>,
}

impl Disk {
    /// A disk with these contents.
    pub fn new(contents: impl Iterator<Item = Content>) -> Self {
        let stable = |content| {
            vec![Version {
                content,
                request: 0,
                completed: 0,
            }]
        };
        Self {
            sectors: contents.map(stable).collect(),
            dirty: Vec::new(),
        }
    }

    /// How many sectors there are.
    pub fn len(&self) -> usize {
        self.sectors.len()
    }

    /// Appends sectors.
    pub fn grow(&mut self, contents: impl Iterator<Item = Content>) {
        self.sectors.append(&mut Self::new(contents).sectors);
    }

    /// What a read finds.
    pub fn read(&self, index: usize) -> Content {
        self.sectors[index].last().expect("never empty").content
    }

    /// A sector of `request` gets into the cache.
    pub fn write(&mut self, index: usize, content: Content, request: u64) {
        let versions = &mut self.sectors[index];
        versions.push(Version {
            content,
            request,
            completed: u64::MAX,
        });
        if versions.len() == 2 {
            self.dirty.push(index);
        }
    }

    /// `request`, for `count` sectors from `first` on, is completed. With `fua` it is on stable
    /// storage.
    pub fn complete(&mut self, first: usize, count: usize, request: u64, fua: bool, now: u64) {
        for index in first..first + count {
            let versions = &mut self.sectors[index];
            // It may be gone: a later one was made stable already.
            if let Some(at) = versions.iter().position(|v| v.request == request) {
                versions[at].completed = now;
                if fua {
                    versions.drain(..at);
                }
            }
        }
        self.tidy();
    }

    /// A flush that began at `began` has ended.
    pub fn flush(&mut self, began: u64) {
        for &index in &self.dirty {
            let versions = &mut self.sectors[index];
            if let Some(at) = versions.iter().rposition(|v| v.completed <= began) {
                versions.drain(..at);
            }
        }
        self.tidy();
    }

    /// What a read finds is on stable storage; returns it.
    pub fn settle(&mut self, index: usize) -> Content {
        let versions = &mut self.sectors[index];
        versions.drain(..versions.len() - 1);
        versions[0].completed = 0;
        self.tidy();
        self.read(index)
    }

    /// The power fails. What is in flight was put into the cache before, as far as it gets.
    pub fn crash(&mut self, rng: &mut Rng) {
        let how = rng.below(4);
        for index in std::mem::take(&mut self.dirty) {
            let versions = &mut self.sectors[index];
            let survivor = match how {
                0 => 0,
                1 => versions.len() - 1,
                _ => rng.index(versions.len()),
            };
            let mut version = versions.swap_remove(survivor);
            version.request = 0;
            version.completed = 0;
            versions.clear();
            versions.push(version);
        }
    }

    fn tidy(&mut self) {
        let sectors = &self.sectors;
        self.dirty.retain(|&index| sectors[index].len() > 1);
    }
}

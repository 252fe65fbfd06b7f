// SPDX-License-Identifier: GPL-2.0-only

//! The model: what a device may read as.
//!
//! A write counts from the moment when it was issued, and at the latest when it is completed. A
//! read may return a write that may have been the last one at some moment of the read.

/// A write to a sector.
#[derive(Clone)]
struct Write {
    tag: u32,
    issued: u64,
    /// `u64::MAX` if it was not, or failed.
    completed: u64,
    /// Whether it outlives a crash.
    durable: bool,
}

/// What was written to a sector.
#[derive(Clone)]
pub struct Sector(Vec<Write>);

impl Sector {
    /// One that has been `tag` for ever.
    pub fn new(tag: u32) -> Self {
        Self(vec![Write {
            tag,
            issued: 0,
            completed: 0,
            durable: true,
        }])
    }

    /// A write is issued.
    pub fn issue(&mut self, tag: u32, now: u64) {
        self.0.push(Write {
            tag,
            issued: now,
            completed: u64::MAX,
            durable: false,
        });
    }

    /// A write has succeeded.
    pub fn complete(&mut self, tag: u32, fua: bool, now: u64) {
        let write = self.0.iter_mut().find(|write| write.tag == tag);
        let write = write.expect("was issued");
        write.completed = now;
        write.durable = fua;
    }

    /// A flush that was issued at `issued` has succeeded.
    pub fn flush(&mut self, issued: u64) {
        for write in &mut self.0 {
            write.durable |= write.completed < issued;
        }
    }

    /// Whether a read that was issued at `issued` and ends now may return `tag`.
    pub fn may_read(&self, tag: u32, issued: u64) -> bool {
        let before = self.0.iter().filter(|write| write.completed < issued);
        self.may_be(tag, before.map(|write| write.issued).max())
    }

    /// Whether it may be `tag` after a crash.
    pub fn may_survive(&self, tag: u32) -> bool {
        let durable = self.0.iter().filter(|write| write.durable);
        self.may_be(tag, durable.map(|write| write.issued).max())
    }

    /// Whether `tag` was written, and not completed before a write was issued that certainly came
    /// later.
    fn may_be(&self, tag: u32, replaced: Option<u64>) -> bool {
        let mut with_tag = self.0.iter().filter(|write| write.tag == tag);
        with_tag.any(|write| replaced.is_none_or(|issued| write.completed >= issued))
    }

    /// For a message: the writes.
    pub fn describe(&self) -> String {
        let write = |write: &Write| {
            let end = match write.completed {
                u64::MAX => "…".to_owned(),
                completed => completed.to_string(),
            };
            let durable = if write.durable { " durable" } else { "" };
            format!("{} [{}, {end}]{durable}", write.tag, write.issued)
        };
        self.0.iter().map(write).collect::<Vec<_>>().join(", ")
    }
}

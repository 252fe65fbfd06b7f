// SPDX-License-Identifier: GPL-2.0-only

//! Requests of users.

use host_tests::snapshot::core::{Bios, Incoming};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

/// The device that a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The origin, or the merge target while there is a merge.
    Origin,
    /// A snapshot, by its number.
    Snapshot(usize),
}

thread_local! {
    /// Whether requests may vanish, since the power has failed.
    static POWER_IS_OFF: Cell<bool> = const { Cell::new(false) };
}

/// Does something in the course of which requests may vanish.
pub fn without_power(act: impl FnOnce()) {
    POWER_IS_OFF.set(true);
    act();
    POWER_IS_OFF.set(false);
}

/// A request, or what is left of it. It must not get lost.
#[derive(Debug)]
pub struct Bio {
    pub device: Device,
    pub sector: u64,
    pub sectors: u64,
    /// What is written; 0 for a read.
    pub tag: u32,
    pub fua: bool,
    /// Whether that is to be seen of it.
    pub flag: bool,
    pub issued: u64,
    over: bool,
}

impl Bio {
    pub fn new(
        device: Device,
        sector: u64,
        sectors: u64,
        tag: u32,
        fua: bool,
        issued: u64,
    ) -> Self {
        Self {
            device,
            sector,
            sectors,
            tag,
            fua,
            flag: fua,
            issued,
            over: false,
        }
    }

    /// The sector after it.
    pub fn end(&self) -> u64 {
        self.sector + self.sectors
    }

    /// Takes all but the first `sectors` off.
    pub fn split(&mut self, sectors: u64) -> Option<Self> {
        assert!(
            0 < sectors && sectors <= self.sectors,
            "{self:?} cut to {sectors}"
        );
        if sectors == self.sectors {
            return None;
        }
        let (sector, left) = (self.sector + sectors, self.sectors - sectors);
        self.sectors = sectors;
        Some(Self::new(
            self.device,
            sector,
            left,
            self.tag,
            self.fua,
            self.issued,
        ))
    }

    /// It is over.
    pub fn finish(mut self) {
        self.over = true;
    }
}

impl Drop for Bio {
    fn drop(&mut self) {
        if !self.over && !POWER_IS_OFF.get() && !std::thread::panicking() {
            panic!("lost: {self:?}");
        }
    }
}

/// Requests that wait.
#[derive(Default)]
pub struct Queue(pub VecDeque<Bio>);

impl Bios<Bio> for Queue {
    fn push(&mut self, bio: Bio) {
        self.0.push_back(bio);
    }

    fn pop(&mut self) -> Option<Bio> {
        self.0.pop_front()
    }

    fn append(&mut self, others: &mut Self) {
        self.0.append(&mut others.0);
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A request that is being mapped: it may be cut.
pub struct Mapped {
    bio: Bio,
    rest: Rest,
}

/// What was cut off.
#[derive(Clone, Default)]
pub struct Rest(Rc<RefCell<Option<Bio>>>);

impl Rest {
    /// What it is, if anything.
    pub fn take(&self) -> Option<Bio> {
        self.0.borrow_mut().take()
    }
}

impl Mapped {
    pub fn new(bio: Bio) -> (Self, Rest) {
        let rest = Rest::default();
        (
            Self {
                bio,
                rest: rest.clone(),
            },
            rest,
        )
    }
}

impl Incoming<Bio> for Mapped {
    const MAY_CUT: bool = true;

    fn sector(&self) -> u64 {
        self.bio.sector
    }

    fn sectors(&self) -> u64 {
        self.bio.sectors
    }

    fn cut(&mut self, sectors: u64) {
        if let Some(mut rest) = self.bio.split(sectors) {
            if let Some(old) = self.rest.take() {
                rest.sectors += old.sectors;
                old.finish();
            }
            *self.rest.0.borrow_mut() = Some(rest);
        }
    }

    fn must_last(&self) -> bool {
        self.bio.flag
    }

    fn into_bio(self) -> Bio {
        self.bio
    }
}

/// A request that has waited: it may not be cut.
pub struct Again(pub Bio);

impl Incoming<Bio> for Again {
    const MAY_CUT: bool = false;

    fn sector(&self) -> u64 {
        self.0.sector
    }

    fn sectors(&self) -> u64 {
        self.0.sectors
    }

    fn cut(&mut self, sectors: u64) {
        panic!("{:?} was cut to {sectors}", self.0);
    }

    fn must_last(&self) -> bool {
        self.0.flag
    }

    fn into_bio(self) -> Bio {
        self.0
    }
}

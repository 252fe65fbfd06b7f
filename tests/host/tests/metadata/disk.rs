// SPDX-License-Identifier: GPL-2.0-only

//! A simulated disk with a volatile cache.

use host_tests::format::{Exception, Extent, Geometry, Header, NoMemory};
use host_tests::store::metadata::Disk;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;

const SECTOR: usize = 512;

type Sector = [u8; SECTOR];

/// The I/O failed, as it was told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed;

/// A small random number generator (splitmix64), so that a power cut is a number.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

/// What is on a disk. Sectors never written hold what the last owner left, but for the first few,
/// which `lvcreate` wipes.
#[derive(Clone, Default)]
pub struct Image(BTreeMap<u64, Sector>);

impl Image {
    pub fn sector(&self, at: u64) -> Sector {
        self.0
            .get(&at)
            .copied()
            .unwrap_or_else(|| Self::left_over(at))
    }

    /// The worst there can be: records that look like any others.
    fn left_over(at: u64) -> Sector {
        if at < 8 {
            return [0; SECTOR];
        }
        let record = Exception {
            old: 1 << 40,
            new: Geometry::FIRST_DATA_CHUNK,
        };
        std::array::from_fn(|i| record.to_bytes()[i % Exception::BYTES])
    }

    pub fn put(&mut self, at: u64, data: Sector) {
        self.0.insert(at, data);
    }
}

#[derive(Default)]
struct State {
    /// What survives a power cut for sure.
    stable: Image,
    /// Sectors written and not flushed, in order.
    cache: Vec<(u64, Sector)>,
    /// I/O left until one fails; `None` for never.
    fail_after: Option<u32>,
    /// Whether one failed, after which all do.
    failed: bool,
    /// Power cuts amid I/O: at each write a snapshot of what may be on the disk is taken.
    cut: Option<Random>,
    /// What the disk held at a power cut amid the operation under way.
    remains: Option<Image>,
    /// What was zeroed ahead and not asked for yet.
    zeroed: Option<Extent>,
    sectors: u64,
}

impl State {
    fn io(&mut self) -> Result<(), Failed> {
        if let Some(left) = &mut self.fail_after {
            if *left == 0 {
                self.failed = true;
            } else {
                *left -= 1;
            }
        }
        if self.failed {
            Err(Failed)
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) {
        for (at, data) in std::mem::take(&mut self.cache) {
            self.stable.put(at, data);
        }
    }

    /// What the disk may hold if the power goes now: of what is in the cache, and of `amid`, any
    /// sectors may have made it.
    fn power_cut(&self, random: &mut Random, amid: &[(u64, Sector)]) -> Image {
        let mut image = self.stable.clone();
        let all = random.next() % 4;
        for (at, data) in self.cache.iter().chain(amid) {
            if all == 0 || (all != 1 && random.coin()) {
                image.put(*at, *data);
            }
        }
        image
    }

    /// Lets the power go amid a write of `amid`, once in a while.
    fn maybe_cut(&mut self, amid: &[(u64, Sector)]) {
        if let Some(mut random) = self.cut.take() {
            if random.next() % 3 == 0 {
                self.remains = Some(self.power_cut(&mut random, amid));
            } else {
                self.cut = Some(random);
            }
        }
    }
}

/// The disk.
pub struct SimDisk(RefCell<State>);

impl SimDisk {
    pub fn new(sectors: u64) -> Self {
        Self(RefCell::new(State {
            sectors,
            ..State::default()
        }))
    }

    /// A disk that holds `image`, all of it stable.
    pub fn holding(image: Image, sectors: u64) -> Self {
        let disk = Self::new(sectors);
        disk.0.borrow_mut().stable = image;
        disk
    }

    pub fn sectors(&self) -> u64 {
        self.0.borrow().sectors
    }

    pub fn extend(&self, sectors: u64) {
        self.0.borrow_mut().sectors += sectors;
    }

    /// Lets I/O fail for good, after `after` more.
    pub fn fail_after(&self, after: u32) {
        self.0.borrow_mut().fail_after = Some(after);
    }

    /// Whether I/O has failed.
    pub fn has_failed(&self) -> bool {
        self.0.borrow().failed
    }

    /// Arranges for the power to go amid one of the next writes.
    pub fn arm(&self, seed: u64) {
        let mut state = self.0.borrow_mut();
        state.cut = Some(Random(seed));
        state.remains = None;
    }

    /// Takes what was on the disk when the power went amid a write, if it did.
    pub fn remains(&self) -> Option<Image> {
        let mut state = self.0.borrow_mut();
        state.cut = None;
        state.remains.take()
    }

    /// What the disk may hold if the power goes now.
    pub fn power_cut(&self, seed: u64) -> Image {
        self.0.borrow().power_cut(&mut Random(seed), &[])
    }

    /// What the disk holds when it is shut down in order.
    pub fn shut_down(&self) -> Image {
        let mut state = self.0.borrow_mut();
        state.flush();
        state.stable.clone()
    }

    /// Reads a sector, as anybody would now.
    pub fn peek(&self, at: u64) -> Sector {
        let state = self.0.borrow();
        let cached = state.cache.iter().rev().find(|(sector, _)| *sector == at);
        cached.map_or_else(|| state.stable.sector(at), |(_, data)| *data)
    }

    /// Writes a sector into the cache, as kcopyd writes data, or to stable storage.
    pub fn write_data(&self, at: u64, data: Sector, stable: bool) {
        let mut state = self.0.borrow_mut();
        assert!(at < state.sectors, "data beyond the end of the disk");
        if stable {
            state.cache.retain(|(cached, _)| *cached != at);
            state.stable.put(at, data);
        } else {
            state.cache.push((at, data));
        }
    }

    /// Writes sectors into the cache.
    fn write_cached(&self, sectors: Vec<(u64, Sector)>) -> Result<(), Failed> {
        let mut state = self.0.borrow_mut();
        state.io()?;
        for (at, _) in &sectors {
            assert!(*at < state.sectors, "metadata beyond the end of the disk");
        }
        state.maybe_cut(&sectors);
        state.cache.extend(sectors);
        Ok(())
    }

    /// Writes sectors to stable storage.
    pub fn write_stable(&self, sectors: &[(u64, Sector)], flush: bool) -> Result<(), Failed> {
        let mut state = self.0.borrow_mut();
        state.io()?;
        if flush {
            state.maybe_cut(&[]);
            state.flush();
        }
        for (at, _) in sectors {
            assert!(*at < state.sectors, "metadata beyond the end of the disk");
        }
        state.maybe_cut(sectors);
        for (at, data) in sectors {
            // What waits in the cache for the same sector is older.
            state.cache.retain(|(cached, _)| cached != at);
            state.stable.put(*at, *data);
        }
        Ok(())
    }
}

fn split(sector: u64, bytes: &[u8]) -> Vec<(u64, Sector)> {
    assert_eq!(bytes.len() % SECTOR, 0, "not whole sectors");
    let sectors = bytes.chunks_exact(SECTOR);
    (sector..)
        .zip(sectors.map(|data| data.try_into().unwrap()))
        .collect()
}

impl Disk for SimDisk {
    type Error = Failed;
    type Buffer = Vec<u8>;

    fn buffer(&self, bytes: usize) -> Result<Vec<u8>, NoMemory> {
        Ok(vec![0; bytes])
    }

    fn read(&self, sector: u64, buffer: &mut Vec<u8>, bytes: Range<usize>) -> Result<(), Failed> {
        self.0.borrow_mut().io()?;
        for (at, to) in (sector..).zip(buffer[bytes].chunks_exact_mut(SECTOR)) {
            assert!(at < self.sectors(), "read beyond the end of the disk");
            to.copy_from_slice(&self.peek(at));
        }
        Ok(())
    }

    fn read_each<E: From<Failed>>(
        &self,
        bytes: usize,
        places: impl Iterator<Item = u64>,
        mut visit: impl FnMut(&[u8]) -> Result<bool, E>,
    ) -> Result<(), E> {
        for sector in places {
            let mut buffer = vec![0; bytes];
            self.read(sector, &mut buffer, 0..bytes)?;
            if !visit(&buffer)? {
                break;
            }
        }
        Ok(())
    }

    fn write(&self, sector: u64, buffer: &Vec<u8>, bytes: Range<usize>) -> Result<(), Failed> {
        self.write_stable(&split(sector, &buffer[bytes]), false)
    }

    fn flush_and_write(
        &self,
        sector: u64,
        buffer: &Vec<u8>,
        bytes: Range<usize>,
    ) -> Result<(), Failed> {
        self.write_stable(&split(sector, &buffer[bytes]), true)
    }

    fn write_header(&self, header: Header) -> Result<(), Failed> {
        let mut block = [0; SECTOR];
        block[..Header::BYTES].copy_from_slice(&header.to_bytes());
        self.write_stable(&[(0, block)], true)
    }

    fn zero_ahead(&self, extent: Extent) {
        let zeroed = self.zero(extent).is_ok();
        self.0.borrow_mut().zeroed = zeroed.then_some(extent);
    }

    fn zero(&self, extent: Extent) -> Result<(), Failed> {
        if self.0.borrow_mut().zeroed.take() == Some(extent) {
            return Ok(());
        }
        let sectors = extent.sector..extent.sector + extent.sectors;
        self.write_cached(sectors.map(|at| (at, [0; SECTOR])).collect())
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! The module's store on bytes in memory.

use host_tests::format::{Exception, Extent, Header, NoMemory};
use host_tests::platform::Host;
use host_tests::store::metadata::{load, Allocator, Committer, DeviceInfo, Disk, Loaded, Ordered};
use std::cell::RefCell;
use std::ops::Range;

const SECTOR: usize = 512;

/// A COW device. I/O beyond its end panics.
struct Memory(RefCell<Vec<u8>>);

impl Memory {
    fn put(&self, sector: u64, bytes: &[u8]) {
        let at = sector as usize * SECTOR;
        self.0.borrow_mut()[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

impl Disk for Memory {
    type Error = ();
    type Buffer = Vec<u8>;

    fn buffer(&self, bytes: usize) -> Result<Vec<u8>, NoMemory> {
        Ok(vec![0; bytes])
    }

    fn read(&self, sector: u64, buffer: &mut Vec<u8>, bytes: Range<usize>) -> Result<(), ()> {
        let at = sector as usize * SECTOR;
        let from = &self.0.borrow()[at..at + bytes.len()];
        buffer[bytes].copy_from_slice(from);
        Ok(())
    }

    fn read_each<E: From<()>>(
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

    fn write(&self, sector: u64, buffer: &Vec<u8>, bytes: Range<usize>) -> Result<(), ()> {
        self.put(sector, &buffer[bytes]);
        Ok(())
    }

    fn flush_and_write(
        &self,
        sector: u64,
        buffer: &Vec<u8>,
        bytes: Range<usize>,
    ) -> Result<(), ()> {
        self.write(sector, buffer, bytes)
    }

    fn write_header(&self, header: Header) -> Result<(), ()> {
        self.put(0, &header.to_bytes());
        Ok(())
    }

    fn zero_ahead(&self, _: Extent) {}

    fn zero(&self, extent: Extent) -> Result<(), ()> {
        self.put(extent.sector, &vec![0; extent.sectors as usize * SECTOR]);
        Ok(())
    }
}

/// Loads the bytes as the content of a COW device; returns how many records there are, `None` if
/// it is refused, new or invalid. What loads then takes more exceptions, and is merged to its end.
pub fn live(data: &[u8], origin_sectors: u64) -> Option<u64> {
    let info = |sectors| DeviceInfo {
        sectors,
        logical_block: 512,
        physical_block: 4096,
    };
    let cow = info((data.len() / SECTOR) as u64);
    let disk = Memory(RefCell::new(data[..data.len() / SECTOR * SECTOR].into()));
    let is_new = data[..4] == [0; 4];
    let mut found = 0;
    let add = |_| {
        found += 1;
        Ok(())
    };
    let loaded = load::<_, Host>(
        &disk,
        cow,
        info(origin_sectors),
        8,
        &mut Ordered::<Host, _>::new(add),
    );
    let Ok(Loaded::Valid {
        geometry,
        list,
        next,
    }) = loaded
    else {
        return None;
    };
    assert_eq!(list.records(), found);

    let mut allocator = Allocator::new(geometry, next, found);
    let mut committer = Committer::new(list);
    for old in 0..3 {
        let Some((new, _)) = allocator.allocate(cow.sectors, 1) else {
            break;
        };
        allocator.commit();
        let outcome = committer.commit(&disk, Exception { old, new }, true, false, 0, |_| {});
        assert_eq!(outcome, Some(true));
    }
    let list = committer.list();
    while let Some(run) = list.last_run(&disk).unwrap() {
        let before = list.records();
        list.remove_last(&disk, run.count).unwrap();
        assert_eq!(list.records() + u64::from(run.count), before);
    }
    assert_eq!(list.records(), 0);
    (!is_new).then_some(found)
}

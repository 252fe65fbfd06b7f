// SPDX-License-Identifier: GPL-2.0-only

//! Reading the metadata when a snapshot is activated.

use super::{
    disk::Error,
    Disk,
    Receiver,
    RecordList, //
};
use crate::format::{
    ChunkSize,
    CowState,
    DeviceSize,
    Fault,
    Geometry,
    Header,
    Platform,
    Walk,
    WalkError,
    SECTOR_BYTES, //
};

/// What of a device decides what may lie on it.
#[derive(Clone, Copy, Debug)]
pub struct DeviceInfo {
    /// Its size in sectors.
    pub sectors: u64,
    /// Its logical block in bytes.
    pub logical_block: u32,
    /// Its physical block in bytes.
    pub physical_block: u32,
}

impl DeviceInfo {
    /// What is written at once at least, in bytes.
    pub fn unit(&self) -> usize {
        self.physical_block.max(self.logical_block) as usize
    }

    fn size(&self) -> DeviceSize {
        DeviceSize {
            sectors: self.sectors,
            logical_block: self.logical_block,
        }
    }
}

/// What [`load`] found.
pub enum Loaded<B> {
    /// A snapshot that may be used, perhaps a new one.
    Valid {
        /// Where things lie.
        geometry: Geometry,
        /// The records.
        list: RecordList<B>,
        /// The first chunk above all that the records use.
        next: u64,
    },
    /// A snapshot that was dropped.
    Invalid(ChunkSize),
}

/// Reads the header and all records from the COW device, or writes those of a new snapshot, and
/// gives each exception to `receiver`.
///
/// `table_chunk` is the chunk size that the table asks for, in sectors, 0 for none; that of the
/// header overrides it. `P` is where this runs.
pub fn load<D: Disk, P: Platform>(
    disk: &D,
    cow: DeviceInfo,
    origin: DeviceInfo,
    table_chunk: u32,
    receiver: &mut impl Receiver<D::Error>,
) -> Result<Loaded<D::Buffer>, Error<D::Error>> {
    let header = read_header(disk, cow)?;
    let state =
        CowState::new(header, cow.size(), origin.size(), table_chunk).map_err(Error::Fault)?;
    let geometry = match state {
        CowState::Invalid(chunk) => return Ok(Loaded::Invalid(chunk)),
        CowState::New(geometry) | CowState::Valid(geometry) => geometry,
    };
    let mut list = RecordList::new(disk, geometry, cow.unit()).map_err(no_memory)?;
    receiver
        .chunk_size(geometry.chunk_size().sectors())
        .map_err(Error::Io)?;
    let next = if let CowState::Valid(_) = state {
        walk::<D, P>(disk, geometry, &mut list, receiver)?
    } else {
        // The area first: a header alone would bring whatever is there to life.
        disk.zero(geometry.chunks(1, 1)).map_err(Error::Io)?;
        disk.write_header(Header {
            valid: true,
            chunk_sectors: geometry.chunk_size().sectors(),
        })
        .map_err(Error::Io)?;
        Geometry::FIRST_DATA_CHUNK
    };
    Ok(Loaded::Valid {
        geometry,
        list,
        next,
    })
}

fn no_memory<E>(_: crate::format::NoMemory) -> Error<E> {
    Error::Fault(Fault::NoMemory)
}

fn read_header<D: Disk>(disk: &D, cow: DeviceInfo) -> Result<Option<Header>, Error<D::Error>> {
    let bytes = cow.logical_block.max(SECTOR_BYTES) as usize;
    let mut buffer = disk.buffer(bytes).map_err(no_memory)?;
    disk.read(0, &mut buffer, 0..bytes).map_err(Error::Io)?;
    Header::read(&core::array::from_fn(|i| buffer[i])).map_err(Error::Fault)
}

/// Walks all records into `list`; returns the first chunk above all that they use.
fn walk<D: Disk, P: Platform>(
    disk: &D,
    geometry: Geometry,
    list: &mut RecordList<D::Buffer>,
    receiver: &mut impl Receiver<D::Error>,
) -> Result<u64, Error<D::Error>> {
    let mut walk = Walk::<P>::new(geometry);
    let places = (0..).map_while(|window| geometry.window(window).map(|extent| extent.sector));
    disk.read_each(geometry.window_bytes() as usize, places, |bytes| {
        let ended = walk.records().is_some();
        walk.feed(bytes, |e| receiver.take(e))
            .map_err(|e| match e {
                WalkError::Fault(fault) => Error::Fault(fault),
                WalkError::Visit(e) => e,
            })?;
        if let Some(records) = walk.records().filter(|_| !ended) {
            list.found(records, bytes);
        }
        Ok::<_, Error<D::Error>>(walk.next_window().is_some())
    })?;
    let walked = walk.finish().map_err(Error::Fault)?;
    receiver.finish()?;
    if walked.stale {
        list.set_stale();
    }
    Ok(walked.next_new)
}

// SPDX-License-Identifier: GPL-2.0-only

//! Reads the metadata of a COW device.

use crate::buffer::AlignedBuf;
use crate::device::{Access, Device};
use crate::error::{Error, Result};
use crate::format::{
    CowState, DeviceSize, Exception, Extent, Fault, Geometry, Header, Walk, WalkError, Walked,
    SECTOR_BYTES,
};
pub use crate::growable::Userspace;
use crate::identity::cow_of_snapshot;
use crate::interrupt::Interrupt;
use std::path::Path;
use std::sync::mpsc::{sync_channel, Receiver};
use std::sync::Arc;
use std::thread;

/// What is known of the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its size in sectors.
    pub sectors: u64,
    /// Its logical block in bytes.
    pub block: u32,
}

impl Origin {
    /// An origin larger than any old chunk: with it no old chunk is refused.
    pub const UNKNOWN: Self = Self {
        sectors: u64::MAX,
        block: SECTOR_BYTES,
    };

    /// The origin `device`. One of no sectors cannot be an origin: [`Geometry::new`] would take its
    /// size for unknown, and no old chunk would be refused.
    pub fn of(device: &Device) -> Result<Self> {
        if device.sectors() == 0 {
            return Err(Error::Refused(format!(
                "{}: it is smaller than a sector and cannot be an origin",
                device.path().display()
            )));
        }
        Ok(Self {
            sectors: device.sectors(),
            block: device.block(),
        })
    }

    /// An origin of which at most the size is known, in sectors.
    pub fn of_size(sectors: Option<u64>) -> Result<Self> {
        match sectors {
            None => Ok(Self::UNKNOWN),
            Some(0) => Err(Error::Refused("an origin of 0 sectors is none".into())),
            Some(sectors) => Ok(Self {
                sectors,
                ..Self::UNKNOWN
            }),
        }
    }
}

impl From<Origin> for DeviceSize {
    fn from(origin: Origin) -> Self {
        Self {
            sectors: origin.sectors,
            logical_block: origin.block,
        }
    }
}

/// A header and what follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The header as found.
    pub header: Header,
    /// What lies where.
    pub geometry: Geometry,
}

/// Decides what the header's `bytes` mean on a COW device of `cow_sectors` sectors with logical
/// blocks of `cow_block` bytes, in the order in which the kernel decides it.
///
/// `None` stands for a new snapshot, which the kernel would begin afresh.
pub fn layout(
    bytes: &[u8; Header::BYTES],
    cow_sectors: u64,
    cow_block: u32,
    origin: Origin,
) -> std::result::Result<Option<Layout>, Fault> {
    let Some(header) = Header::read(bytes)? else {
        return Ok(None);
    };
    let cow = DeviceSize {
        sectors: cow_sectors,
        logical_block: cow_block,
    };
    let geometry = match CowState::new(Some(header), cow, origin.into(), 0)? {
        CowState::New(geometry) | CowState::Valid(geometry) => geometry,
        // The kernel does not look at its records; the tools do.
        CowState::Invalid(chunk) => Geometry::new(chunk, cow_sectors, origin.sectors)?,
    };
    Ok(Some(Layout { header, geometry }))
}

/// A COW device.
#[derive(Clone)]
pub struct Cow {
    device: Arc<Device>,
    header: [u8; Header::BYTES],
    origin: Origin,
    interrupt: Interrupt,
}

impl Cow {
    /// Opens the COW device `path` and reads its header's bytes.
    pub fn open(path: &Path, access: Access, origin: Origin) -> Result<Self> {
        Self::new(Device::open(path, access)?, origin)
    }

    /// Reads the header's bytes from `device`.
    pub fn new(device: Device, origin: Origin) -> Result<Self> {
        if device.bytes() == 0 {
            return Err(Error::Refused(format!(
                "{}: it is smaller than a sector and holds no header",
                device.path().display()
            )));
        }
        let meta = device.file().metadata().ok();
        if let Some(cow) = meta.as_ref().and_then(cow_of_snapshot) {
            return Err(Error::Refused(format!(
                "{}: it is the snapshot, whose COW device is /dev/mapper/{cow}: deactivate it and \
                 give its name as VG/LV",
                device.path().display()
            )));
        }
        let mut block = AlignedBuf::new(device.block() as usize);
        device.read_at(&mut block, 0)?;
        let header = std::array::from_fn(|i| block[i]);
        Ok(Self {
            device: Arc::new(device),
            header,
            origin,
            interrupt: Interrupt::never(),
        })
    }

    /// The same, but reading its list ends when `interrupt` is asked for.
    pub fn watching(mut self, interrupt: &Interrupt) -> Self {
        self.interrupt = interrupt.clone();
        self
    }

    /// The device itself.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The header's bytes as found.
    pub fn header_bytes(&self) -> &[u8; Header::BYTES] {
        &self.header
    }

    /// What the header means; see [`layout`].
    pub fn layout(&self) -> std::result::Result<Option<Layout>, Fault> {
        layout(
            &self.header,
            self.device.sectors(),
            self.device.block(),
            self.origin,
        )
    }

    /// What the kernel makes of the device, where the table asks for chunks of `table_sectors`
    /// sectors, 0 for none.
    pub fn state(&self, table_sectors: u32) -> std::result::Result<CowState, Fault> {
        let size = DeviceSize {
            sectors: self.device.sectors(),
            logical_block: self.device.block(),
        };
        let header = Header::read(&self.header)?;
        CowState::new(header, size, self.origin.into(), table_sectors)
    }

    /// What the header means, where nothing can be done without a snapshot.
    pub fn snapshot(&self) -> Result<Layout> {
        match self.layout() {
            Ok(Some(layout)) => Ok(layout),
            Ok(None) => Err(Error::Refused(format!(
                "{}: it holds no snapshot (the header's magic is zero); snap_check tells \
                 whether records stand behind it",
                self.device.path().display()
            ))),
            Err(fault) => Err(self.fault(fault)),
        }
    }

    /// The error that says that this device has `fault`.
    pub fn fault(&self, fault: Fault) -> Error {
        Error::Fault {
            path: self.device.path().into(),
            fault,
        }
    }

    /// Reads the windows of the areas, from the first on.
    pub fn windows(&self, geometry: Geometry) -> Windows {
        Windows::new(Arc::clone(&self.device), geometry, self.interrupt.clone())
    }

    /// Walks the list of records as the kernel does when it loads the snapshot, and calls `visit`
    /// with each record and its number.
    ///
    /// Metadata that the kernel would refuse is [`Error::Fault`]; `visit` then saw the records
    /// before the fault.
    pub fn walk(
        &self,
        geometry: Geometry,
        mut visit: impl FnMut(u64, Exception) -> Result<()>,
    ) -> Result<Walked> {
        let mut walk = Walk::<Userspace>::new(geometry);
        let mut windows = self.windows(geometry);
        let mut record = 0;
        while walk.next_window().is_some() {
            let Some(window) = windows.next()? else { break };
            walk.feed(window, |e| {
                visit(record, e)?;
                record += 1;
                Ok(())
            })
            .map_err(|e| match e {
                WalkError::Fault(fault) => self.fault(fault),
                WalkError::Visit(e) => e,
            })?;
        }
        walk.finish().map_err(|fault| self.fault(fault))
    }

    /// Calls `visit` with each record and its number as they stand, without any check, up to the
    /// first empty one.
    ///
    /// Returns whether there was one; if not, the device ended first.
    pub fn records(
        &self,
        geometry: Geometry,
        mut visit: impl FnMut(u64, Exception) -> Result<()>,
    ) -> Result<bool> {
        let mut windows = self.windows(geometry);
        let mut record = 0;
        while let Some(window) = windows.next()? {
            for e in Exception::records(window) {
                if e.is_empty() {
                    return Ok(true);
                }
                visit(record, e)?;
                record += 1;
            }
        }
        Ok(false)
    }
}

/// The first byte and the number of bytes of `extent`.
pub fn byte_range(extent: Extent) -> (u64, usize) {
    let sector = u64::from(SECTOR_BYTES);
    (extent.sector * sector, (extent.sectors * sector) as usize)
}

/// Several windows, read in one go.
struct Group {
    memory: AlignedBuf,
    /// How many windows were read.
    windows: u64,
    /// Why the next one could not be.
    error: Option<Error>,
}

/// Reads the windows of the areas in order, ahead of its user where there are many.
///
/// Most lists are short, so the first group is read when it is asked for and only a longer list
/// starts the threads that read ahead. What they read beyond the end of the list, and errors met
/// there, are dropped unseen.
pub struct Windows {
    device: Arc<Device>,
    geometry: Geometry,
    /// Windows in a group.
    per_group: u64,
    group: Option<Group>,
    /// The next window of `group`.
    next: u64,
    /// The next group to take.
    next_group: u64,
    readers: Vec<Receiver<Group>>,
    interrupt: Interrupt,
}

impl Windows {
    /// Bytes in a group of windows.
    const GROUP_BYTES: u32 = Geometry::MAX_WINDOW_BYTES;
    /// Threads that read ahead.
    const READERS: u64 = 4;
    /// Groups that a thread reads ahead.
    const AHEAD: usize = 4;

    fn new(device: Arc<Device>, geometry: Geometry, interrupt: Interrupt) -> Self {
        Self {
            device,
            geometry,
            per_group: u64::from(Self::GROUP_BYTES / geometry.window_bytes()),
            group: None,
            next: 0,
            next_group: 0,
            readers: Vec::new(),
            interrupt,
        }
    }

    /// The next window; `None` after the last one that the device has room for.
    #[allow(
        clippy::should_implement_trait,
        reason = "what it returns borrows from it"
    )]
    pub fn next(&mut self) -> Result<Option<&[u8]>> {
        if self
            .group
            .as_ref()
            .is_none_or(|group| self.next >= group.windows)
        {
            if let Some(error) = self.group.as_mut().and_then(|group| group.error.take()) {
                return Err(error);
            }
            if self.interrupt.asked() {
                let device = self.device.path().display();
                return Err(Error::Interrupted(format!("while {device} was read")));
            }
            self.group = self.take_group();
            self.next = 0;
        }
        let Some(group) = &mut self.group else {
            return Ok(None);
        };
        if group.windows == 0 {
            return group.error.take().map_or(Ok(None), Err);
        }
        let bytes = self.geometry.window_bytes() as usize;
        let start = self.next as usize * bytes;
        self.next += 1;
        Ok(Some(&group.memory[start..start + bytes]))
    }

    fn take_group(&mut self) -> Option<Group> {
        let group = self.next_group;
        self.next_group += 1;
        if group == 1 {
            self.start_readers();
        }
        if self.readers.is_empty() {
            let first = group * self.per_group;
            return Some(Self::read(
                &self.device,
                &self.geometry,
                first,
                self.per_group,
            ));
        }
        let reader = &self.readers[((group - 1) % Self::READERS) as usize];
        reader.recv().ok()
    }

    /// Starts the threads, or none of them where not all are to be had.
    fn start_readers(&mut self) {
        for reader in 0..Self::READERS {
            let (sender, receiver) = sync_channel(Self::AHEAD);
            let (device, geometry) = (Arc::clone(&self.device), self.geometry);
            let per_group = self.per_group;
            let started = thread::Builder::new().spawn(move || {
                for group in (1 + reader..).step_by(Self::READERS as usize) {
                    let read = Self::read(&device, &geometry, group * per_group, per_group);
                    let last = read.windows < per_group;
                    // The user that needs no more drops the receiver.
                    if sender.send(read).is_err() || last {
                        break;
                    }
                }
            });
            if started.is_err() {
                self.readers.clear();
                return;
            }
            self.readers.push(receiver);
        }
    }

    fn read(device: &Device, geometry: &Geometry, first: u64, count: u64) -> Group {
        let bytes = geometry.window_bytes() as usize;
        let mut group = Group {
            memory: AlignedBuf::new(bytes * count as usize),
            windows: 0,
            error: None,
        };
        for (window, memory) in (first..first + count).zip(group.memory.chunks_exact_mut(bytes)) {
            let Some(extent) = geometry.window(window) else {
                break;
            };
            if let Err(error) = device.read_at(memory, byte_range(extent).0) {
                group.error = Some(error);
                break;
            }
            group.windows += 1;
        }
        group
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! Writes the metadata of a COW device.

use crate::buffer::AlignedBuf;
use crate::cow::{byte_range, Origin};
use crate::device::{Access, Device};
use crate::dump::{Head, Visitor};
use crate::error::{Error, Result};
use crate::format::{ChunkSize, Exception, Fault, Geometry, Header, RecordCheck, SECTOR_BYTES};
use crate::growable::Userspace;
use crate::output::{bytes_of, Output};
use crate::run::Run;
use std::sync::Arc;

/// Writes header and areas to a COW device.
///
/// First the header, marked invalid; then the records, from the first area on; when all of them
/// are durable, the header as it shall be. So the kernel never loads what was cut short: it finds
/// an invalid snapshot. Data chunks are not touched.
pub struct AreaWriter {
    device: Arc<Device>,
    geometry: Geometry,
    check: RecordCheck<Userspace>,
    window: AlignedBuf,
    /// The number of the window in memory.
    number: u64,
    /// Bytes filled in it.
    filled: usize,
    records: u64,
}

impl AreaWriter {
    /// Begins to write to `device`: whatever snapshot was there is invalid from now on.
    pub fn new(device: Arc<Device>, geometry: Geometry) -> Result<Self> {
        let writer = Self {
            device,
            geometry,
            check: RecordCheck::new(geometry),
            window: AlignedBuf::new(geometry.window_bytes() as usize),
            number: 0,
            filled: 0,
            records: 0,
        };
        writer.write_header(false)?;
        Ok(writer)
    }

    /// Writes the next record; one that the kernel would refuse is an error.
    pub fn push(&mut self, e: Exception) -> Result<()> {
        let checked = self.check.check(self.records, e);
        checked.map_err(|fault| self.fault(fault))?;
        self.window[self.filled..][..Exception::BYTES].copy_from_slice(&e.to_bytes());
        self.filled += Exception::BYTES;
        self.records += 1;
        if self.filled == self.window.len() {
            self.write_window()?;
        }
        Ok(())
    }

    /// Writes what is left, and the header with `valid`.
    pub fn finish(mut self, valid: bool) -> Result<u64> {
        let checked = self.check.finish();
        checked.map_err(|fault| self.fault(fault))?;
        // The list ends with an empty record, and everything after it in its area must be zero.
        let per_area = u64::from(self.geometry.windows_per_area());
        loop {
            self.write_window()?;
            if self.number % per_area == 0 {
                break;
            }
        }
        self.device.flush()?;
        self.write_header(valid)?;
        Ok(self.records)
    }

    fn write_window(&mut self) -> Result<()> {
        let Some(extent) = self.geometry.window(self.number) else {
            return Err(self.fault(Fault::AreaBeyondDevice {
                area: self.number / u64::from(self.geometry.windows_per_area()),
                cow_chunks: self.geometry.cow_chunks(),
            }));
        };
        self.window[self.filled..].fill(0);
        self.device.write_at(&self.window, byte_range(extent).0)?;
        self.number += 1;
        self.filled = 0;
        Ok(())
    }

    fn write_header(&self, valid: bool) -> Result<()> {
        let header = Header {
            valid,
            chunk_sectors: self.geometry.chunk_size().sectors(),
        };
        let mut block = AlignedBuf::new(self.device.block() as usize);
        block[..Header::BYTES].copy_from_slice(&header.to_bytes());
        self.device.write_at(&block, 0)?;
        self.device.flush()
    }

    fn fault(&self, fault: Fault) -> Error {
        Error::Fault {
            path: self.device.path().into(),
            fault,
        }
    }
}

/// Writes a dump to a COW device; see [`AreaWriter`].
pub struct Restorer {
    target: Output,
    origin: Origin,
    /// Whether nothing shall be written.
    dry: bool,
    /// The head and what writes the list, once the head is known.
    list: Option<(Head, List)>,
    records: Option<u64>,
}

/// What becomes of the records.
enum List {
    Write(AreaWriter),
    /// They are only checked.
    Check(RecordCheck<Userspace>, Geometry, u64),
}

impl Restorer {
    /// Will write to `target`, for a snapshot of `origin`.
    pub fn new(target: Output, origin: Origin) -> Self {
        Self {
            target,
            origin,
            dry: false,
            list: None,
            records: None,
        }
    }

    /// The same, but it only checks what it would write.
    pub fn dry(self) -> Self {
        Self { dry: true, ..self }
    }

    fn fault(&self, fault: Fault) -> Error {
        Error::Fault {
            path: self.target.path().into(),
            fault,
        }
    }

    /// The number of records written; `None` if the dump had no end.
    pub fn records(&self) -> Option<u64> {
        self.records
    }

    /// The layout that `head` asks for, on a device of which the bytes of a block and the sectors
    /// may be known.
    fn geometry(&self, head: &Head, device: Option<(u32, u64)>) -> Result<Geometry> {
        let (block, sectors) = device.unwrap_or((SECTOR_BYTES, head.cow_sectors));
        ChunkSize::for_devices(head.chunk_sectors, block, self.origin.block)
            .map_err(|fault| Fault::ChunkSize(head.chunk_sectors, fault))
            .and_then(|chunk| Geometry::new(chunk, sectors, self.origin.sectors))
            .map_err(|fault| Error::Fault {
                path: self.target.path().into(),
                fault,
            })
    }
}

impl Visitor for Restorer {
    fn head(&mut self, head: &Head) -> Result<()> {
        if !head.has_list {
            return Err(Error::Refused(
                "the dump has the header only; nothing was written".into(),
            ));
        }
        // A dump that makes no sense shall not make a file.
        self.geometry(head, None)?;
        let bytes = bytes_of(head.cow_sectors).ok_or_else(|| {
            Error::Refused(format!(
                "{}: a COW device of {} sectors cannot be made",
                self.target.path().display(),
                head.cow_sectors
            ))
        })?;
        let list = if self.dry {
            let there = Device::open(self.target.path(), Access::Read)?;
            let sectors = there.sectors().max(head.cow_sectors);
            let sectors = if there.is_block_device() {
                there.sectors()
            } else {
                sectors
            };
            let geometry = self.geometry(head, Some((there.block(), sectors)))?;
            List::Check(RecordCheck::new(geometry), geometry, 0)
        } else {
            let device = self.target.device(bytes)?;
            let geometry = self.geometry(head, Some((device.block(), device.sectors())))?;
            List::Write(AreaWriter::new(Arc::new(device), geometry)?)
        };
        self.list = Some((*head, list));
        Ok(())
    }

    fn run(&mut self, run: Run) -> Result<()> {
        match &mut self.list {
            Some((_, List::Write(list))) => run.records().try_for_each(|e| list.push(e)),
            Some((_, List::Check(check, _, records))) => {
                let checked = run.records().try_for_each(|e| {
                    *records += 1;
                    check.check(*records - 1, e)
                });
                checked.map_err(|fault| self.fault(fault))
            }
            None => Ok(()),
        }
    }

    fn end(&mut self, _records: u64) -> Result<()> {
        match self.list.take() {
            Some((head, List::Write(list))) => self.records = Some(list.finish(head.valid)?),
            Some((_, List::Check(mut check, geometry, records))) => {
                check.finish().map_err(|fault| self.fault(fault))?;
                // The list ends with an empty record.
                if geometry.area_chunk(geometry.area_of(records)).is_none() {
                    return Err(self.fault(Fault::AreaBeyondDevice {
                        area: geometry.area_of(records),
                        cow_chunks: geometry.cow_chunks(),
                    }));
                }
                self.records = Some(records);
            }
            None => {}
        }
        Ok(())
    }
}

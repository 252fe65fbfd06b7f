// SPDX-License-Identifier: GPL-2.0-only

//! The client that I/O is made through.

use super::IoBuffer;
use crate::dm::{
    ffi,
    BlockDevice, //
};
use crate::format::Extent;
use core::ops::Range;
use core::ptr::{
    self,
    NonNull, //
};
use kernel::{
    bindings,
    error::{
        from_err_ptr,
        to_result, //
    },
    page::Page,
    prelude::*,
    types::Opaque, //
};

/// Sectors are 512 bytes, whatever the device's blocks are.
const SECTOR_SHIFT: u32 = 9;

const READ_DATA: bindings::blk_opf_t = bindings::req_op_REQ_OP_READ;
const WRITE_DATA: bindings::blk_opf_t = bindings::req_op_REQ_OP_WRITE;
/// What is metadata: schedulers and `blktrace` want to know.
const REQ_META: bindings::blk_opf_t = 1 << bindings::req_flag_bits___REQ_META;
const READ: bindings::blk_opf_t = READ_DATA | REQ_META;
const WRITE: bindings::blk_opf_t = WRITE_DATA | REQ_META;
const FUA: bindings::blk_opf_t = 1 << bindings::req_flag_bits___REQ_FUA;
const PREFLUSH: bindings::blk_opf_t = 1 << bindings::req_flag_bits___REQ_PREFLUSH;

/// No function to call: the request is waited for.
const WAIT: ffi::dm_io_notify = ffi::dm_io_notify {
    fn_: None,
    context: ptr::null_mut(),
};

/// What is to be done with data.
#[cfg(not(under_c_core))]
#[derive(Clone, Copy)]
pub(super) enum Data {
    /// It is read.
    Read,
    /// It is written, perhaps into a volatile cache.
    Write,
    /// It is written to stable storage (`REQ_FUA`).
    WriteStable,
}

/// A dm-io client.
///
/// # Invariants
///
/// `client` came from `dm_io_client_create()` and was not destroyed.
pub(crate) struct IoClient {
    client: NonNull<ffi::dm_io_client>,
    zeroes: Pin<KBox<ZeroPages>>,
}

// SAFETY: A dm-io client may be used and destroyed by any thread.
unsafe impl Send for IoClient {}
// SAFETY: A dm-io client may be used by many threads at once: it is two mempools. `zeroes` is only
// read.
unsafe impl Sync for IoClient {}

impl IoClient {
    /// Creates a client. May sleep.
    pub(crate) fn new() -> Result<Self> {
        let zeroes = ZeroPages::new()?;
        // SAFETY: There are no conditions to fulfil.
        let client = from_err_ptr(unsafe { ffi::dm_io_client_create() })?;
        Ok(Self {
            // INVARIANT: Created just now.
            client: NonNull::new(client).ok_or(ENOMEM)?,
            zeroes,
        })
    }

    /// Reads from `sector` on into the `bytes` of `buffer`, whose bounds are multiples of the
    /// device's logical block. Sleeps.
    pub(crate) fn read(
        &self,
        device: &BlockDevice,
        sector: u64,
        buffer: &mut IoBuffer,
        bytes: Range<usize>,
    ) -> Result {
        // SAFETY: The borrow of `buffer` outlasts the call, which is synchronous, and is exclusive.
        unsafe { self.transfer(device, READ, sector, buffer, bytes, WAIT) }
    }

    /// Writes the `bytes` of `buffer`, whose bounds are multiples of the device's logical block,
    /// from `sector` on; they are on stable storage when it returns (`REQ_FUA`). Sleeps.
    pub(crate) fn write(
        &self,
        device: &BlockDevice,
        sector: u64,
        buffer: &IoBuffer,
        bytes: Range<usize>,
    ) -> Result {
        // SAFETY: The borrow of `buffer` outlasts the call, which is synchronous and only reads.
        unsafe { self.transfer(device, WRITE | FUA, sector, buffer, bytes, WAIT) }
    }

    /// Like [`Self::write`], and everything that had completed before is on stable storage before
    /// this is written (`REQ_PREFLUSH`). Sleeps.
    pub(crate) fn flush_and_write(
        &self,
        device: &BlockDevice,
        sector: u64,
        buffer: &IoBuffer,
        bytes: Range<usize>,
    ) -> Result {
        let opf = WRITE | PREFLUSH | FUA;
        // SAFETY: The borrow of `buffer` outlasts the call, which is synchronous and only reads.
        unsafe { self.transfer(device, opf, sector, buffer, bytes, WAIT) }
    }

    /// Starts to read all of `buffer` from `sector` on.
    ///
    /// # Safety
    ///
    /// If it succeeds, `device` must stay open, `buffer` must stay valid, and nobody may look at
    /// it, until the request is over, which `notify` is told of: it must have a function, which may
    /// be called in any context.
    pub(super) unsafe fn start_read(
        &self,
        device: &BlockDevice,
        sector: u64,
        buffer: &IoBuffer,
        notify: ffi::dm_io_notify,
    ) -> Result {
        // SAFETY: The caller vouches for `buffer` and `device`.
        unsafe { self.transfer(device, READ, sector, buffer, 0..buffer.len(), notify) }
    }

    /// # Safety
    ///
    /// Until the request is over, which is when the call returns or, with a function in `notify`,
    /// when that is called, `device` must stay open, `buffer` must stay valid, and for a read
    /// nobody else may look at it.
    unsafe fn transfer(
        &self,
        device: &BlockDevice,
        opf: bindings::blk_opf_t,
        sector: u64,
        buffer: &IoBuffer,
        bytes: Range<usize>,
        notify: ffi::dm_io_notify,
    ) -> Result {
        let mem = ffi::dm_io_memory {
            type_: ffi::DM_IO_VMA,
            offset: 0,
            ptr: buffer.at(&bytes),
        };
        let region = ffi::dm_io_region {
            bdev: device.as_ptr(),
            sector,
            count: (bytes.len() >> SECTOR_SHIFT) as u64,
        };
        // SAFETY: The caller vouches for the device and the buffer, whose bounds were checked by
        // slicing it.
        unsafe { self.submit(opf, mem, &mut [region], notify) }
    }

    /// Starts to read one region into the `bytes` of `buffer`, or to write these to all `regions`, each of
    /// which is as long as they are.
    ///
    /// # Safety
    ///
    /// If it succeeds, the devices must stay open, `buffer` must stay valid, and for a read nobody may look
    /// at it, until the request is over, which `notify` is told of: it must have a function, which may
    /// be called in any context.
    #[cfg(not(under_c_core))]
    pub(super) unsafe fn start_data(
        &self,
        what: Data,
        regions: &mut [ffi::dm_io_region],
        buffer: &IoBuffer,
        bytes: Range<usize>,
        notify: ffi::dm_io_notify,
    ) -> Result {
        let opf = match what {
            Data::Read => READ_DATA,
            Data::Write => WRITE_DATA,
            Data::WriteStable => WRITE_DATA | FUA,
        };
        let mem = ffi::dm_io_memory {
            type_: ffi::DM_IO_VMA,
            offset: 0,
            ptr: buffer.at(&bytes),
        };
        // SAFETY: The caller vouches for the devices and the buffer, whose bounds were checked by slicing it.
        unsafe { self.submit(opf, mem, regions, notify) }
    }

    /// Writes zeroes to `extent`. They may remain in a volatile cache. Sleeps.
    ///
    /// Not by `WRITE_ZEROES`: some devices give back the space, and a record that is written there
    /// later might find none; many that offer it fail it, and the kernel's log shows an error.
    pub(super) fn zero(&self, device: &BlockDevice, extent: Extent) -> Result {
        // SAFETY: The borrows outlast the call, which is synchronous.
        unsafe { self.start_zero(device, extent, WAIT) }
    }

    /// Starts to do so.
    ///
    /// # Safety
    ///
    /// If it succeeds, `device` must stay open and `self` must live until the request is over,
    /// which is when the call returns or, with a function in `notify`, when that is called, in any
    /// context.
    pub(super) unsafe fn start_zero(
        &self,
        device: &BlockDevice,
        extent: Extent,
        notify: ffi::dm_io_notify,
    ) -> Result {
        let region = ffi::dm_io_region {
            bdev: device.as_ptr(),
            sector: extent.sector,
            count: extent.sectors,
        };
        let mem = ffi::dm_io_memory {
            type_: ffi::DM_IO_PAGE_LIST,
            offset: 0,
            ptr: self.zeroes.as_ptr().cast(),
        };
        // SAFETY: The caller vouches for the device and for `self`, in which the page list lives.
        // It has no end, so it is long enough for any region.
        unsafe { self.submit(WRITE, mem, &mut [region], notify) }
    }

    /// Submits a request, and waits for it if `notify` has no function.
    ///
    /// # Safety
    ///
    /// The devices of `regions`, one for a read, must be open, and `mem` must describe memory as large as each
    /// of them that is valid, and for a read exclusive, until the request is over: when the call returns or, with
    /// a function in `notify`, when that is called.
    unsafe fn submit(
        &self,
        opf: bindings::blk_opf_t,
        mem: ffi::dm_io_memory,
        regions: &mut [ffi::dm_io_region],
        notify: ffi::dm_io_notify,
    ) -> Result {
        let mut request = ffi::dm_io_request {
            bi_opf: opf,
            mem,
            notify,
            client: self.client.as_ptr(),
        };
        // SAFETY: The caller vouches for the regions and the memory. dm-io copies what it needs of
        // `request` and `regions` before it returns.
        to_result(unsafe {
            ffi::dm_io(
                &mut request,
                // CAST: A handful.
                regions.len() as c_uint,
                regions.as_mut_ptr(),
                ptr::null_mut(),
                ptr::null_mut(),
                // `IOPRIO_DEFAULT`: that of the submitting task.
                0,
            )
        })
    }
}

impl Drop for IoClient {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant the client is live, and nobody uses it any more: every
        // call borrows `self` until its I/O is done, or has its caller see to it.
        unsafe { ffi::dm_io_client_destroy(self.client.as_ptr()) }
    }
}

/// An endless list of one page of zeroes.
///
/// # Invariants
///
/// `list.page` is `page`, which is zeroed and never written, and `list.next` is `list` itself.
#[pin_data]
struct ZeroPages {
    page: Page,
    #[pin]
    list: Opaque<ffi::page_list>,
}

impl ZeroPages {
    fn new() -> Result<Pin<KBox<Self>>> {
        let page = Page::alloc_page(GFP_KERNEL | __GFP_ZERO)?;
        let raw = page.as_ptr();
        KBox::pin_init(
            pin_init!(Self {
                page,
                // INVARIANT: The page was allocated zeroed, and the list leads back to itself.
                list <- Opaque::ffi_init(|slot: *mut ffi::page_list| {
                    // SAFETY: `slot` is valid for writes.
                    unsafe { slot.write(ffi::page_list { next: slot, page: raw }) }
                }),
            }),
            GFP_KERNEL,
        )
    }

    fn as_ptr(&self) -> *mut ffi::page_list {
        self.list.get()
    }
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Holds the figures that ffi.rs and exception_store/c_core/ffi.rs declare C structures by to the
 * kernel's own headers. No code comes out of this file: where a kernel changed a structure or a
 * prototype, it fails to build.
 *
 * It also holds what the module! macro has no field for: the module's version,
 * which Kbuild reads from the file VERSION.
 */
#include <linux/blkdev.h>
#include <linux/build_bug.h>
#include <linux/device-mapper.h>
#include <linux/dm-io.h>
#include <linux/module.h>
#include <linux/uaccess.h>

MODULE_INFO(version, DMSP_VERSION);

#define AT(type, member, offset) static_assert(offsetof(type, member) == (offset))
#define SIZE(type, bytes) static_assert(sizeof(type) == (bytes))
#define FN(fn, ...) static_assert(__same_type(fn, __VA_ARGS__))

SIZE(sector_t, 8);
SIZE(blk_opf_t, 4);

SIZE(struct dm_dev, 48);
AT(struct dm_dev, bdev, 0);
AT(struct dm_dev, bdev_file, 8);
AT(struct dm_dev, name, 28);
static_assert(sizeof_field(struct dm_dev, name) == 16);

SIZE(struct dm_io_region, 24);
AT(struct dm_io_region, bdev, 0);
AT(struct dm_io_region, sector, 8);
AT(struct dm_io_region, count, 16);

SIZE(struct page_list, 16);
AT(struct page_list, next, 0);
AT(struct page_list, page, 8);

static_assert(DM_IO_PAGE_LIST == 0);
static_assert(DM_IO_VMA == 2);
SIZE(struct dm_io_request, 48);
AT(struct dm_io_request, bi_opf, 0);
AT(struct dm_io_request, mem.type, 8);
AT(struct dm_io_request, mem.offset, 12);
AT(struct dm_io_request, mem.ptr.vma, 16);
AT(struct dm_io_request, notify.fn, 24);
AT(struct dm_io_request, notify.context, 32);
AT(struct dm_io_request, client, 40);

SIZE(status_type_t, sizeof(unsigned int));
static_assert(STATUSTYPE_TABLE == 1);
static_assert(STATUSTYPE_IMA == 2);

FN(io_notify_fn, void (*)(unsigned long, unsigned long, void *));
FN(dm_io_client_create, struct dm_io_client *(void));
FN(dm_io_client_destroy, void (struct dm_io_client *));
FN(dm_io, int (struct dm_io_request *, unsigned int, struct dm_io_region *, unsigned long *,
	       unsigned long *, unsigned short));
FN(copy_from_kernel_nofault, long (void *, const void *, size_t));

#ifdef DM_EXCEPTION_STORE_H
#include DM_EXCEPTION_STORE_H
#include "methods.h"

SIZE(chunk_t, 8);

SIZE(struct dm_exception, 32);
AT(struct dm_exception, old_chunk, 16);
AT(struct dm_exception, new_chunk, 24);
static_assert(DM_CHUNK_NUMBER_BITS == 56);

SIZE(struct dm_exception_store, 48);
AT(struct dm_exception_store, type, 0);
AT(struct dm_exception_store, snap, 8);
AT(struct dm_exception_store, chunk_size, 16);
AT(struct dm_exception_store, chunk_mask, 20);
AT(struct dm_exception_store, chunk_shift, 24);
AT(struct dm_exception_store, context, 32);
AT(struct dm_exception_store, userspace_supports_overflow, 40);

SIZE(struct dm_exception_store_type, 112);
AT(struct dm_exception_store_type, name, 0);
AT(struct dm_exception_store_type, module, 8);
AT(struct dm_exception_store_type, ctr, 16);
AT(struct dm_exception_store_type, dtr, 24);
AT(struct dm_exception_store_type, read_metadata, 32);
AT(struct dm_exception_store_type, prepare_exception, 40);
AT(struct dm_exception_store_type, commit_exception, 48);
AT(struct dm_exception_store_type, prepare_merge, 56);
AT(struct dm_exception_store_type, commit_merge, 64);
AT(struct dm_exception_store_type, drop_snapshot, 72);
AT(struct dm_exception_store_type, status, 80);
AT(struct dm_exception_store_type, usage, 88);
AT(struct dm_exception_store_type, list, 96);

#define METHOD(method, ret, params) \
	FN(((struct dm_exception_store_type *)0)->method, ret (*)params);

DM_EXCEPTION_STORE_METHODS(METHOD)

FN(dm_snap_origin, struct dm_dev *(struct dm_snapshot *));
FN(dm_snap_cow, struct dm_dev *(struct dm_snapshot *));
FN(dm_exception_store_type_register, int (struct dm_exception_store_type *));
FN(dm_exception_store_type_unregister, int (struct dm_exception_store_type *));
#endif

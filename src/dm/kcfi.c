// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a kernel with CONFIG_CFI expects of the functions that C and Rust call each other by.
 *
 * Such a kernel lets an indirect call through only if the id of the called function's type is that
 * of the caller's pointer type. C's ids come from this file, which is only compiled to LLVM's
 * intermediate code: clang attaches to each function whose address is taken the id of its type.
 * scripts/check-kcfi compares them with those that rustc gave. The names say which:
 *
 *   TYPE__FUNCTION   the Rust function that C calls
 *   call__NAME       a function of C's that Rust calls
 *
 * and TYPE__FUNCTION__optional one that need not be there.
 */
#include <linux/device-mapper.h>
#include <linux/dm-io.h>
#include <linux/fs.h>
#include <linux/types.h>
#include "methods.h"

typedef sector_t chunk_t;
struct dm_exception_store;
struct dm_exception;

#define TYPE(name, ret, params)			\
	extern ret name params;			\
	void *const name##_used = name

#define METHOD(method, ret, params) TYPE(Adapter__##method, ret, params);

DM_EXCEPTION_STORE_METHODS(METHOD)

extern typeof(*(io_notify_fn)0) Request__over;
void *const Request__over_used = Request__over;

TYPE(files__open__optional, int, (struct inode *, struct file *));
TYPE(files__show__optional, int, (struct seq_file *, void *));
TYPE(files__read__optional, ssize_t, (struct file *, char __user *, size_t, loff_t *));
TYPE(files__lseek__optional, loff_t, (struct file *, loff_t, int));

TYPE(call__add_exception, int, (void *, chunk_t, chunk_t));
TYPE(call__commit_callback, void, (void *, int));

// SPDX-License-Identifier: GPL-2.0-only
/*
 * As kcfi.c, of the functions that C calls in dm-snapshot.ko.
 */
#include <linux/dm-io.h>
#include <linux/dm-kcopyd.h>
#include <linux/fs.h>
#include "shim.h"

#define TYPE(name, type)			\
	extern typeof(*(type)0) name;		\
	void *const name##_used = name

#define METHOD(method) TYPE(Adapter__##method, typeof(((struct dm_shim_ops *)0)->method))
/* that no target may have */
#define OPTIONAL(method)		\
	TYPE(Adapter__##method##__optional, typeof(((struct dm_shim_ops *)0)->method))

METHOD(ctr);
METHOD(dtr);
METHOD(map);
OPTIONAL(end_io);
OPTIONAL(presuspend);
OPTIONAL(postsuspend);
OPTIONAL(preresume);
OPTIONAL(resume);
OPTIONAL(status);
OPTIONAL(message);
OPTIONAL(iterate_devices);
OPTIONAL(io_hints);

TYPE(CopyOf__copied, dm_kcopyd_notify_fn);
TYPE(Transfer__over, io_notify_fn);

TYPE(files__open__optional, int (*)(struct inode *, struct file *));
TYPE(files__show__optional, int (*)(struct seq_file *, void *));
TYPE(files__read__optional, ssize_t (*)(struct file *, char __user *, size_t, loff_t *));
TYPE(files__lseek__optional, loff_t (*)(struct file *, loff_t, int));

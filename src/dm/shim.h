/* SPDX-License-Identifier: GPL-2.0-only */
#include <linux/device-mapper.h>

/*
 * A target's functions in Rust; those it does not have are NULL, except ctr, dtr and map. "target"
 * is what ctr left with dm_shim_set_private().
 */
struct dm_shim_ops {
	int (*ctr)(struct dm_target *ti, unsigned int argc, char **argv);
	void (*dtr)(struct dm_target *ti, void *target);
	int (*map)(void *target, struct bio *bio);
	int (*end_io)(void *target, struct bio *bio);
	void (*presuspend)(void *target);
	void (*postsuspend)(void *target);
	int (*preresume)(void *target);
	void (*resume)(struct dm_target *ti, void *target);
	void (*status)(void *target, unsigned int kind, char *result, unsigned int maxlen);
	int (*message)(void *target, unsigned int argc, char **argv, char *result,
		       unsigned int maxlen);
	int (*iterate_devices)(void *target, void *visit);
	void (*io_hints)(void *target, struct queue_limits *limits);
	/* Whether map does not sleep for a bio with REQ_NOWAIT. */
	bool takes_nowait;
};

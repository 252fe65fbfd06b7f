// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a target needs of C: the callbacks of struct target_type, whose prototypes only this
 * compiler knows for certain; struct dm_target, whose bit fields differ between kernels; and the
 * inline functions and macros of the block layer, of locks and of waiting. shim.rs beside this
 * file declares the other side.
 *
 * Everything here is a line or two: what to do is decided in Rust.
 */
#include <linux/blkdev.h>
#include <linux/delay.h>
#include <linux/device-mapper.h>
#include <linux/dm-kcopyd.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/wait.h>
#include "shim.h"

/*
 * The parameters, those of C's dm-snapshot under its names: module! knows none that can be read or
 * written while the module is loaded.
 */
static unsigned int snapshot_cow_threshold = 2048;
module_param_named(snapshot_cow_threshold, snapshot_cow_threshold, uint, 0644);
MODULE_PARM_DESC(snapshot_cow_threshold,
		 "Chunks of an origin that may be in the process of being copied at a time");

static struct dm_kcopyd_throttle snapshot_copy_throttle = { .throttle = 100 };
module_param_named(snapshot_copy_throttle, snapshot_copy_throttle.throttle, uint, 0644);
MODULE_PARM_DESC(snapshot_copy_throttle,
		 "Per cent of the time that copying may keep the devices busy");

static unsigned int snapshot_full_seconds = 10;
module_param_named(snapshot_full_seconds, snapshot_full_seconds, uint, 0644);
MODULE_PARM_DESC(snapshot_full_seconds,
		 "For how long the last 5 % of a COW device should last at least, 0 for as long as they do");

unsigned int dm_shim_full_seconds(void)
{
	return READ_ONCE(snapshot_full_seconds);
}

static bool snapshot_overflow_keep;
module_param_named(snapshot_overflow_keep, snapshot_overflow_keep, bool, 0644);
MODULE_PARM_DESC(snapshot_overflow_keep,
		 "Whether a snapshot that is activated is kept when its COW device is full: writes to the origin fail then");

bool dm_shim_overflow_keep(void)
{
	return READ_ONCE(snapshot_overflow_keep);
}

static bool snapshot_copy_ahead = true;
module_param_named(snapshot_copy_ahead, snapshot_copy_ahead, bool, 0644);
MODULE_PARM_DESC(snapshot_copy_ahead,
		 "Whether chunks are copied ahead of those who write to an origin in sequence");

bool dm_shim_copy_ahead(void)
{
	return READ_ONCE(snapshot_copy_ahead);
}

unsigned int dm_shim_cow_threshold(void)
{
	return READ_ONCE(snapshot_cow_threshold);
}

bool dm_shim_copy_is_throttled(void)
{
	return READ_ONCE(snapshot_copy_throttle.throttle) < 100;
}

struct dm_kcopyd_throttle *dm_shim_copy_throttle(void)
{
	return &snapshot_copy_throttle;
}

struct dm_shim_type {
	struct target_type type;
	const struct dm_shim_ops *ops;
};

static const struct dm_shim_ops *ops_of(struct dm_target *ti)
{
	return container_of(ti->type, struct dm_shim_type, type)->ops;
}

static int target_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	return ops_of(ti)->ctr(ti, argc, argv);
}

static void target_dtr(struct dm_target *ti)
{
	ops_of(ti)->dtr(ti, ti->private);
}

static int target_map(struct dm_target *ti, struct bio *bio)
{
	return ops_of(ti)->map(ti->private, bio);
}

static int target_end_io(struct dm_target *ti, struct bio *bio, blk_status_t *error)
{
	return ops_of(ti)->end_io(ti->private, bio);
}

static void target_presuspend(struct dm_target *ti)
{
	ops_of(ti)->presuspend(ti->private);
}

static void target_postsuspend(struct dm_target *ti)
{
	ops_of(ti)->postsuspend(ti->private);
}

static int target_preresume(struct dm_target *ti)
{
	return ops_of(ti)->preresume(ti->private);
}

static void target_resume(struct dm_target *ti)
{
	ops_of(ti)->resume(ti, ti->private);
}

static void target_status(struct dm_target *ti, status_type_t kind, unsigned int flags,
			  char *result, unsigned int maxlen)
{
	ops_of(ti)->status(ti->private, kind, result, maxlen);
}

static int target_message(struct dm_target *ti, unsigned int argc, char **argv, char *result,
			  unsigned int maxlen)
{
	return ops_of(ti)->message(ti->private, argc, argv, result, maxlen);
}

struct visit {
	struct dm_target *ti;
	iterate_devices_callout_fn fn;
	void *data;
};

static int target_iterate_devices(struct dm_target *ti, iterate_devices_callout_fn fn, void *data)
{
	struct visit visit = { .ti = ti, .fn = fn, .data = data };

	return ops_of(ti)->iterate_devices(ti->private, &visit);
}

int dm_shim_visit(void *context, struct dm_dev *dev, sector_t start, sector_t len)
{
	struct visit *visit = context;

	return visit->fn(visit->ti, dev, start, len, visit->data);
}

static void target_io_hints(struct dm_target *ti, struct queue_limits *limits)
{
	ops_of(ti)->io_hints(ti->private, limits);
}

struct dm_shim_type *dm_shim_register(const char *name, const unsigned int *version,
				      struct module *module, const struct dm_shim_ops *ops,
				      int *error)
{
	struct dm_shim_type *type = kzalloc(sizeof(*type), GFP_KERNEL);

	if (!type) {
		*error = -ENOMEM;
		return NULL;
	}
	type->ops = ops;
	type->type = (struct target_type) {
		.name = name,
		.version = { version[0], version[1], version[2] },
		.features = ops->takes_nowait ? DM_TARGET_NOWAIT : 0,
		.module = module,
		.ctr = target_ctr,
		.dtr = target_dtr,
		.map = target_map,
		.end_io = ops->end_io ? target_end_io : NULL,
		.presuspend = ops->presuspend ? target_presuspend : NULL,
		.postsuspend = ops->postsuspend ? target_postsuspend : NULL,
		.preresume = ops->preresume ? target_preresume : NULL,
		.resume = ops->resume ? target_resume : NULL,
		.status = ops->status ? target_status : NULL,
		.message = ops->message ? target_message : NULL,
		.iterate_devices = ops->iterate_devices ? target_iterate_devices : NULL,
		.io_hints = ops->io_hints ? target_io_hints : NULL,
	};
	*error = dm_register_target(&type->type);
	if (*error) {
		kfree(type);
		return NULL;
	}
	return type;
}

void dm_shim_unregister(struct dm_shim_type *type)
{
	dm_unregister_target(&type->type);
	kfree(type);
}

/* struct dm_target */

void dm_shim_set_private(struct dm_target *ti, void *target, unsigned int per_bio_bytes)
{
	ti->private = target;
	ti->per_io_data_size = per_bio_bytes;
}

void dm_shim_set_error(struct dm_target *ti, const char *error)
{
	ti->error = (char *)error;
}

sector_t dm_shim_begin(const struct dm_target *ti)
{
	return ti->begin;
}

sector_t dm_shim_len(const struct dm_target *ti)
{
	return ti->len;
}

sector_t dm_shim_table_size(const struct dm_target *ti)
{
	return dm_table_get_size(ti->table);
}

bool dm_shim_table_writable(const struct dm_target *ti)
{
	return dm_table_get_mode(ti->table) & BLK_OPEN_WRITE;
}

void dm_shim_table_event(struct dm_target *ti)
{
	dm_table_event(ti->table);
}

bool dm_shim_suspended(struct dm_target *ti)
{
	return dm_suspended(ti);
}

void dm_shim_set_flush_supported(struct dm_target *ti)
{
	ti->flush_supported = true;
}

void dm_shim_set_num_flush_bios(struct dm_target *ti, unsigned int count)
{
	ti->num_flush_bios = count;
}

void dm_shim_set_num_discard_bios(struct dm_target *ti, unsigned int count)
{
	ti->num_discard_bios = count;
}

/* Bios are cut by this field while it is set, as dm-snapshot always did in resume. */
void dm_shim_set_max_io_len(struct dm_target *ti, u32 sectors)
{
	WRITE_ONCE(ti->max_io_len, sectors);
}

/* The number of the device that a table line names, without opening it. */
int dm_shim_device_number(const char *path, u32 *number)
{
	dev_t dev;
	int r = dm_devt_from_path(path, &dev);

	if (!r)
		*number = dev;
	return r;
}

int dm_shim_get_device(struct dm_target *ti, const char *path, bool write, struct dm_dev **dev)
{
	return dm_get_device(ti, path, BLK_OPEN_READ | (write ? BLK_OPEN_WRITE : 0), dev);
}

void dm_shim_put_device(struct dm_target *ti, struct dm_dev *dev)
{
	dm_put_device(ti, dev);
}

/* struct block_device */

int dm_shim_bdev_flush(struct block_device *bdev)
{
	return blkdev_issue_flush(bdev);
}

bool dm_shim_bdev_has_cache(struct block_device *bdev)
{
	return bdev_write_cache(bdev);
}

bool dm_shim_bdev_has_fua(struct block_device *bdev)
{
	return bdev_fua(bdev);
}

/* struct bio */

static_assert(DM_MAPIO_SUBMITTED == 0);
static_assert(DM_MAPIO_REMAPPED == 1);
static_assert(DM_MAPIO_KILL == 4);
static_assert(DM_ENDIO_DONE == 0);
static_assert(DM_ENDIO_INCOMPLETE == 1);
static_assert(STATUSTYPE_INFO == 0);
static_assert(DM_KCOPYD_MAX_REGIONS == 8);

void dm_shim_bio_set_dev(struct bio *bio, struct block_device *bdev)
{
	bio_set_dev(bio, bdev);
}

bool dm_shim_bio_is_write(const struct bio *bio)
{
	return bio_data_dir(bio) == WRITE;
}

unsigned int dm_shim_bio_target_nr(const struct bio *bio)
{
	return dm_bio_get_target_bio_nr(bio);
}

void dm_shim_bio_accept_partial(struct bio *bio, unsigned int sectors)
{
	dm_accept_partial_bio(bio, sectors);
}

void *dm_shim_bio_data(struct bio *bio, size_t bytes)
{
	return dm_per_bio_data(bio, bytes);
}

int dm_shim_bio_error(const struct bio *bio)
{
	return blk_status_to_errno(bio->bi_status);
}

/* The data of a write; there must be room for all of it. */
void dm_shim_bio_copy_data(struct bio *bio, char *to)
{
	struct bvec_iter iter;
	struct bio_vec vec;

	bio_for_each_segment(vec, bio, iter) {
		memcpy_from_bvec(to, &vec);
		to += vec.bv_len;
	}
}

void dm_shim_bio_submit(struct bio *bio)
{
	submit_bio_noacct(bio);
}

/* An error that the bio has already stays. */
void dm_shim_bio_end(struct bio *bio, int error)
{
	if (error && !bio->bi_status)
		bio->bi_status = errno_to_blk_status(error);
	bio_endio(bio);
}

/* kcopyd */

struct dm_kcopyd_client *dm_shim_kcopyd_create(struct dm_kcopyd_throttle *throttle)
{
	return dm_kcopyd_client_create(throttle);
}

void dm_shim_kcopyd_destroy(struct dm_kcopyd_client *client)
{
	dm_kcopyd_client_destroy(client);
}

void dm_shim_kcopyd_copy(struct dm_kcopyd_client *client, struct dm_io_region *from,
			 unsigned int count, struct dm_io_region *to, dm_kcopyd_notify_fn done,
			 void *context)
{
	/*
	 * Without this flag kcopyd gives up what is left of a copy when a write fails, and
	 * reports the destination that failed only: the others would count as written.
	 */
	dm_kcopyd_copy(client, from, count, to, BIT(DM_KCOPYD_IGNORE_ERROR), done, context);
}

/* Locks and waiting */

unsigned long dm_shim_spin_lock_irqsave(spinlock_t *lock)
{
	unsigned long flags;

	spin_lock_irqsave(lock, flags);
	return flags;
}

bool dm_shim_spin_trylock_irqsave(spinlock_t *lock, unsigned long *flags)
{
	return spin_trylock_irqsave(lock, *flags);
}

void dm_shim_spin_unlock_irqrestore(spinlock_t *lock, unsigned long flags)
{
	spin_unlock_irqrestore(lock, flags);
}

void dm_shim_wait_event(wait_queue_head_t *queue, bool (*met)(void *context), void *context)
{
	wait_event(*queue, met(context));
}

void dm_shim_wake_up_all(wait_queue_head_t *queue)
{
	wake_up_all(queue);
}

void dm_shim_yield(void)
{
	yield();
}

void dm_shim_cond_resched(void)
{
	cond_resched();
}

void dm_shim_sleep_ms(unsigned int ms)
{
	msleep(ms);
}

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The methods of struct dm_exception_store_type, which c_core/ffi.rs declares as well: abi.c holds
 * them to the private header where that is at hand, kcfi.c makes type ids of them.
 */
#define DM_EXCEPTION_STORE_METHODS(METHOD)							\
	METHOD(ctr, int, (struct dm_exception_store *, char *))					\
	METHOD(dtr, void, (struct dm_exception_store *))					\
	METHOD(read_metadata, int, (struct dm_exception_store *,				\
				    int (*)(void *, chunk_t, chunk_t), void *))			\
	METHOD(prepare_exception, int, (struct dm_exception_store *, struct dm_exception *))	\
	METHOD(commit_exception, void, (struct dm_exception_store *, struct dm_exception *, int,	\
					void (*)(void *, int), void *))				\
	METHOD(prepare_merge, int, (struct dm_exception_store *, chunk_t *, chunk_t *))	\
	METHOD(commit_merge, int, (struct dm_exception_store *, int))				\
	METHOD(drop_snapshot, void, (struct dm_exception_store *))				\
	METHOD(status, unsigned int, (struct dm_exception_store *, status_type_t, char *,	\
				      unsigned int))						\
	METHOD(usage, void, (struct dm_exception_store *, sector_t *, sector_t *, sector_t *))

// SPDX-License-Identifier: GPL-2.0-only
/*
 * What noio.rs needs of C, in whichever module: inline functions.
 */
#include <linux/sched/mm.h>

unsigned int dm_noio_save(void)
{
	return memalloc_noio_save();
}

void dm_noio_restore(unsigned int flags)
{
	memalloc_noio_restore(flags);
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * The events of trace.h as functions, for trace.rs. An event that nobody listens to is a jump that
 * the kernel leaves out while it runs. The kernel crate's declare_trace! knows events of the kernel's
 * own headers only.
 */
#define CREATE_TRACE_POINTS
#include "trace.h"

void dm_trace_exception_start(dev_t origin, dev_t cow, u64 old, u64 new, u64 chunks, u64 sectors)
{
	trace_snap_exception_start(origin, cow, old, new, chunks, sectors);
}

void dm_trace_copied(dev_t origin, dev_t cow, u64 old, u64 new, u64 chunks, bool good)
{
	trace_snap_copied(origin, cow, old, new, chunks, good);
}

void dm_trace_durable(dev_t origin, dev_t cow, u64 old, u64 new, u64 chunks, bool good)
{
	trace_snap_durable(origin, cow, old, new, chunks, good);
}

void dm_trace_merge_batch(dev_t origin, dev_t cow, u32 exceptions, bool good)
{
	trace_snap_merge_batch(origin, cow, exceptions, good);
}

void dm_trace_overflow(dev_t origin, dev_t cow, u64 sectors, bool kept)
{
	trace_snap_overflow(origin, cow, sectors, kept);
}

void dm_trace_drop(dev_t origin, dev_t cow, bool full)
{
	trace_snap_drop(origin, cow, full);
}

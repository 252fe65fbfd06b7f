/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The events of the targets, below events/dm_snapshot/ of tracefs. Devices are major:minor; "old"
 * numbers chunks of the origin, "new" those of the COW device. Names of events are the whole kernel's.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM dm_snapshot

#if !defined(DM_SNAPSHOT_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define DM_SNAPSHOT_TRACE_H

#include <linux/types.h>
#include <linux/kdev_t.h>
#include <linux/tracepoint.h>

/* Chunks are to become exceptions; "sectors" of the origin are copied for that. */
TRACE_EVENT(snap_exception_start,
	TP_PROTO(dev_t origin, dev_t cow, u64 old, u64 new, u64 chunks, u64 sectors),
	TP_ARGS(origin, cow, old, new, chunks, sectors),
	TP_STRUCT__entry(
		__field(dev_t, origin)
		__field(dev_t, cow)
		__field(u64, old)
		__field(u64, new)
		__field(u64, chunks)
		__field(u64, sectors)
	),
	TP_fast_assign(
		__entry->origin = origin;
		__entry->cow = cow;
		__entry->old = old;
		__entry->new = new;
		__entry->chunks = chunks;
		__entry->sectors = sectors;
	),
	TP_printk("origin=%u:%u cow=%u:%u old=%llu new=%llu chunks=%llu sectors=%llu",
		  MAJOR(__entry->origin), MINOR(__entry->origin),
		  MAJOR(__entry->cow), MINOR(__entry->cow),
		  __entry->old, __entry->new, __entry->chunks, __entry->sectors)
);

DECLARE_EVENT_CLASS(snap_exceptions,
	TP_PROTO(dev_t origin, dev_t cow, u64 old, u64 new, u64 chunks, bool good),
	TP_ARGS(origin, cow, old, new, chunks, good),
	TP_STRUCT__entry(
		__field(dev_t, origin)
		__field(dev_t, cow)
		__field(u64, old)
		__field(u64, new)
		__field(u64, chunks)
		__field(bool, good)
	),
	TP_fast_assign(
		__entry->origin = origin;
		__entry->cow = cow;
		__entry->old = old;
		__entry->new = new;
		__entry->chunks = chunks;
		__entry->good = good;
	),
	TP_printk("origin=%u:%u cow=%u:%u old=%llu new=%llu chunks=%llu good=%d",
		  MAJOR(__entry->origin), MINOR(__entry->origin),
		  MAJOR(__entry->cow), MINOR(__entry->cow),
		  __entry->old, __entry->new, __entry->chunks, __entry->good)
);

/* They are on the COW device, or could not be copied. */
DEFINE_EVENT(snap_exceptions, snap_copied,
	TP_PROTO(dev_t origin, dev_t cow, u64 old, u64 new, u64 chunks, bool good),
	TP_ARGS(origin, cow, old, new, chunks, good)
);

/* Their records are on stable storage, or never will be. */
DEFINE_EVENT(snap_exceptions, snap_durable,
	TP_PROTO(dev_t origin, dev_t cow, u64 old, u64 new, u64 chunks, bool good),
	TP_ARGS(origin, cow, old, new, chunks, good)
);

/* A merge has cleared the records of so many exceptions, or could not. */
TRACE_EVENT(snap_merge_batch,
	TP_PROTO(dev_t origin, dev_t cow, u32 exceptions, bool good),
	TP_ARGS(origin, cow, exceptions, good),
	TP_STRUCT__entry(
		__field(dev_t, origin)
		__field(dev_t, cow)
		__field(u32, exceptions)
		__field(bool, good)
	),
	TP_fast_assign(
		__entry->origin = origin;
		__entry->cow = cow;
		__entry->exceptions = exceptions;
		__entry->good = good;
	),
	TP_printk("origin=%u:%u cow=%u:%u exceptions=%u good=%d",
		  MAJOR(__entry->origin), MINOR(__entry->origin),
		  MAJOR(__entry->cow), MINOR(__entry->cow),
		  __entry->exceptions, __entry->good)
);

/* The COW device is full; the snapshot is kept, or becomes invalid. */
TRACE_EVENT(snap_overflow,
	TP_PROTO(dev_t origin, dev_t cow, u64 sectors, bool kept),
	TP_ARGS(origin, cow, sectors, kept),
	TP_STRUCT__entry(
		__field(dev_t, origin)
		__field(dev_t, cow)
		__field(u64, sectors)
		__field(bool, kept)
	),
	TP_fast_assign(
		__entry->origin = origin;
		__entry->cow = cow;
		__entry->sectors = sectors;
		__entry->kept = kept;
	),
	TP_printk("origin=%u:%u cow=%u:%u sectors=%llu kept=%d",
		  MAJOR(__entry->origin), MINOR(__entry->origin),
		  MAJOR(__entry->cow), MINOR(__entry->cow),
		  __entry->sectors, __entry->kept)
);

/* The snapshot is invalid from now on: it is full, or I/O failed. */
TRACE_EVENT(snap_drop,
	TP_PROTO(dev_t origin, dev_t cow, bool full),
	TP_ARGS(origin, cow, full),
	TP_STRUCT__entry(
		__field(dev_t, origin)
		__field(dev_t, cow)
		__field(bool, full)
	),
	TP_fast_assign(
		__entry->origin = origin;
		__entry->cow = cow;
		__entry->full = full;
	),
	TP_printk("origin=%u:%u cow=%u:%u full=%d",
		  MAJOR(__entry->origin), MINOR(__entry->origin),
		  MAJOR(__entry->cow), MINOR(__entry->cow), __entry->full)
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>

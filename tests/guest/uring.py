# SPDX-License-Identifier: GPL-2.0-only
"""io_uring, which asks for a request without waiting first, and hands it to a thread if that fails."""

import ctypes
import mmap
import os
import struct

SETUP, ENTER = 425, 426
GETEVENTS = 1
READ, WRITE = 22, 23
SQ_RING, CQ_RING, SQES = 0, 0x8000000, 0x10000000
PARAMS, SQ_OFFSETS, CQ_OFFSETS = 120, 40, 80  # struct io_uring_params, and where its struct io_*ring_offsets are
SQE = struct.Struct("=B B H i Q Q I I Q 24x")
CQE = struct.Struct("=Q i I")
WORD = struct.Struct("=I")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _syscall(number, *arguments):
    result = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


class Ring:
    """Up to `depth` requests of `size` bytes at a time."""

    def __init__(self, depth, size):
        self.depth, self.size = depth, size
        params = bytearray(PARAMS)
        self.fd = _syscall(SETUP, ctypes.c_uint(depth), (ctypes.c_char * PARAMS).from_buffer(params))
        entries, cq_entries = struct.unpack_from("=2I", params)
        _, self.sq_tail, _, _, _, _, self.array = struct.unpack_from("=7I", params, SQ_OFFSETS)
        self.cq_head, self.cq_tail, self.cq_mask, _, _, self.cqes = struct.unpack_from("=6I", params, CQ_OFFSETS)
        self.sq = mmap.mmap(self.fd, self.array + entries * WORD.size, offset=SQ_RING)
        self.cq = mmap.mmap(self.fd, self.cqes + cq_entries * CQE.size, offset=CQ_RING)
        self.sqes = mmap.mmap(self.fd, entries * SQE.size, offset=SQES)
        self.entries = entries
        self.buffer = mmap.mmap(-1, depth * size)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.buffer))

    def run(self, path, operation, offsets):
        """Reads or writes blocks of a device at the same time; returns the results in this order."""
        fd = os.open(path, os.O_RDWR | os.O_DIRECT)
        try:
            return self._run(fd, operation, offsets)
        finally:
            os.close(fd)

    def _run(self, fd, operation, offsets):
        (tail,) = WORD.unpack_from(self.sq, self.sq_tail)
        for n, offset in enumerate(offsets):
            place = (tail + n) % self.entries
            SQE.pack_into(self.sqes, place * SQE.size, operation, 0, 0, fd, offset, self.address + n * self.size,
                          self.size, 0, n)
            WORD.pack_into(self.sq, self.array + place * WORD.size, place)
        count = len(offsets)
        WORD.pack_into(self.sq, self.sq_tail, tail + count)
        submitted = _syscall(ENTER, ctypes.c_uint(self.fd), ctypes.c_uint(count), ctypes.c_uint(count),
                             ctypes.c_uint(GETEVENTS), None, ctypes.c_size_t(0))
        assert submitted == count
        (head,), (end,) = WORD.unpack_from(self.cq, self.cq_head), WORD.unpack_from(self.cq, self.cq_tail)
        (mask,) = WORD.unpack_from(self.cq, self.cq_mask)
        assert end - head == count
        results = [None] * count
        for at in range(head, end):
            number, result, _ = CQE.unpack_from(self.cq, self.cqes + (at & mask) * CQE.size)
            results[number] = result
        WORD.pack_into(self.cq, self.cq_head, end)
        return results

    def close(self):
        os.close(self.fd)

# SPDX-License-Identifier: GPL-2.0-only
"""A disk that a thread in the guest serves to the kernel's nbd driver: it remembers what it was told, in the order in
which it was told, and fails to order.

It is a disk with a volatile write cache: a write is safe when a flush that came after its reply was replied to, or,
with FUA, when it was replied to itself. tests/vm/crash/replay.py makes of that what a crash could leave.

Why not dm-log-writes: it logs one device. Two of them, under origin and COW, know no order between their logs, and with
both devices on one of them a flush of either would be a flush of both. Here all disks of a test share one Log.

    log = nbd.Log()
    cow = nbd.Disk(32 << 20, log=log)
    cow.fail("write", 3)              # the third write from now on fails, once
    cow.fail("flush", 1, times=None)  # all flushes fail from now on
    cow.counts["write"]               # writes that came so far
    cow.mend()

Everything else is as with disks.Disk. A disk is served by a thread of its own, so that the main thread may wait in the
kernel for what it does.
"""

import collections
import fcntl
import mmap
import os
import select
import socket
import struct
import subprocess
import threading
import time

import disks

DEVICES = 16
SET_SOCK, SET_BLKSIZE, DO_IT, CLEAR_SOCK, SET_SIZE_BLOCKS = (0xab00 + n for n in (0, 1, 3, 4, 7))
DISCONNECT, SET_FLAGS = 0xab08, 0xab0a
HAS_FLAGS, SEND_FLUSH, SEND_FUA, SEND_TRIM, SEND_WRITE_ZEROES = (1 << n for n in (0, 2, 3, 5, 6))
REQUEST, REPLY = struct.Struct(">II8sQI"), struct.Struct(">II8s")
REQUEST_MAGIC, REPLY_MAGIC = 0x25609513, 0x67446698
KINDS = {0: "read", 1: "write", 3: "flush", 4: "trim", 6: "zeroes"}
DISCONNECTED = 2
FUA = 1 << 16
EIO = 5
START_SECONDS = 60


class Op:
    """A request. `arrived` and `replied` are places in the order of the log; `replied` is None until it is."""

    __slots__ = ("disk", "kind", "offset", "length", "data", "fua", "failed", "arrived", "replied", "handle")

    def __init__(self, disk, kind, offset, length, data, fua, handle):
        self.disk, self.kind, self.offset, self.length = disk, kind, offset, length
        self.data, self.fua, self.handle = data, fua, handle
        self.failed, self.arrived, self.replied = False, None, None

    def __repr__(self):
        return (f"{self.disk.name}: {self.kind}{' FUA' if self.fua else ''} of {self.length} at {self.offset}, "
                f"{self.arrived} to {self.replied}{', failed' if self.failed else ''}")


class Log:
    """What reached the disks that share it, reads aside, and when: one order for all of them."""

    def __init__(self):
        self.lock = threading.Lock()
        self.ops = []
        self.now = 0

    def tick(self):
        self.now += 1
        return self.now

    def mark(self):
        """A moment in that order: after all that was replied to before, and before all that comes."""
        with self.lock:
            return self.tick()


class Disk:
    """A block device of zeroes. `linger`: seconds for which requests wait for more, to be under way together; without
    any, what is there at once is. `cache`: it has a volatile one; `fua`: and it can write past that."""

    used = set()

    def __init__(self, size, block=512, name="disk", log=None, linger=0, cache=True, fua=True):
        if not os.path.exists("/sys/module/nbd"):
            subprocess.run(["modprobe", "nbd", f"nbds_max={DEVICES}", "max_part=0"], check=True)
        self.size, self.sectors, self.name, self.log, self.linger = size, size // 512, name, log or Log(), linger
        self.recording = log is not None
        self.counts = collections.Counter()
        self.faults = {}
        self.index = min(set(range(DEVICES)) - Disk.used)
        Disk.used.add(self.index)
        os.makedirs(disks.DIRECTORY, exist_ok=True)
        self.file = f"{disks.DIRECTORY}/nbd{self.index}"
        with open(self.file, "w+b") as file:
            file.truncate(size)
            self.memory = mmap.mmap(file.fileno(), size)
        self.view = memoryview(self.memory)
        self.path = f"/dev/nbd{self.index}"
        self.fd = os.open(self.path, os.O_RDWR)
        device = os.fstat(self.fd).st_rdev
        self.number = f"{os.major(device)}:{os.minor(device)}"
        ours, self.kernels = socket.socketpair()
        self.socket = ours
        fcntl.ioctl(self.fd, SET_SOCK, self.kernels.fileno())
        fcntl.ioctl(self.fd, SET_BLKSIZE, block)
        # in bytes it would have to be less than 2 GiB for fcntl.ioctl
        fcntl.ioctl(self.fd, SET_SIZE_BLOCKS, size // block)
        flags = HAS_FLAGS | SEND_TRIM | SEND_WRITE_ZEROES
        if cache:
            flags |= SEND_FLUSH | (SEND_FUA if fua else 0)
        fcntl.ioctl(self.fd, SET_FLAGS, flags)
        self.threads = [threading.Thread(target=self._serve, daemon=True),
                        threading.Thread(target=fcntl.ioctl, args=(self.fd, DO_IT), daemon=True)]
        for thread in self.threads:
            thread.start()
        self._wait_ready()

    def _wait_ready(self):
        deadline = time.monotonic() + START_SECONDS
        while True:
            with open(f"/sys/block/nbd{self.index}/size") as file:
                if int(file.read()) == self.sectors:
                    return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.path} did not start; what does the kernel's log say?")
            time.sleep(0.001)

    # what a test does to it

    def fail(self, kind, nth=1, times=1):
        """The nth `kind` (read, write, flush, zeroes, trim) from now on fails, and those after it, `times` in all;
        None: for ever. Nothing of a write that failed is kept."""
        first = self.counts[kind] + nth
        self.faults[kind] = (first, None if times is None else first + times)

    def mend(self):
        self.faults.clear()

    def flush(self):
        """Forgets what the block device's page cache holds."""
        fcntl.ioctl(self.fd, disks.BLKFLSBUF, 0)

    def read(self, offset=0, size=None):
        return bytes(self.view[offset:self.size if size is None else offset + size])

    def write(self, offset, data):
        """Changes the bytes behind the kernel's back, and the log's."""
        self.view[offset:offset + len(data)] = data
        self.flush()

    def close(self):
        fcntl.ioctl(self.fd, DISCONNECT)
        for thread in self.threads:
            thread.join()
        fcntl.ioctl(self.fd, CLEAR_SOCK)
        os.close(self.fd)
        self.kernels.close()
        self.view.release()
        self.memory.close()
        os.unlink(self.file)
        Disk.used.remove(self.index)

    # the thread that serves it

    def _receive(self, size):
        data = bytearray(size)
        view = memoryview(data)
        while view:
            got = self.socket.recv_into(view)
            if not got:
                return None
            view = view[got:]
        return data

    def _request(self):
        """The next request, noted; None when there will be no more."""
        header = self._receive(REQUEST.size)
        if header is None:
            return None
        magic, kind, handle, offset, length = REQUEST.unpack(header)
        assert magic == REQUEST_MAGIC
        if kind & 0xffff == DISCONNECTED:
            return None
        kind, flags = KINDS[kind & 0xffff], kind & ~0xffff
        data = self._receive(length) if kind == "write" else None
        op = Op(self, kind, offset, length, data, bool(flags & FUA), handle)
        with self.log.lock:
            op.arrived = self.log.tick()
            self.counts[kind] += 1
            first, end = self.faults.get(kind, (None, None))
            op.failed = first is not None and first <= self.counts[kind] and (end is None or self.counts[kind] < end)
            if not op.failed:
                self._do(op)
            if self.recording and kind != "read":
                self.log.ops.append(op)
        return op

    def _do(self, op):
        end = op.offset + op.length
        if op.kind == "write":
            self.view[op.offset:end] = op.data
        elif op.kind in ("zeroes", "trim"):
            # whole pages are given back
            first, last = -(-op.offset // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
            if first < last:
                self.memory.madvise(mmap.MADV_REMOVE, first, last - first)
                self.view[op.offset:first] = bytes(first - op.offset)
                self.view[last:end] = bytes(end - last)
            else:
                self.view[op.offset:end] = bytes(op.length)

    def _reply(self, op):
        with self.log.lock:
            op.replied = self.log.tick()
        message = REPLY.pack(REPLY_MAGIC, EIO if op.failed else 0, op.handle)
        if op.kind == "read" and not op.failed:
            message += self.view[op.offset:op.offset + op.length]
        self.socket.sendall(message)

    def _more(self, poll):
        return bool(poll.poll(self.linger * 1000))

    def _serve(self):
        """What came together is under way together: a flush does not cover a write that was not replied to when it
        came."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        alive = True
        while alive:
            together = []
            while alive and (not together or self._more(poll)):
                op = self._request()
                if op is None:
                    alive = False
                else:
                    together.append(op)
            for op in together:
                self._reply(op)
        self.socket.close()

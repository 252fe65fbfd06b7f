# SPDX-License-Identifier: GPL-2.0-only
"""Workloads on a file system on an origin with a fresh snapshot: what people have there."""

import os
import random
import sqlite3
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import fio
from stores import ThinPool, snapshot

FS_MIB, FILE_MIB = 512, 64
MOUNT = Path("/tmp/bench-fs")
MAKE = {"ext4": ["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"], "xfs": ["mkfs.xfs", "-q", "-f"]}
ROWS, ROW_BYTES = 20000, 1000


@contextmanager
def _mounted(path):
    MOUNT.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "noatime", path, MOUNT], check=True)
    try:
        yield MOUNT
    finally:
        subprocess.run(["umount", MOUNT], check=True)


def _database(directory):
    connection = sqlite3.connect(directory / "database")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _prepare(kind):
    """Makes a file system with the file and the database that are written later: what is not there shares nothing with
    a snapshot."""
    def prepare(path):
        subprocess.run([*MAKE[kind], path], check=True, stdout=subprocess.DEVNULL)
        with _mounted(path) as directory:
            with open(directory / "file", "wb") as file:
                for _ in range(FILE_MIB):
                    file.write(os.urandom(1 << 20))
            connection = _database(directory)
            connection.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, value BLOB)")
            connection.executemany("INSERT INTO rows VALUES (?, ?)",
                                   ((n, os.urandom(ROW_BYTES)) for n in range(ROWS)))
            connection.commit()
            connection.close()
    return prepare


@contextmanager
def _volume(machine, case, store, prepare):
    """The path of a volume that was prepared, and has a snapshot of `store` since."""
    if store == "thin":
        _, pool = machine.devices("fs-thin", [64, 2 * FS_MIB + 64], case.device,
                                  prepare=lambda devices: ThinPool(*devices, FS_MIB, ThinPool.BLOCK_KIB))
        with pool.snapshot(prepare) as volume:
            yield volume.path
        return
    (origin, cow), _ = machine.devices("fs", [FS_MIB, FS_MIB], case.device)
    prepare(origin.path)
    if store == "raw":
        yield origin.path
        return
    with snapshot(store, origin, [cow], case.chunk_kib) as snap:
        yield snap.origin.path


def _write(directory, case):
    """fio writes to a file, and asks for it to be safe after every 16th write."""
    return {"iops": fio.synced(directory / "file", FILE_MIB, int(case.size * case.seconds)).iops}


def _transact(directory, case):
    """SQLite: each transaction updates ten rows."""
    rng, connection = random.Random(1), _database(directory)
    count, began = int(case.size * case.seconds) // 20, time.monotonic()
    for _ in range(count):
        for _ in range(10):
            connection.execute("UPDATE rows SET value = ? WHERE number = ?", (rng.randbytes(ROW_BYTES), rng.randrange(ROWS)))
        connection.commit()
    took = time.monotonic() - began
    connection.close()
    return {"iops": count / took}


def run(machine, case, store):
    """`fs-ext4`, `fs-xfs`: writes that are synced; `fs-sqlite`: transactions on ext4."""
    kind = case.workload.removeprefix("fs-")
    act, kind = (_transact, "ext4") if kind == "sqlite" else (_write, kind)
    with _volume(machine, case, store, _prepare(kind)) as path, _mounted(path) as directory:
        return act(directory, case)

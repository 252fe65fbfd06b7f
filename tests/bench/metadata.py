# SPDX-License-Identifier: GPL-2.0-only
"""Makes the metadata of a snapshot with many exceptions, without making the exceptions."""

import random
import struct
import sys
from array import array

from devices import sync


def write(path, chunk_kib, exceptions, origin_chunks, scattered):
    """The header and the areas; the data is what the device has there."""
    chunk = chunk_kib * 1024
    per_area = chunk // 16
    if scattered:
        # one from each part of the origin: a sample of ten million is too much for the guest's memory
        rng, part = random.Random(exceptions), origin_chunks // exceptions
        old = array("Q", (n * part + int(rng.random() * part) for n in range(exceptions)))
        rng.shuffle(old)
    else:
        old = array("Q", range(exceptions))
    assert sys.byteorder == "little"
    with open(path, "rb+", buffering=0) as file:
        for area in range(exceptions // per_area + 1):
            here = old[area * per_area:(area + 1) * per_area]
            place = 1 + area * (per_area + 1)
            records = array("Q", bytes(chunk))
            records[0:2 * len(here):2] = here
            records[1:2 * len(here):2] = array("Q", range(place + 1, place + 1 + len(here)))
            file.seek(place * chunk)
            file.write(records)
        file.seek(0)
        file.write(struct.pack("<4s3I", b"SnAp", 1, 1, chunk_kib * 2).ljust(4096, b"\0"))
    sync(path)


def sectors(chunk_kib, exceptions):
    """How large a COW device must be for that many."""
    per_area = chunk_kib * 1024 // 16
    chunks = 2 + exceptions + exceptions // per_area + 2
    return chunks * chunk_kib * 2

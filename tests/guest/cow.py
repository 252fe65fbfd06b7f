# SPDX-License-Identifier: GPL-2.0-only
"""The on-disk format of a COW device, once more and independently: to read what a store wrote, and to make images."""

import struct

SECTOR = 512
MAGIC = 0x70416e53
HEADER = struct.Struct("<4I")
RECORD = struct.Struct("<QQ")


class Layout:
    def __init__(self, chunk_sectors):
        self.sectors = chunk_sectors
        self.bytes = chunk_sectors * SECTOR
        self.per_area = self.bytes // RECORD.size

    def area_chunk(self, area):
        return 1 + area * (self.per_area + 1)

    def is_metadata(self, chunk):
        return chunk == 0 or chunk % (self.per_area + 1) == 1

    def data_chunks(self, count):
        """The first `count` chunks a store hands out."""
        chunks, chunk = [], 2
        while len(chunks) < count:
            if not self.is_metadata(chunk):
                chunks.append(chunk)
            chunk += 1
        return chunks

    def record_byte(self, record):
        area, index = divmod(record, self.per_area)
        return self.area_chunk(area) * self.bytes + index * RECORD.size

    def usage(self, records):
        """(allocated, metadata) sectors in the status after `records` exceptions, all of them allocated in order."""
        following = 2 + records + records // self.per_area
        areas = records // self.per_area + 1
        return following * self.sectors, (areas + 1) * self.sectors


class Cow:
    """Reads a COW device's bytes."""

    def __init__(self, data):
        self.data = data
        self.magic, self.valid, self.version, self.sectors = HEADER.unpack_from(data)
        self.layout = Layout(self.sectors) if self.sectors else None

    def area(self, area):
        layout = self.layout
        start = layout.area_chunk(area) * layout.bytes
        return self.data[start:start + layout.bytes]

    def records(self):
        """All (old, new) up to the end of the list."""
        found = []
        area = 0
        while True:
            content = self.area(area)
            assert len(content) == self.layout.bytes, f"the list goes on in area {area}, beyond the device"
            for old, new in RECORD.iter_unpack(content):
                if new == 0:
                    return found
                found.append((old, new))
            area += 1

    def chunk(self, chunk):
        return self.data[chunk * self.layout.bytes:(chunk + 1) * self.layout.bytes]

    def check(self):
        """Asserts all that must hold of what a store leaves, and returns the records."""
        assert self.magic == MAGIC and self.version == 1
        assert self.valid in (0, 1)
        records = self.records()
        news = [new for _, new in records]
        olds = [old for old, _ in records]
        assert len(set(news)) == len(news), "a new chunk is used twice"
        assert len(set(olds)) == len(olds), "an old chunk is there twice"
        assert not any(self.layout.is_metadata(new) for new in news), "a metadata chunk was handed out"
        last, used = divmod(len(records), self.layout.per_area)
        rest = self.area(last)[used * RECORD.size:]
        assert not any(rest), f"area {last} is not zero after its {used} records"
        return records


class Image:
    """Makes a COW device's bytes."""

    def __init__(self, chunk_sectors, size, fill=0):
        self.layout = Layout(chunk_sectors)
        self.data = bytearray([fill]) * size
        self.data[:SECTOR] = bytes(SECTOR)
        self.header()
        self.area_zero(0)

    def header(self, magic=MAGIC, valid=1, version=1, chunk_sectors=None):
        HEADER.pack_into(self.data, 0, magic, valid, version,
                         self.layout.sectors if chunk_sectors is None else chunk_sectors)

    def area_zero(self, area):
        start = self.layout.area_chunk(area) * self.layout.bytes
        end = min(start + self.layout.bytes, len(self.data))
        self.data[start:end] = bytes(max(end - start, 0))

    def record(self, number, old, new):
        RECORD.pack_into(self.data, self.layout.record_byte(number), old, new)

    def records(self, pairs):
        """Writes the list and its end."""
        pairs = list(pairs)
        for area in range(len(pairs) // self.layout.per_area + 1):
            self.area_zero(area)
        for number, (old, new) in enumerate(pairs):
            self.record(number, old, new)

    def chunk(self, chunk, content):
        start = chunk * self.layout.bytes
        self.data[start:start + len(content)] = content

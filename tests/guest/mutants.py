# SPDX-License-Identifier: GPL-2.0-only
"""COW devices with hostile metadata, made from a healthy one. The same seed makes the same images."""

import struct

import cow

SECTOR = 512


class Healthy:
    """An image with `count` records, and something to tell each chunk of data by."""

    def __init__(self, rng, chunk, chunks, count, origin_chunks, fill=0):
        made = cow.Image(chunk, chunks * chunk * SECTOR, fill)
        pairs = list(zip(rng.sample(range(origin_chunks), count), made.layout.data_chunks(count)))
        made.records(pairs)
        for old, new in pairs:
            made.chunk(new, (b"%16d" % (old << 32 | new)) * (made.layout.bytes // 16))
        self.data, self.layout, self.count, self.origin_chunks = bytes(made.data), made.layout, count, origin_chunks
        self.origin_bytes = origin_chunks * made.layout.bytes


class Mutant:
    """An image while it is being spoiled."""

    def __init__(self, rng, healthy):
        self.rng, self.layout, self.count = rng, healthy.layout, healthy.count
        self.image, self.origin_chunks = bytearray(healthy.data), healthy.origin_chunks

    def record(self):
        """(byte, name) of a record: often the end of the list, or an area's."""
        number = self.rng.choice([
            self.rng.randrange(self.count), self.rng.randrange(self.count + 3), self.count - 1, self.count,
            self.rng.randrange(1, self.count // self.layout.per_area + 2) * self.layout.per_area
            - self.rng.randrange(2)])
        # cut off it may be, or the first area may be larger than the device
        byte = min(self.layout.record_byte(number), len(self.image) - cow.RECORD.size)
        return byte, f"record {number}"

    def number(self):
        """What a chunk's number may not be, or just may."""
        chunks = len(self.image) // self.layout.bytes
        return self.rng.choice([
            self.rng.getrandbits(64), self.rng.getrandbits(32), self.rng.randrange(2 * chunks + 60),
            self.rng.randrange(chunks + 1), self.layout.area_chunk(self.rng.randrange(3)), 0, 1, chunks - 1, chunks,
            1 << 56, (1 << 64) - 1])

    def put(self, form, byte, value):
        struct.pack_into(form, self.image, byte, value)

    def flip(self, byte):
        bit = self.rng.randrange(128)
        self.image[byte + bit // 8] ^= 1 << bit % 8
        return bit

    def chunks(self):
        return len(self.image) // self.layout.bytes

    def fill(self, number, old, new):
        """Writes a record where the device has room for it."""
        byte = self.layout.record_byte(number)
        if byte + cow.RECORD.size <= len(self.image):
            cow.RECORD.pack_into(self.image, byte, old % self.origin_chunks, new)

    def records_that_fit(self):
        """Records in all whole areas of the device."""
        areas = (self.chunks() - 2) // (self.layout.per_area + 1) + 1
        return max(areas, 0) * self.layout.per_area

    def data_chunks(self):
        return [chunk for chunk in range(2, self.chunks()) if not self.layout.is_metadata(chunk)] or [2]

    # The changes. Each returns what it did.

    def header_bit(self):
        return f"header bit {self.flip(0)}"

    def header_half(self):
        half, value = self.rng.randrange(2), self.rng.choice([self.rng.getrandbits(64), self.rng.getrandbits(6)])
        self.put("<Q", half * 8, value)
        return f"header half {half} = {value:#x}"

    def chunk_size(self):
        size = self.rng.choice([1 << self.rng.randrange(32), self.rng.getrandbits(32), self.rng.randrange(64), 0])
        self.put("<I", 12, size)
        return f"chunk size {size}"

    def valid(self):
        valid = self.rng.choice([0, 0, 2, self.rng.getrandbits(32)])
        self.put("<I", 4, valid)
        return f"valid {valid}"

    def record_bit(self):
        byte, name = self.record()
        return f"{name} bit {self.flip(byte)}"

    def old(self):
        (byte, name), value = self.record(), self.number()
        self.put("<Q", byte, value)
        return f"{name} old {value}"

    def new(self):
        (byte, name), value = self.record(), self.number()
        self.put("<Q", byte + 8, value)
        return f"{name} new {value}"

    def exchanged(self):
        (a, name), (b, other) = self.record(), self.record()
        self.image[a:a + 16], self.image[b:b + 16] = self.image[b:b + 16], self.image[a:a + 16]
        return f"{name} and {other} exchanged"

    def crossed(self):
        """Each points where the other should: no check can tell."""
        (a, name), (b, other) = self.record(), self.record()
        self.image[a + 8:a + 16], self.image[b + 8:b + 16] = self.image[b + 8:b + 16], self.image[a + 8:a + 16]
        return f"{name} and {other} crossed"

    def same(self):
        (a, name), (b, other) = self.record(), self.record()
        half = self.rng.choice([0, 8])
        self.image[a + half:a + half + 8] = self.image[b + half:b + half + 8]
        return f"{name} has the {'new' if half else 'old'} chunk of {other}"

    def ended(self):
        byte, name = self.record()
        self.image[byte:byte + 16] = bytes(16)
        return f"{name} zeroed"

    def torn(self):
        byte, name = self.record()
        start = byte // SECTOR * SECTOR
        self.image[start:start + SECTOR] = self.rng.randbytes(SECTOR)
        return f"sector {start // SECTOR} of {name} random"

    def word(self):
        number = self.rng.randrange(max(self.records_that_fit(), 1))
        byte = min(self.layout.record_byte(number), len(self.image) - 16) + self.rng.choice([0, 8])
        self.put("<Q", byte, self.rng.getrandbits(self.rng.choice([8, 64])))
        return f"word at byte {byte}"

    def shortened(self):
        """The device ends somewhere: in the list, in its data, in a chunk."""
        sectors = len(self.image) // SECTOR
        length = self.rng.choice([self.rng.randrange(1, sectors + 1), self.rng.randrange(1, 4) * self.layout.sectors,
                                  sectors - self.rng.randrange(sectors // 8 + 1)])
        length = max(1, min(length, sectors))
        del self.image[length * SECTOR:]
        return f"cut to {length} sectors"

    def endless(self):
        """All areas to the end of the device are full."""
        news = self.data_chunks()
        for number in range(self.records_that_fit()):
            self.fill(number, number, news[number % len(news)])
        return "areas full up to the end of the device"

    def filled(self):
        """The list ends with the device's last chunk of data: nothing is wrong, and there is no room."""
        news = self.data_chunks()
        for number, new in enumerate(news):
            self.fill(number, number, new)
        self.fill(len(news), 0, 0)
        return f"{len(news)} records for {self.chunks()} chunks"

    def garbage(self):
        """Random numbers that might pass."""
        for number in range(self.records_that_fit()):
            self.fill(number, self.rng.randrange(self.origin_chunks), self.rng.randrange(self.chunks() + 3))
        return "areas of garbage"

    def noise(self):
        keep = self.rng.choice([0, 16])
        self.image[keep:] = self.rng.randbytes(len(self.image) - keep)
        return f"random from byte {keep} on"

    # often what is subtle, seldom what is gross
    KINDS = ([header_bit, header_half, chunk_size, valid, exchanged, crossed, same, shortened] * 3 +
             [record_bit, old, new] * 5 + [ended, torn, word] * 2 + [endless, filled, garbage, noise])


def mutate(rng, healthy):
    """One to three changes; returns what was changed, and the image."""
    mutant = Mutant(rng, healthy)
    names = [rng.choice(Mutant.KINDS)(mutant) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
    return ", ".join(names), mutant.image

# SPDX-License-Identifier: GPL-2.0-only
"""Mapped devices of one target."""

import dm


class Device(dm.Device):
    """A context manager that removes it."""

    def __init__(self, name, sectors, target, arguments):
        super().__init__(name, [(0, sectors, target, arguments)])

    def exceptions(self, chunk_kib):
        """Of a snapshot: how many there are."""
        allocated, _, metadata = self.usage()
        return (allocated - metadata) // (chunk_kib * 2)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.remove()

# SPDX-License-Identifier: GPL-2.0-only
"""An origin and its snapshots, arranged as LVM does it."""

import dm


class Snapshot:
    def __init__(self, name, origin, cow, chunk, options):
        self.name, self.cow, self.chunk, self.options = name, cow, chunk, options
        self.origin = origin
        self.device = None
        self.target = "snapshot"

    def line(self):
        parameters = f"{self.origin.path} {self.cow.path} {self.options} {self.chunk}"
        return [(0, self.origin.sectors, self.target, parameters)]

    @property
    def path(self):
        return self.device.path

    def status(self):
        return self.device.status()

    def usage(self):
        return self.device.usage()

    def handover(self, flags=dm.SKIP_LOCKFS):
        """Reloads the table of the live snapshot."""
        self.device.reload(self.line(), flags)


class Volume:
    """The origin device can be written as `path`; its snapshots see what it was when they were made."""

    def __init__(self, disk, name="origin"):
        self.disk, self.name = disk, name
        self.snapshots = []
        self.device = None

    @property
    def path(self):
        return self.device.path

    def activate(self):
        """The snapshots first: what is written to the origin before they are there is lost to them."""
        for snapshot in self.snapshots:
            if snapshot.device is None:
                snapshot.device = dm.Device(snapshot.name, snapshot.line())
        if self.device is None:
            self.device = dm.Device(self.name, [(0, self.disk.sectors, "snapshot-origin", self.disk.path)])
        return self

    def snapshot(self, cow, chunk=8, options="P", name=None):
        """A new snapshot. The origin is suspended meanwhile, so that it learns the chunk size when it resumes."""
        snapshot = Snapshot(name or f"{self.name}-snap{len(self.snapshots)}", self.disk, cow, chunk, options)
        if self.device is None:
            self.activate()
        self.device.suspend()
        try:
            snapshot.device = dm.Device(snapshot.name, snapshot.line())
        finally:
            self.device.resume()
        self.snapshots.append(snapshot)
        return snapshot

    def drop(self, snapshot):
        """Removes one snapshot's device."""
        snapshot.device.remove()
        snapshot.device = None

    def deactivate(self):
        if self.device is not None:
            self.device.remove()
            self.device = None
        for snapshot in reversed(self.snapshots):
            if snapshot.device is not None:
                self.drop(snapshot)

    def merge(self, snapshot):
        """Merges a snapshot into the origin, as `lvconvert --merge` does: the origin's device becomes the merge.

        The snapshot's device must be gone.
        """
        snapshot.target = "snapshot-merge"
        self.device.reload(snapshot.line())

# SPDX-License-Identifier: GPL-2.0-only
"""The devices that runs share."""

from devices import NullBlk, sync


class Machine:
    """Groups of devices. Each group is made and filled at full speed when it is first asked for."""

    def __init__(self):
        self._groups = {}

    def devices(self, group, sizes, wanted, key=None, prepare=lambda devices: None):
        """Devices of `sizes` MiB, configured to be as `wanted` says: latency in µs and MiB/s.

        `prepare` fills them; what it returns is returned beside them each time. Another `key` than last time
        begins anew.
        """
        known = self._groups.get(group)
        if known and known["key"] != key:
            self._drop(group)
            known = None
        if not known:
            devices = [NullBlk(f"{group}{n}", size) for n, size in enumerate(sizes)]
            known = self._groups[group] = {"key": key, "devices": devices, "now": (0, 0)}
            known["prepared"] = prepare(devices)
        if known["now"] != wanted:
            for device in known["devices"]:
                device.configure(*wanted)
            known["now"] = wanted
        for device in known["devices"]:
            sync(device.path)  # no run pays for what the last one left in a cache
        return known["devices"], known["prepared"]

    def _drop(self, group):
        for device in self._groups.pop(group)["devices"]:
            device.remove()

    def close(self):
        for group in list(self._groups):
            self._drop(group)

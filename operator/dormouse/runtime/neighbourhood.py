"""Which engines share devices: an index, so that a look at one model reads its neighbours and nobody else.

A cluster of a thousand engines is many small groups; a decision must cost what its group costs.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from dormouse.domain.snapshot import UNKNOWN_DEVICE, DeviceKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dormouse.domain.snapshot import EngineKey


class Neighbourhood:
    """Engines by device and by node."""

    def __init__(self) -> None:
        """Start empty."""
        self._devices: dict[EngineKey, frozenset[DeviceKey]] = {}
        self._by_device: defaultdict[DeviceKey, set[EngineKey]] = defaultdict(set)
        self._by_node: defaultdict[str, set[EngineKey]] = defaultdict(set)

    def place(self, engine: EngineKey, devices: frozenset[DeviceKey]) -> None:
        """Note where an engine is; cheap when it did not move."""
        if self._devices.get(engine) == devices:
            return
        self.forget(engine)
        self._devices[engine] = devices
        for device in devices:
            self._by_device[device].add(engine)
            self._by_node[device.node].add(engine)

    def forget(self, engine: EngineKey) -> None:
        """Note that an engine is gone."""
        for device in self._devices.pop(engine, frozenset()):
            self._by_device[device].discard(engine)
            self._by_node[device.node].discard(engine)

    def devices(self, engine: EngineKey) -> frozenset[DeviceKey]:
        """Return where an engine is."""
        return self._devices.get(engine, frozenset())

    def on(self, devices: Iterable[DeviceKey]) -> set[EngineKey]:
        """Return the engines that a transition on these devices may matter to."""
        found: set[EngineKey] = set()
        for device in devices:
            if device.uuid == UNKNOWN_DEVICE:
                found |= self._by_node[device.node]
            else:
                found |= self._by_device[device]
                found |= self._by_device[DeviceKey(device.node, UNKNOWN_DEVICE)]
        return found

    def walk(self, start: Iterable[EngineKey], follow: Callable[[EngineKey], bool]) -> None:
        """Visit `start` and all that share devices with them, however indirectly.

        `follow` is asked once about each engine and says whether to go on to its neighbours: one that boots may
        sit on any device of its node, but as nothing is asked of it, it must not make one group of the node.
        """
        todo = list(start)
        met = set(todo)
        while todo:
            engine = todo.pop()
            if follow(engine):
                new = self.on(self.devices(engine)) - met
                met |= new
                todo += new

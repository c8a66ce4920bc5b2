"""The guard: what stands in front of an engine so that it can be put to sleep and woken safely."""

from dormouse_engine.guard.engine_probe import EngineProbe
from dormouse_engine.guard.middleware import Guard
from dormouse_engine.guard.probe import DeviceMemory, HostProbe, Probe
from dormouse_engine.guard.settings import Settings, SettingsError

__all__ = ["DeviceMemory", "EngineProbe", "Guard", "HostProbe", "Probe", "Settings", "SettingsError"]

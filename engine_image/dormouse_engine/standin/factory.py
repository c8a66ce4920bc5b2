"""Put one engine together: its devices, its faults, and the guard in front of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from dormouse_engine.guard import Guard, Settings
from dormouse_engine.standin.app import EngineApp
from dormouse_engine.standin.device import DeviceSet, FileBooks, SimulatedDevice, owner_key
from dormouse_engine.standin.faults import parse_faults
from dormouse_engine.standin.probe import StandinProbe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp

    from dormouse_engine.standin.engine import Engine
    from dormouse_engine.standin.options import Options


def open_devices(options: Options) -> DeviceSet:
    """Open the device files; raises ValueError when there aren't as many ids as files."""
    if options.device_file and len(options.device_file) != len(options.device_uuid):
        raise ValueError("--device-file and --device-uuid must name equally many devices")
    pairs = zip(options.device_file, options.device_uuid, strict=False)
    return DeviceSet(
        [
            SimulatedDevice(FileBooks(Path(path), uuid, options.device_bytes), owner_key(), index)
            for index, (path, uuid) in enumerate(pairs)
        ]
    )


def install_faults(engine: Engine, text: str) -> None:
    """Put the rules of `--faults` (JSON, or @FILE) in force; raises ValueError."""
    if text:
        document = json.loads(Path(text[1:]).read_text() if text.startswith("@") else text)
        engine.core.faults.replace(*parse_faults(document))


class Front:
    """What serves an engine's requests: its application, with the guard before it where one is asked for.

    `environment` holds the guard's settings; a token file there asks for it. Raises SettingsError.
    """

    def __init__(self, engine: Engine, app: ASGIApp, environment: Mapping[str, str]) -> None:
        self.engine = engine
        self.app: ASGIApp = EngineApp(engine, app)
        self._guard: Guard | None = None
        if engine.options.guard or environment.get("DORMOUSE_TOKEN_FILE"):
            settings = Settings.from_env(environment)
            self.app = self._guard = Guard(
                self.app, settings, StandinProbe(engine.core.executor, engine.options.deepest)
            )

    def refuse_held(self) -> None:
        """Answer what the guard holds with 503 and end its event streams."""
        if self._guard is not None:
            self._guard.close()

    def close(self) -> None:
        """End every request as far as it got, now."""
        self.refuse_held()
        self.engine.core.close()

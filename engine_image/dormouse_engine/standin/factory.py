"""Put one engine together from its options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from dormouse_engine.standin.device import DeviceSet, FileBooks, SimulatedDevice, owner_key
from dormouse_engine.standin.faults import parse_faults

if TYPE_CHECKING:
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

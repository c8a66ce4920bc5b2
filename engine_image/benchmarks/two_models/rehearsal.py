"""What a rehearsal needs to know of its paper device, without importing the guard."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

FILE: Final = "PAPER_DEVICE"
"""The variable that names the device's books."""


def device_variables(scratch: Path) -> dict[str, str]:
    """Return the variables that put an engine on the device whose books lie in `scratch`."""
    return {FILE: str(_books(scratch))}


def over_capacity(scratch: Path) -> int:
    """Return how often more was held than the device has; -1 when no engine ever opened the books."""
    books = _books(scratch)
    if not books.exists():
        return -1
    violations: int = json.JSONDecoder().raw_decode(books.read_text())[0]["over_capacity"]
    return violations


def _books(scratch: Path) -> Path:
    return scratch / "device-0"

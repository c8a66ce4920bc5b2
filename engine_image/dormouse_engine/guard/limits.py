"""`PUT /dormouse/settings`: the one setting that the operator may change while the engine runs."""

import json
from typing import Any, Final

from dormouse_engine.guard.errors import RefusedError, refused

KEY: Final = "max_wait_seconds"
LONGEST_SECONDS: Final = 1e9
"""More is nothing that anybody waits for; Python's whole numbers may be too large to be seconds at all."""


def read_limits(body: bytes) -> float | None:
    """Return the new `max_wait_seconds`, None when it is not given; raises RefusedError (400)."""
    try:
        content: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise _bad("the body is not JSON") from None
    if not isinstance(content, dict):
        raise _bad("the body is not a JSON object")
    if unknown := sorted(set(content) - {KEY}):
        raise _bad(f"unknown keys: {', '.join(unknown)}")
    if KEY not in content:
        return None
    value = content[KEY]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LONGEST_SECONDS:
        raise _bad(f"{KEY} must be a number above zero and at most {LONGEST_SECONDS:g}")
    return float(value)


def _bad(why: str) -> RefusedError:
    return refused(400, "bad_settings", f'{why}: give {{"{KEY}": 120}}')

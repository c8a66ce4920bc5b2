"""The guard's settings, from the environment `DORMOUSE_*`, checked before the first request.

An engine that starts with a setting nobody can mean would fail at its first sleep; so a bad value stops
the start, and the message names the variable, the value and what is accepted.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HEARTBEAT_LIMIT_SECONDS: Final = 15.0


class SettingsError(ValueError):
    """An environment variable holds something the guard can't use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Seconds are seconds, sizes are bytes.

    `token_file`: None means that every dev path answers 401. `engine_timeout_seconds` bounds the guard's own
    questions to the engine (`/is_sleeping`, `/v1/models`), never a sleep or a wake. `engine_api_key` is what
    the engine asks for (`vllm serve --api-key`); it takes the place of the guard's token on the way in.
    `weights_revision` is what the engine was started with, reported until weights are loaded anew.
    """

    token_file: Path | None = None
    drain_seconds: float = 30.0
    held_requests: int = 1024
    held_bytes: int = 64 * 2**20
    max_wait_seconds: float = 120.0
    heartbeat_seconds: float = HEARTBEAT_LIMIT_SECONDS
    engine_timeout_seconds: float = 2.0
    engine_api_key: str | None = None
    weights_revision: str | None = None

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read settings from `environ` (default: the process's); raises SettingsError."""
        env = os.environ if environ is None else environ
        default = cls()
        token_file = env.get("DORMOUSE_TOKEN_FILE")
        return cls(
            token_file=Path(token_file) if token_file else None,
            drain_seconds=_seconds(env, "DORMOUSE_DRAIN_SECONDS", default.drain_seconds, zero=True),
            held_requests=_whole(env, "DORMOUSE_HELD_REQUESTS", default.held_requests),
            held_bytes=_whole(env, "DORMOUSE_HELD_BYTES", default.held_bytes),
            max_wait_seconds=_seconds(env, "DORMOUSE_MAX_WAIT_SECONDS", default.max_wait_seconds),
            heartbeat_seconds=_seconds(
                env, "DORMOUSE_HEARTBEAT_SECONDS", default.heartbeat_seconds, most=HEARTBEAT_LIMIT_SECONDS
            ),
            engine_timeout_seconds=_seconds(
                env, "DORMOUSE_ENGINE_TIMEOUT_SECONDS", default.engine_timeout_seconds
            ),
            engine_api_key=env.get("DORMOUSE_ENGINE_API_KEY") or env.get("VLLM_API_KEY") or None,
            weights_revision=env.get("DORMOUSE_WEIGHTS_REVISION") or None,
        )


def parse_seconds(raw: str, *, zero: bool = False, most: float = math.inf) -> float:
    """Parse a finite number of seconds above zero (or zero, where `zero`) up to `most`; raises ValueError."""
    value = float(raw)
    if not math.isfinite(value) or value > most or value < 0 or (value == 0 and not zero):
        raise ValueError(raw)
    return value


def _seconds(
    env: Mapping[str, str], name: str, default: float, *, zero: bool = False, most: float = math.inf
) -> float:
    raw = env.get(name)
    if not raw:
        return default
    try:
        return parse_seconds(raw, zero=zero, most=most)
    except ValueError:
        least = "of zero or more" if zero else "above zero"
        bound = f" and at most {most:g}" if math.isfinite(most) else ""
        raise SettingsError(
            f"{name}={raw!r} is not usable: give a number of seconds {least}{bound}, such as {default:g}"
        ) from None


def _whole(env: Mapping[str, str], name: str, default: int) -> int:
    raw = env.get(name)
    if not raw:
        return default
    if not raw.isascii() or not raw.isdigit() or int(raw) == 0:
        raise SettingsError(
            f"{name}={raw!r} is not usable: give a whole number above zero, such as {default}"
        )
    return int(raw)

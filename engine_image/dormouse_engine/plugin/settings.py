"""The plugin's settings, from the environment `DORMOUSE_*`, checked before the engine starts."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

Choice: TypeAlias = Literal["auto", "stock", "dormouse"]


class SettingsError(ValueError):
    """An environment variable holds something the plugin can't use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the environment says; a variable that is unset or empty means the default.

    `allocator` (`DORMOUSE_ALLOCATOR`): `auto` takes Dormouse's where it fits this engine and the engine's own
    otherwise; `stock` takes the engine's own on purpose; `dormouse` fails the start where Dormouse's does not fit.
    `staging` (`DORMOUSE_STAGING`, on or off): copy weights to the host while the engine serves.
    `staging_bytes_per_second` (`DORMOUSE_STAGING_BYTES_PER_SECOND`): how fast; 0 is as fast as the link goes.
    """

    allocator: Choice = "auto"
    staging: bool = True
    staging_bytes_per_second: int = 8 * 2**30

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read settings from `environ` (default: the process's); raises SettingsError."""
        env = os.environ if environ is None else environ
        default = cls()
        return cls(
            allocator=cast("Choice", _word(env, "DORMOUSE_ALLOCATOR", ("auto", "stock", "dormouse"))),
            staging=_word(env, "DORMOUSE_STAGING", ("on", "off")) == "on",
            staging_bytes_per_second=_bytes(
                env, "DORMOUSE_STAGING_BYTES_PER_SECOND", default.staging_bytes_per_second
            ),
        )


def _word(env: Mapping[str, str], name: str, words: tuple[str, ...]) -> str:
    raw = env.get(name) or words[0]
    if raw not in words:
        raise SettingsError(f"{name}={raw!r} is not usable: say {' or '.join(words)} (default: {words[0]})")
    return raw


def _bytes(env: Mapping[str, str], name: str, default: int) -> int:
    raw = env.get(name)
    if not raw:
        return default
    if not raw.isascii() or not raw.isdigit():
        raise SettingsError(
            f"{name}={raw!r} is not usable: give a whole number of bytes, such as {default}, or 0 for no limit"
        )
    return int(raw)

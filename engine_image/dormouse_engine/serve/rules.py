"""What a manifest may not ask for: whatever would leave the dev endpoints open, or the guard blind.

With `VLLM_SERVER_DEV_MODE=1` anybody who reaches the port may put the engine to sleep or run a method in its workers.
So dev mode and the guard come together or not at all, and the guard must see every request. Each rule below names a way
around it that vLLM has, and what to do instead.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dormouse_engine.guard.settings import Settings, SettingsError
from dormouse_engine.serve.errors import ServeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PLUGIN = "dormouse"
GUARD = "dormouse_engine.guard.Guard"
_GUARDS = "dormouse_engine.guard"

_SEVERAL = "the guard must see every request, so an engine has one API server process: leave {flag} out"
_REFUSED: Mapping[str, str] = {
    "--no-enable-sleep-mode": "sleep mode is what this image is for: leave {flag} out, or run the engine's own image",
    "--headless": "without an API server there is no guard: leave {flag} out",
    "--grpc": "the guard speaks HTTP and would not see these requests: leave {flag} out",
    "--config": (
        "flags in a file would not be checked: give them as arguments, or as the variables of the reference page"
    ),
    "--data-parallel-multi-port-external-lb": _SEVERAL,
    "--data-parallel-external-lb": _SEVERAL,
    "--data-parallel-hybrid-lb": _SEVERAL,
    "--data-parallel-rank": _SEVERAL,
    "--data-parallel-start-rank": _SEVERAL,
}
# The short forms that vLLM gives them.
_SHORT: Mapping[str, str] = {
    "-asc": "--api-server-count",
    "-dpn": "--data-parallel-rank",
    "-dpr": "--data-parallel-start-rank",
    "-dph": "--data-parallel-hybrid-lb",
    "-dpe": "--data-parallel-external-lb",
    "-dpm": "--data-parallel-multi-port-external-lb",
}
_SERVER_COUNT = "--api-server-count"
_MIDDLEWARE = "--middleware"
_API_KEY = "--api-key"
_SHORTEST_ABBREVIATION = 4


def check(environ: Mapping[str, str], arguments: Sequence[str]) -> None:
    """Return if an engine with this environment and these arguments is guarded; raises ServeError."""
    _check_arguments(environ, arguments)
    _check_variables(environ)
    _check_guard(environ)


def refused_flags() -> list[str]:
    """Return the flags that are refused whatever their value, for the reference page."""
    return sorted(_REFUSED)


def short_flags() -> dict[str, str]:
    """Return the short forms that the rules know, each with its flag."""
    return dict(_SHORT)


def flags(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Yield each flag in its long form with its value, if it has one, read as vLLM's parser reads it."""
    for number, word in enumerate(arguments):
        if not word.startswith("-") or re.fullmatch(r"-[0-9.]+", word):
            continue
        name, equals, value = word.partition("=")
        name = _SHORT.get(name, name)
        if name.startswith("--"):
            name = name.partition(".")[0].replace("_", "-")
        following = arguments[number + 1] if number + 1 < len(arguments) else None
        yield name, value if equals else following


def names_guard(flag: str, value: str | None) -> bool:
    """Whether this flag, as `flags` yields it, puts the guard in front of the server."""
    return _meant(flag, [_MIDDLEWARE]) is not None and (value or "").startswith(_GUARDS)


def _check_arguments(environ: Mapping[str, str], arguments: Sequence[str]) -> None:
    for flag, value in flags(arguments):
        if flag == "--":
            raise ServeError("'--' hides what follows it from the checks: leave it out")
        if (refused := _meant(flag, _REFUSED)) is not None:
            raise ServeError(f"{refused} is refused: " + _REFUSED[refused].format(flag=refused))
        if _meant(flag, [_SERVER_COUNT]) and value != "1":
            raise ServeError(f"{_SERVER_COUNT} {value} is refused: " + _SEVERAL.format(flag=_SERVER_COUNT))
        if names_guard(flag, value):
            raise ServeError(
                f"{_MIDDLEWARE} {value} is refused: the guard is put in front by itself, as the outermost of all "
                "middleware; leave it out"
            )
        if _meant(flag, [_API_KEY]) and not (
            environ.get("DORMOUSE_ENGINE_API_KEY") or environ.get("VLLM_API_KEY")
        ):
            raise ServeError(
                f"{_API_KEY} is refused: the guard must know the key, and arguments show in every list of processes; "
                "set VLLM_API_KEY instead"
            )


def _meant(flag: str, names: Mapping[str, str] | Sequence[str]) -> str | None:
    # vLLM's parser takes abbreviations; one that could mean a flag of ours counts as that flag.
    if flag in names:
        return flag
    if flag.startswith("--") and len(flag) >= _SHORTEST_ABBREVIATION:
        return next((name for name in names if name.startswith(flag)), None)
    return None


def _check_variables(environ: Mapping[str, str]) -> None:
    if environ.get("VLLM_SERVER_DEV_MODE", "") not in {"", "1"}:
        raise ServeError(
            f"VLLM_SERVER_DEV_MODE={environ['VLLM_SERVER_DEV_MODE']!r} is refused: without the dev endpoints the "
            "engine can't be put to sleep, and the guard asks for the token on each of them; unset it"
        )
    if environ.get("VLLM_USE_RUST_FRONTEND", "") not in {"", "0"}:
        raise ServeError(
            "VLLM_USE_RUST_FRONTEND is refused: that front end runs no middleware, so the guard would not be there; "
            "unset it"
        )
    allowed = environ.get("VLLM_PLUGINS")
    # Compared as vLLM does: split at commas, spaces kept.
    if allowed is not None and PLUGIN not in allowed.split(","):
        raise ServeError(
            f"VLLM_PLUGINS={allowed!r} leaves our plugin out: add {PLUGIN!r} to the list (commas, no spaces), or unset "
            "it. To keep the engine's own allocator set DORMOUSE_ALLOCATOR=stock"
        )


def _check_guard(environ: Mapping[str, str]) -> None:
    try:
        settings = Settings.from_env(environ)
    except SettingsError as error:
        raise ServeError(str(error)) from None
    if settings.token_file is None:
        raise ServeError(
            "DORMOUSE_TOKEN_FILE is not set: without a token nobody could put the engine to sleep or wake it. Mount "
            "the Secret dormouse-token and name its file, such as /var/run/dormouse/token"
        )
    try:
        tokens = settings.token_file.read_bytes().split()
    except OSError as error:
        raise ServeError(
            f"DORMOUSE_TOKEN_FILE={settings.token_file} can't be read ({error.strerror}): is the Secret mounted there, "
            "and may this user read it?"
        ) from None
    if not tokens:
        raise ServeError(
            f"DORMOUSE_TOKEN_FILE={settings.token_file} holds no token: put one per line into it"
        )

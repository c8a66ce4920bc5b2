"""A call to one of the engine's dev paths, read and checked once.

Parameters come from the query alone, as the engine reads them; a body with `{"level": 2}` says nothing.
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from dormouse_engine.guard.asgi import Headers, Scope, header, query
from dormouse_engine.guard.errors import refused
from dormouse_engine.guard.settings import parse_seconds

LONGEST_NAME: Final = 500
"""Characters of a name that stands in the report."""
_MODES = frozenset({"abort", "wait", "keep"})
_LEVELS = frozenset({"0", "1", "2"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What was asked, as it will be forwarded, and what the guard understood of it."""

    path: str
    query: bytes
    headers: Headers
    body: bytes
    ident: str
    identified: bool
    """Whether the caller chose the id (else it is only a name for the report)."""
    level: int = 1
    drains: bool = True
    keeps: bool = False
    """Of a sleep: requests in flight are frozen, and go on after the wake."""
    tags: tuple[str, ...] = ()
    drain_seconds: float
    min_idle_seconds: float | None = None
    rpc_method: str | None = None
    weights_path: str | None = None
    """Of a reload: where the weights come from, when the call says it."""
    revision: str | None = None
    """Of a reload: what its caller calls the new weights."""

    @property
    def asked(self) -> tuple[str, bytes, bytes]:
        """What makes two calls the same."""
        return self.path, self.query, self.body


def read_call(scope: Scope, path: str, body: bytes, *, drain_seconds: float) -> Call:
    """Read the call of a POST to `path`; raises RefusedError (400) on a value that can't be meant."""
    parameters = query(scope)
    level = _last(parameters, "level", "1")
    mode = _last(parameters, "mode", "") if path == "/sleep" else ""
    if path == "/sleep" and level not in _LEVELS:
        raise refused(400, "bad_level", f"level={level!r} is not a sleep level: give 0, 1 or 2")
    if mode and mode not in _MODES:
        raise refused(400, "bad_mode", f"mode={mode!r} is not a mode: give abort, wait or keep")
    ident = header(scope, b"x-dormouse-operation")
    if ident is not None and not 0 < len(ident) <= 200:
        raise refused(400, "bad_operation", "X-Dormouse-Operation must have 1 to 200 characters")
    drain = _seconds(scope, "X-Dormouse-Drain-Seconds")
    rpc = _rpc(body) if path == "/collective_rpc" else {}
    return Call(
        path=path,
        query=scope.get("query_string", b""),
        headers=list(scope["headers"]),
        body=body,
        ident=ident or uuid.uuid4().hex,
        identified=ident is not None,
        level=int(level) if path == "/sleep" else 0,
        drains=mode not in {"abort", "keep"},
        keeps=mode == "keep",
        tags=tuple(value for key, value in parameters if key == "tags"),
        drain_seconds=drain_seconds if drain is None else drain,
        min_idle_seconds=_seconds(scope, "X-Dormouse-Min-Idle-Seconds"),
        rpc_method=_text(rpc.get("method")),
        weights_path=_text(_mapping(rpc.get("kwargs")).get("weights_path")),
        revision=_revision(scope) if path == "/collective_rpc" else None,
    )


def _last(parameters: list[tuple[str, str]], name: str, default: str) -> str:
    return next((value for key, value in reversed(parameters) if key == name), default)


def _seconds(scope: Scope, name: str) -> float | None:
    raw = header(scope, name.lower().encode())
    if raw is None:
        return None
    try:
        return parse_seconds(raw, zero=True)
    except ValueError:
        raise refused(
            400, "bad_header", f"{name}: {raw!r} is not a number of seconds of zero or more"
        ) from None


def _revision(scope: Scope) -> str | None:
    revision = header(scope, b"x-dormouse-weights-revision")
    if revision is not None and not (0 < len(revision) <= LONGEST_NAME and revision.isprintable()):
        raise refused(
            400,
            "bad_header",
            f"X-Dormouse-Weights-Revision must have 1 to {LONGEST_NAME} printable characters",
        )
    return revision


def _rpc(body: bytes) -> Mapping[str, Any]:
    try:
        return _mapping(json.loads(body))
    except (ValueError, RecursionError):
        return {}


def _mapping(content: Any) -> Mapping[str, Any]:
    return content if isinstance(content, dict) else {}


def _text(content: Any) -> str | None:
    return content if isinstance(content, str) and 0 < len(content) <= LONGEST_NAME else None

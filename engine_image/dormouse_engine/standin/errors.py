"""Error answers in vLLM's shape: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class ApiError(Exception):
    """A request is answered with `status`; `kind` is the error's `type` (default: the status's phrase)."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = error_body(status, message, kind=kind, param=param)
        self.headers = headers


def error_body(
    status: int, message: str, *, kind: str | None = None, param: str | None = None
) -> dict[str, Any]:
    """Build the body of an error answer."""
    kind = kind or HTTPStatus(status).phrase
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}

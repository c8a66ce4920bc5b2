"""The API server's audit log: who wrote what, and everything that service accounts asked for.

Tests prove with it that nothing but `status` of a user's object is ever written, and that nothing was refused.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_WRITES = ["create", "update", "patch", "delete", "deletecollection"]

# Bodies are kept for our own resource only: a Secret's body has no business in a log, and size matters.
POLICY: dict[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [
        {"level": "Request", "verbs": _WRITES, "resources": [{"group": "dormouse.dev", "resources": ["*"]}]},
        {"level": "Metadata", "verbs": _WRITES},
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
        {"level": "None"},
    ],
}


def writes(log: Path, *, resource: str | None = None, user: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the audit events of writes, oldest first; see `requests`."""
    return (event for event in requests(log, resource=resource, user=user) if event["verb"] in _WRITES)


def requests(log: Path, *, resource: str | None = None, user: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the audit events, oldest first: everybody's writes, and what service accounts read.

    Args:
        log: `Cluster.audit_log`; complete up to the last answered request.
        resource: plural name, such as `sleepingmodels`; None: all.
        user: exact user name; None: all.

    Each event is an `audit.k8s.io/v1` Event: `verb`, `user.username`, `userAgent`, `requestURI` (holds
    `fieldManager`), `objectRef` with `resource`, `subresource`, `namespace`, `name`,
    `responseStatus.code`, and for dormouse.dev `requestObject`.

    """
    if not log.exists():
        return
    with log.open(encoding="utf-8") as lines:
        for line in lines:
            event = json.loads(line)
            if resource is not None and event.get("objectRef", {}).get("resource") != resource:
                continue
            if user is not None and event["user"]["username"] != user:
                continue
            yield event

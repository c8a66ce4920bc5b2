"""ServiceAccount tokens of a pod, bound to it, renewed when most of their life is over."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cluster.kubelet.api import Api, Object

_RENEW_AT = 0.8


class Tokens:
    """Tokens by (audience, lifetime); `fetch` asks the API server, `get` never waits."""

    def __init__(self, api: Api, pod: Object) -> None:
        self._api = api
        self._pod = pod
        self._tokens: dict[tuple[str, int], tuple[str, float]] = {}

    async def fetch(self) -> float | None:
        """Get or renew every token that the pod's volumes ask for; returns seconds until the next renewal."""
        for wanted in self._wanted():
            if key_of(wanted) not in self._tokens or self._tokens[key_of(wanted)][1] <= time.monotonic():
                await self._request(wanted)
        due = [renewal for _, renewal in self._tokens.values()]
        return max(1.0, min(due) - time.monotonic()) if due else None

    def get(self, wanted: Object) -> str:
        """Return the token for a `serviceAccountToken` projection."""
        return self._tokens[key_of(wanted)][0]

    def _wanted(self) -> list[Object]:
        return [
            source["serviceAccountToken"]
            for volume in self._pod["spec"].get("volumes", [])
            for source in volume.get("projected", {}).get("sources", [])
            if "serviceAccountToken" in source
        ]

    async def _request(self, wanted: Object) -> None:
        metadata = self._pod["metadata"]
        audience, seconds = key_of(wanted)
        account = self._pod["spec"].get("serviceAccountName", "default")
        answer = await self._api.request(
            "POST",
            f"/api/v1/namespaces/{metadata['namespace']}/serviceaccounts/{account}/token",
            {
                "spec": {
                    "audiences": [audience] if audience else [],
                    "expirationSeconds": seconds,
                    "boundObjectRef": {
                        "apiVersion": "v1",
                        "kind": "Pod",
                        "name": metadata["name"],
                        "uid": metadata["uid"],
                    },
                }
            },
        )
        renewal = time.monotonic() + _RENEW_AT * seconds
        self._tokens[audience, seconds] = (answer["status"]["token"], renewal)


def key_of(wanted: Object) -> tuple[str, int]:
    """Return what tells two projections apart."""
    return wanted.get("audience", ""), wanted.get("expirationSeconds", 3600)

"""Restarting a pod: it is deleted, and whoever owns it makes a new one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dormouse.cluster.resources import PODS

if TYPE_CHECKING:
    from dormouse.cluster.client import Client
    from dormouse.domain.snapshot import EngineKey


async def delete_pod(client: Client, pod: EngineKey) -> bool:
    """Delete exactly this pod (its successor of the same name is safe).

    Returns:
        False when it is gone already.

    Raises:
        RejectedError: we may not.
        UnavailableError: no answer; whether it was deleted is unknown.

    """
    return await client.delete(PODS, pod.namespace, pod.pod, uid=pod.uid)

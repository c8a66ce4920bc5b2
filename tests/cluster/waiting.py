"""Waiting with a bound, for the synchronous parts of the harness."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from tests.cluster.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def wait_for(
    what: str, probe: Callable[[], T | None], *, seconds: float, why_not: Callable[[], str] | None = None
) -> T:
    """Call `probe` until it returns something true, and return that.

    Args:
        what: completes "waited 30 s for …".
        probe: may raise ClusterError to give up at once.
        seconds: how long to wait.
        why_not: more for the error message, such as the end of a log.

    Raises:
        ClusterError: it took longer.

    """
    deadline = time.monotonic() + seconds
    while True:
        result = probe()
        if result:
            return result
        if time.monotonic() > deadline:
            detail = f":\n{why_not()}" if why_not else ""
            raise ClusterError(f"waited {seconds:g} s for {what}{detail}")
        time.sleep(0.05)

"""Free ports on loopback, below those that the kernel gives to outgoing connections.

One of those could be taken before a server that starts slowly listens on it, or while the API server is down for a
moment, and it could not come back on it.
"""

from __future__ import annotations

import random
import socket
from typing import TYPE_CHECKING

from tests.cluster.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Collection

_HOST = "127.0.0.1"
_RANGE = range(20_000, 32_000)


def is_free(port: int, host: str = _HOST) -> bool:
    """Tell whether a server could listen on `host`:`port` now."""
    with socket.socket() as probe:
        # Servers written in Go set it too; without it a port in TIME_WAIT looks taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def free_port(host: str = _HOST, *, taken: Collection[int] = ()) -> int:
    """Return a free port of `host` that is not in `taken`."""
    for _ in range(200):
        port = random.choice(_RANGE)
        if port not in taken and is_free(port, host):
            return port
    raise ClusterError(f"no free port between {_RANGE.start} and {_RANGE.stop} on {host}")

"""Free ports on 127.0.0.1, below those that the kernel gives to outgoing connections.

One of those could be taken while the API server is down for a moment, and it could not come back on it.
"""

from __future__ import annotations

import random
import socket

from tests.cluster.errors import ClusterError

_RANGE = range(20_000, 32_000)


def is_free(port: int) -> bool:
    """Tell whether a server could listen on 127.0.0.1:`port` now."""
    with socket.socket() as probe:
        # Servers written in Go set it too; without it a port in TIME_WAIT looks taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port(taken: set[int] | None = None) -> int:
    """Return a free port that is not in `taken`."""
    for _ in range(200):
        port = random.choice(_RANGE)
        if port not in (taken or ()) and is_free(port):
            return port
    raise ClusterError(f"no free port between {_RANGE.start} and {_RANGE.stop} on 127.0.0.1")

"""Which path is what: serving, probe or dev, as one table.

Whatever the table does not name is dev: a new engine version may add a path that moves memory, and it
must answer nobody without the token before anyone has looked at it. The first row that matches wins.
"""

import enum
from typing import Final


class PathClass(enum.Enum):
    """What the guard does with a path."""

    SERVING = "serving"
    """Counts as use; held while the engine can't serve."""
    PROBE = "probe"
    """Never counts as use, always passed through."""
    DEV = "dev"
    """Only with the token."""


_READS: Final = frozenset({"GET", "HEAD"})

PROBES: Final = frozenset(
    {
        "/health",
        "/ping",
        "/metrics",
        "/metrics/",
        "/version",
        "/load",
        "/docs",
        "/redoc",
        "/openapi.json",
    }
)
SERVING: Final = frozenset(
    {
        "/tokenize",
        "/detokenize",
        "/pooling",
        "/classify",
        "/score",
        "/rerank",
        "/v2/rerank",
        "/generative_scoring",
        "/v2/embed",
        "/invocations",
    }
)
SERVING_BELOW: Final = ("/v1/", "/inference/")
MODELS: Final = "/v1/models"


def classify(method: str, path: str) -> PathClass:
    """Return the class of a request; `path` is below the mount point, `method` in upper case.

    `OPTIONS` on a serving path is a browser's question about the path, not a use of the engine.
    """
    if path.startswith(SERVING_BELOW) or path in SERVING:
        if method == "OPTIONS":
            return PathClass.PROBE
        if method in _READS and (path == MODELS or path.startswith(MODELS + "/")):
            return PathClass.PROBE
        return PathClass.SERVING
    return PathClass.PROBE if path in PROBES else PathClass.DEV

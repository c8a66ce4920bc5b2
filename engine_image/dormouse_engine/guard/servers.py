"""One API server process: the guard counts and holds the requests of its own process only.

Of several servers on one port each would see a part: one would call the engine idle, and let it sleep, while another
serves. vLLM starts one per data-parallel rank unless told otherwise, so this must be found out and not assumed.
"""

import multiprocessing
from typing import Any


def more_servers(app: Any) -> str | None:
    """Say why this is not the engine's only API server; None when it is, or nothing tells.

    `app` is the framework's app (of the lifespan's scope), which vLLM gives its configuration.
    """
    count = _count(app)
    # vLLM's servers are named ApiServer_0, ApiServer_1, …, or ApiServer_0 alone.
    name = multiprocessing.current_process().name
    if count is None and name.startswith("ApiServer_") and name != "ApiServer_0":
        count = 2
    if count is None or count < 2:
        return None
    return (
        f"this engine runs {count} or more API server processes, and the guard would see only a part of its requests: "
        "start it with --api-server-count 1"
    )


def workers(app: Any) -> int | None:
    """Say how many workers the engine has, on all its machines; None where nothing tells."""
    count = getattr(_parallel(app), "world_size_across_dp", None)
    return count if isinstance(count, int) and count > 0 else None


def kv_connector(app: Any) -> str:
    """Name what moves the engine's KV cache to and from other places; "" where nothing does, or nothing tells."""
    transfer = getattr(_config(app), "kv_transfer_config", None)
    return str(getattr(transfer, "kv_connector", None) or "")


def _count(app: Any) -> int | None:
    count = getattr(_parallel(app), "_api_process_count", None)
    return count if isinstance(count, int) else None


def _parallel(app: Any) -> Any:
    return getattr(_config(app), "parallel_config", None)


def _config(app: Any) -> Any:
    return getattr(getattr(app, "state", None), "vllm_config", None)

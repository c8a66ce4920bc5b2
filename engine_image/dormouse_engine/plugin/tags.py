"""What the names of tags mean to us, in every version of every engine.

| tag | a sleep at level 1 | at level 2 | a wake brings it back |
|---|---|---|---|
| `weights` | keeps its content | drops it | if named, or if none is named |
| `kv_cache` | drops it | drops it | if named, or if none is named |
| `workspace` | drops it | drops it | always |
| `runtime`, `cudagraph`, `sleep_persistent` | keeps it | keeps it | always |
"""

from typing import Final

WEIGHTS: Final = "weights"
KV_CACHE: Final = "kv_cache"
DEFERRED: Final = frozenset({WEIGHTS, KV_CACHE})
"""They wait until somebody names them."""
KEPT: Final = frozenset({"runtime", "cudagraph", "sleep_persistent"})
"""Nobody could make them again, so their content survives every sleep."""
REMADE: Final = frozenset({KV_CACHE, "workspace"})
"""Nobody reads their content after a wake."""

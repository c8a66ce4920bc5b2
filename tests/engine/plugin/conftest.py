"""Without the native pool, which needs a compiler, this folder holds only the tests of what does without it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

WITHOUT_POOL = {"test_exposed.py", "test_hooks.py", "test_imports.py", "test_settings.py", "test_versions.py"}

collect_ignore = (
    []
    if importlib.util.find_spec("dormouse_native")
    else [path.name for path in Path(__file__).parent.glob("test_*.py") if path.name not in WITHOUT_POOL]
)

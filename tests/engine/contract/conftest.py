"""The engines' sources, for tests that read them.

`make test-engine` fetches them and says where they are; without `DORMOUSE_ENGINE_SOURCES` this folder holds no tests,
so that an ordinary run of the suite neither needs a network nor reports skips. With it, a source that is not there
is an error. What installs the plugin's hooks needs the native pool, and is left out where that is not built.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.engine.contract.tree import Tree, forget

if TYPE_CHECKING:
    from collections.abc import Iterator

collect_ignore_glob = [] if "DORMOUSE_ENGINE_SOURCES" in os.environ else ["test_*.py"]
if importlib.util.find_spec("dormouse_native") is None:
    collect_ignore_glob += ["test_hooks_in_real_shapes.py", "test_worker_methods.py"]


@pytest.fixture(scope="module", autouse=True)
def _trees() -> Iterator[None]:
    """Syntax trees are kept for one file of tests: they cost those of other rooms seconds at each sweep for garbage."""
    yield
    forget()


@pytest.fixture(scope="session")
def sources() -> Path:
    """The folder that holds `vllm-0.23.0/vllm` and its like."""
    if "DORMOUSE_ENGINE_SOURCES" not in os.environ:
        pytest.fail("these tests read the engines' sources: run them by `make test-engine`")
    return Path(os.environ["DORMOUSE_ENGINE_SOURCES"]).resolve()


@pytest.fixture
def tree(release: str, sources: Path) -> Tree:
    """One release, named by the test's parameter `release`."""
    folder = sources / release
    if not folder.is_dir():
        pytest.fail(f"no source of {release} in {sources}: run `python -m tests.engine.sources`")
    return Tree(folder)

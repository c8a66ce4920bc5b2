"""Two engines of real vLLM for the whole session: one as it comes, one that carries the guard.

`python -m tests.vllm_cpu` says where the environment and the model are; without it this folder holds no
tests, so that an ordinary run of the suite neither installs gigabytes nor reports skips.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.vllm_cpu import engines
from tests.vllm_cpu.talk import Talk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

TOKEN = "dream-of-cheese"

collect_ignore_glob = [] if "DORMOUSE_VLLM_CPU_PYTHON" in os.environ else ["test_*.py"]


class Installed(NamedTuple):
    """The interpreter that has vLLM, and the folder of the tiny model."""

    python: Path
    model: Path


class Pair(NamedTuple):
    """`bare` is vLLM as it comes, `guarded` has the guard in front."""

    bare: engines.Engine
    guarded: engines.Engine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)
            # An engine takes up to a minute to start, and its start counts into the first test.
            item.add_marker(pytest.mark.timeout(2 * engines.START_SECONDS))


@pytest.fixture(scope="session")
def installed() -> Installed:
    return Installed(
        Path(os.environ["DORMOUSE_VLLM_CPU_PYTHON"]), Path(os.environ["DORMOUSE_VLLM_CPU_MODEL"])
    )


@pytest.fixture(scope="session")
def pair(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("vllm-cpu")
    token_file = folder / "token"
    token_file.write_text(f"{TOKEN}\n")
    both = Pair(
        bare=engines.start(*installed, host="127.81.0.1", name="bare", folder=folder),
        guarded=engines.start(
            *installed, host="127.81.0.2", name="guarded", folder=folder, token_file=token_file
        ),
    )
    # Both at once: a start is mostly imports on one core, and there are two.
    with engines.running(*both):
        yield both


@pytest.fixture
async def guarded(pair: Pair) -> AsyncIterator[Talk]:
    """The guarded engine, awake before and after each test."""
    async with Talk.to(pair.guarded.url, pair.guarded.name, TOKEN) as talk:
        yield talk
        await talk.wake_fully()

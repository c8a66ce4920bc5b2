"""Links that are closed, and stand-in engines that are stopped, when a test ends."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.engine.standin.launch import StandIn
from tests.operator.engines.following import Followed, Waits
from tests.operator.engines.wire import Wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path


@pytest_asyncio.fixture
async def wire() -> AsyncIterator[Wire]:
    """A server that answers what the test says."""
    async with Wire() as opened:
        yield opened


@pytest_asyncio.fixture
async def follow() -> AsyncIterator[Callable[..., Followed]]:
    """Make links with these settings (`Waits`)."""
    async with AsyncExitStack() as stack:

        def make(**waits: Any) -> Followed:
            followed = Followed(Waits(**waits))
            stack.push_async_callback(followed.links.close)
            return followed

        yield make


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """A file with a token that engine and operator share."""
    path = tmp_path / "token"
    path.write_text("secret\n")
    return path


@pytest.fixture
def start(tmp_path: Path, token_file: Path) -> Iterator[Callable[..., StandIn]]:
    """Start a stand-in with these flags; `guard=True` puts the guard in front."""
    running: list[StandIn] = []

    def begin(*, guard: bool = False, **flags: Any) -> StandIn:
        env = {"DORMOUSE_TOKEN_FILE": str(token_file)} if guard else {}
        name = tmp_path / f"engine-{len(running)}"
        flags.setdefault("device_file", f"{name}.device")
        flags.setdefault("device_bytes", "20Gi")
        running.append(StandIn.start(tmp_path / f"{name}.log", env=env, **flags))
        return running[-1]

    yield begin
    for standin in running:
        standin.stop()

"""Fixtures that start stand-ins and stop every one of them, whatever a test did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.engine.standin.launch import StandIn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Start(Protocol):
    """Starts a stand-in with flags as keywords."""

    def __call__(self, *, env: dict[str, str] | None = None, **flags: Any) -> StandIn:
        """Return it when it answers `/health`."""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A function that starts stand-ins; each has its log in the test's folder."""
    running: list[StandIn] = []

    def launch(*, env: dict[str, str] | None = None, **flags: Any) -> StandIn:
        standin = StandIn.launch(tmp_path / f"log-{len(running)}", env=env, **flags)
        running.append(standin)
        standin.await_health()
        return standin

    yield launch
    for standin in running:
        standin.stop()


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """The path of a simulated device that no engine made yet."""
    return tmp_path / "device"

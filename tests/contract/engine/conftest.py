"""The engines under contract: the stand-in as each version it plays, or one that the environment names.

| variable | meaning |
|---|---|
| DORMOUSE_CONTRACT_URL | base URL; the suite then runs against this engine alone |
| DORMOUSE_CONTRACT_VERSION | its version, such as 0.32.0 (default: what /version says) |
| DORMOUSE_CONTRACT_TOKEN | bearer token for all requests |
| DORMOUSE_CONTRACT_CAPABILITIES | comma-separated names of `target.CAPABILITIES` (`reloads,load_tracking`) |
| DORMOUSE_CONTRACT_LONG_TOKENS | a max_tokens that takes a second or more (default 900) |
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import httpx
import pytest
import pytest_asyncio

from tests.contract.engine.target import CAPABILITIES, Target
from tests.engine.standin.launch import StandIn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

URL = os.environ.get("DORMOUSE_CONTRACT_URL")
VERSIONS = ("0.23", "0.32", "0.33")


@pytest.fixture(scope="session", params=[URL] if URL else VERSIONS)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of an engine."""
    if URL:
        yield URL
        return
    folder = tmp_path_factory.mktemp(f"standin-{request.param}")
    standin = StandIn.start(
        folder / "log", emulate=request.param, token_seconds=0.003, device_file=folder / "device"
    )
    yield standin.base
    standin.stop()


@pytest_asyncio.fixture(scope="session")
async def connected(place: str) -> AsyncIterator[Target]:
    """The engine as a target, for the whole session."""
    token = os.environ.get("DORMOUSE_CONTRACT_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    default = "reloads,load_tracking" if URL else ",".join(CAPABILITIES)
    capabilities = frozenset(os.environ.get("DORMOUSE_CONTRACT_CAPABILITIES", default).split(",")) - {""}
    assert capabilities <= CAPABILITIES.keys(), f"capabilities are: {', '.join(CAPABILITIES)}"
    # A connection per call: vLLM closes the one on which it answered 500 without saying so in the answer, and the
    # next call on it would fail.
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=place, headers=headers, limits=limits) as client:
        said = (await client.get("/version")).json()["version"]
        major, minor, *_ = os.environ.get("DORMOUSE_CONTRACT_VERSION", said).split(".")
        model = (await client.get("/v1/models")).json()["data"][0]["id"]
        long = int(os.environ.get("DORMOUSE_CONTRACT_LONG_TOKENS", "900" if URL else "300"))
        yield Target(client, (int(major), int(minor)), capabilities, model, long)


@pytest_asyncio.fixture
async def engine(connected: Target) -> AsyncIterator[Target]:
    """The engine, awake and serving before and after each test."""
    await connected.restore()
    yield connected
    await connected.restore()


@pytest.fixture(autouse=True)
def _needs(request: pytest.FixtureRequest) -> None:
    """Skip what this engine can't show, for its version or for what it is made of."""
    markers = {
        name: request.node.get_closest_marker(name) for name in ("needs", "from_version", "before_version")
    }
    if not any(markers.values()):
        return
    target: Target = request.getfixturevalue("connected")
    needs, first, last = markers["needs"], markers["from_version"], markers["before_version"]
    if needs and not set(needs.args) <= target.capabilities:
        pytest.skip(f"this engine lacks {', '.join(set(needs.args) - target.capabilities)}")
    if first and target.version < first.args:
        pytest.skip(f"only from vLLM {first.args[0]}.{first.args[1]} on")
    if last and target.version >= last.args:
        pytest.skip(f"only before vLLM {last.args[0]}.{last.args[1]}")


def pytest_configure(config: pytest.Config) -> None:
    """Name the markers of this suite."""
    config.addinivalue_line("markers", "needs(*capabilities): what the engine must be able to show")
    config.addinivalue_line("markers", "from_version(major, minor): from this vLLM on")
    config.addinivalue_line("markers", "before_version(major, minor): only in older vLLM")

"""What every folder shares: fixtures, of which nothing starts before a test asks, and how hard to look for examples.

Drawn examples are the same ones at each run, so that what a commit is told of holds tomorrow too. Others are looked for
by hand when a rule was changed, for minutes: `pytest tests/property --hypothesis-profile=hunt`.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from tests.cluster import Cluster

_LOG_LINES = 10
_LOG_COLUMNS = 300

settings.register_profile(
    "suite",
    max_examples=80,
    derandomize=True,
    # A busy machine is slow, not wrong.
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "hunt", settings.get_profile("suite"), max_examples=3000, derandomize=False, print_blob=True
)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One real Kubernetes for the whole session."""
    from tests.cluster import Cluster  # noqa: PLC0415 - unit tests shall not pay for it

    with Cluster() as started:
        yield started


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of the test's own, which already accepts pods; deleted afterwards."""
    name = f"test-{secrets.token_hex(4)}"
    cluster.create_namespace(name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails on a cluster shows what the cluster said last: its logs go with its folder."""
    report = yield
    cluster: Cluster | None = getattr(item, "funcargs", {}).get("cluster")
    if report.failed and cluster is not None:
        for log in sorted((cluster.state / "logs").glob("*.log")):
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
            report.sections.append((log.name, "\n".join(line[:_LOG_COLUMNS] for line in lines)))
    return report

"""Helm on our charts: what the tests and nobody else need of it."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.binaries import BINARIES, obtain

CHARTS = Path(__file__).resolve().parents[2] / "charts"
CHART = CHARTS / "dormouse"
CRDS_CHART = CHARTS / "dormouse-crds"
VALUES = sorted((CHART / "ci").glob("*-values.yaml"))

Object = dict[str, Any]


class HelmError(RuntimeError):
    """Helm refused; the message is what it said."""


def helm(*args: str, state: Path | None = None) -> str:
    """Run helm and return what it printed; `state` is where it keeps its caches."""
    folders = {}
    if state is not None:
        kinds = ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "KUBECACHEDIR")
        folders = {kind: str(state / kind.lower()) for kind in kinds}
    result = subprocess.run(
        [str(obtain("helm")), *args],
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
        # A KUBECONFIG of whoever runs the tests must never be reached by mistake.
        env={**os.environ, "KUBECONFIG": os.devnull, **folders},
    )
    if result.returncode != 0:
        raise HelmError(result.stderr.strip())
    return result.stdout


def render(*flags: str, chart: Path = CHART, values: Path | None = None) -> list[Object]:
    """Render a chart as release `rel` in the namespace `ns`; returns the objects.

    Raises:
        HelmError: the values don't fit the schema, or a template refused them.

    """
    given = ["--values", str(values)] if values else []
    text = helm(
        "template", "rel", str(chart), "--namespace=ns", f"--kube-version={_version()}", *given, *flags
    )
    return [document for document in yaml.safe_load_all(text) if document]


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    """Return the objects of these kinds, in order."""
    return [item for item in objects if item["kind"] in kinds]


@cache
def _version() -> str:
    # A helm that was built without version stamps believes in an ancient Kubernetes.
    return BINARIES["kube-apiserver"].version

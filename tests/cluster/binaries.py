"""Finds the programs of the cluster, and builds those that the machine does not have.

The order is: `$KUBEBUILDER_ASSETS` (what setup-envtest downloads: etcd, kube-apiserver and kubectl), `PATH`, what
was built before into the harness's own cache, and last a build from the pinned Go modules. Who has a program
need not compile one. envtest ships neither kube-controller-manager nor kube-scheduler, so those two are still
built or taken from `PATH`.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.cluster.build import GOBUILD, build
from tests.cluster.errors import ClusterError


@dataclass(frozen=True)
class Binary:
    """Where one program comes from: `module` is a folder of gobuild/, `package` its import path."""

    name: str
    module: str
    required: str
    package: str
    minutes: float

    @property
    def version(self) -> str:
        """The pinned version, read from the module's go.mod."""
        text = (GOBUILD / self.module / "go.mod").read_text(encoding="utf-8")
        match = re.search(rf"^(?:require )?\s*{re.escape(self.required)} (v\S+)", text, re.MULTILINE)
        if match is None:
            raise ClusterError(f"tests/cluster/gobuild/{self.module}/go.mod does not require {self.required}")
        return match[1]

    @property
    def cached(self) -> Path:
        """Where a build of the pinned version lies."""
        return cache_folder() / "bin" / f"{self.name}-{self.version}"


def _kubernetes(name: str, minutes: float) -> Binary:
    return Binary(name, "kubernetes", "k8s.io/kubernetes", f"k8s.io/kubernetes/cmd/{name}", minutes)


BINARIES = {
    binary.name: binary
    for binary in (
        Binary("etcd", "etcd", "go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/server/v3", 0.5),
        _kubernetes("kube-apiserver", 3),
        _kubernetes("kube-controller-manager", 1),
        _kubernetes("kube-scheduler", 0.5),
        _kubernetes("kubectl", 0.5),
        Binary("helm", "helm", "helm.sh/helm/v3", "helm.sh/helm/v3/cmd/helm", 2),
    )
}


def cache_folder() -> Path:
    """Return `$DORMOUSE_CACHE`, by default ~/.cache/dormouse."""
    return Path(os.environ.get("DORMOUSE_CACHE") or Path.home() / ".cache" / "dormouse")


def find(name: str) -> Path | None:
    """Return the program without building anything, or None."""
    binary = BINARIES[name]
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and os.access(Path(assets) / name, os.X_OK):
        return Path(assets) / name
    on_path = shutil.which(name)
    if on_path:
        return Path(on_path)
    return binary.cached if os.access(binary.cached, os.X_OK) else None


@cache
def obtain(name: str) -> Path:
    """Return the program, built first if need be.

    Raises:
        ClusterError: it is nowhere and can't be built; says what to install.

    """
    found = find(name)
    if found is not None:
        return found
    binary = BINARIES[name]
    go = shutil.which("go")
    if go is None:
        raise ClusterError(_what_to_install(binary))
    build(
        go,
        module=binary.module,
        package=binary.package,
        target=binary.cached,
        version=binary.version,
        minutes=binary.minutes,
    )
    return binary.cached


def _what_to_install(binary: Binary) -> str:
    text = (GOBUILD / binary.module / "go.mod").read_text(encoding="utf-8")
    match = re.search(r"^go (\S+)", text, re.MULTILINE)
    go_version = match[1] if match else "(see go.mod)"
    lines = [
        f"{binary.name} {binary.version} is nowhere, and there is no Go to build it with. Searched:",
        f"  $KUBEBUILDER_ASSETS ({os.environ.get('KUBEBUILDER_ASSETS') or 'not set'})",
        "  PATH",
        f"  {binary.cached}",
        "Do one of these:",
        f"  * install Go {go_version} or newer (https://go.dev/dl) and run this again;",
        f"    {binary.name} is then built once, in about {binary.minutes:g} minutes, and cached",
    ]
    if binary.name in {"etcd", "kube-apiserver", "kubectl"}:
        series = ".".join(BINARIES["kube-apiserver"].version.lstrip("v").split(".")[:2])
        lines.append(
            f"  * run `setup-envtest use {series}.x -p path` and set KUBEBUILDER_ASSETS to what it prints"
            "\n    (setup-envtest: sigs.k8s.io/controller-runtime/tools/setup-envtest)"
        )
    lines.append(f"  * put {binary.name} on PATH")
    return "\n".join(lines)

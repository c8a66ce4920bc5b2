"""Writes kubeconfig files: everything inline, so that one file is all that a program needs."""

from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def write_kubeconfig(
    path: Path,
    *,
    server: str,
    authority: Path,
    certificate: tuple[Path, Path] | None = None,
    token: str | None = None,
    namespace: str = "default",
) -> Path:
    """Write a kubeconfig that authenticates by client certificate or by token; returns `path`."""
    user: dict[str, Any] = {}
    if certificate is not None:
        user["client-certificate-data"] = _inline(certificate[0])
        user["client-key-data"] = _inline(certificate[1])
    if token is not None:
        user["token"] = token
    return _write(path, server=server, authority=_inline(authority), user=user, namespace=namespace)


def kubeconfig_with_token_file(
    path: Path, *, server: str, authority: str, token_file: Path, namespace: str
) -> Path:
    """Write a kubeconfig that reads its token from a file, which may change; `authority` is PEM text."""
    encoded = base64.b64encode(authority.encode()).decode()
    user = {"tokenFile": str(token_file)}
    return _write(path, server=server, authority=encoded, user=user, namespace=namespace)


def _write(path: Path, *, server: str, authority: str, user: dict[str, Any], namespace: str) -> Path:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "dormouse",
        "clusters": [
            {
                "name": "dormouse",
                "cluster": {"server": server, "certificate-authority-data": authority},
            }
        ],
        "users": [{"name": "dormouse", "user": user}],
        "contexts": [
            {
                "name": "dormouse",
                "context": {"cluster": "dormouse", "user": "dormouse", "namespace": namespace},
            }
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as handle:
        # JSON is YAML.
        json.dump(document, handle, indent=2)
    scratch.rename(path)
    return path


def _inline(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()

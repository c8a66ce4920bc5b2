"""From a container's spec to the command line, environment and folder of its process."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster.kubeconfig import kubeconfig_with_token_file
from tests.cluster.kubelet.container import Command
from tests.cluster.kubelet.downward import ConfigError
from tests.cluster.kubelet.env import environment, expand
from tests.cluster.kubelet.volumes import TOKEN_MOUNT, Volumes, rewrite

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.kubelet.api import Api, Object
    from tests.cluster.kubelet.objects import Key


def prepare(
    pod: Object,
    container: Object,
    *,
    folder: Path,
    volumes: Volumes,
    lookup: Callable[[Key], Object | None],
    api: Api,
    addresses: tuple[str, str],
) -> Command:
    """Return what to run; raises ConfigError when the spec asks for what is not there."""
    paths = volumes.paths(container)

    def real(text: str) -> str:
        return rewrite(text, paths)

    own = environment(pod, container, lookup=lookup, pod_ip=addresses[0], host_ip=addresses[1])
    # Expanded before rewritten, so that a path put together from variables is found too.
    argv = [real(expand(word, own)) for word in [*container.get("command", []), *container.get("args", [])]]
    if "command" not in container:
        raise ConfigError(f"container {container['name']!r} needs a command: there are no images here")
    env = _base(pod, folder, api) | {name: real(value) for name, value in own.items()}
    if TOKEN_MOUNT in paths and "KUBECONFIG" not in own:
        env["KUBECONFIG"] = str(_kubeconfig(pod, folder, paths[TOKEN_MOUNT], api))
    cwd = Path(real(container["workingDir"])) if "workingDir" in container else folder
    argv[0] = shutil.which(argv[0], path=env["PATH"]) or argv[0]
    return Command(argv, env, cwd, real)


def _base(pod: Object, folder: Path, api: Api) -> dict[str, str]:
    """Return what every container has, as an image and the kubelet would give it."""
    own_programs = str(Path(sys.executable).parent)
    host, _, port = api.url.removeprefix("https://").rpartition(":")
    return {
        "PATH": os.pathsep.join([own_programs, os.environ.get("PATH", os.defpath)]),
        "HOME": str(folder),
        "TMPDIR": str(folder / "tmp"),
        "LANG": "C.UTF-8",
        "HOSTNAME": pod["metadata"]["name"],
        "KUBERNETES_SERVICE_HOST": host,
        "KUBERNETES_SERVICE_PORT": port,
    }


def _kubeconfig(pod: Object, folder: Path, mount: str, api: Api) -> Path:
    return kubeconfig_with_token_file(
        folder / "kubeconfig",
        server=api.url,
        authority=api.authority,
        token_file=Path(mount) / "token",
        namespace=pod["metadata"]["namespace"],
    )

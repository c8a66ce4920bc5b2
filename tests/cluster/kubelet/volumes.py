"""A pod's volumes as folders, and the rewriting of mount paths to them.

Files of Secrets, ConfigMaps and projections change all at once, as on a real node: a new folder is written,
then the link `..data` is swapped to it. Whoever has a file open never sees half a change.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster.kubelet.downward import ConfigError, field
from tests.cluster.kubelet.env import object_data
from tests.cluster.kubelet.objects import Key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.cluster.kubelet.api import Object

TOKEN_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_WORD = r"[\w.-]"


class Volumes:
    """The volumes of one pod under `folder`.

    Args:
        pod: the pod.
        folder: where emptyDir and file volumes lie, one folder per volume.
        lookup: gives a Secret or ConfigMap, None when there is none.
        token: gives the ServiceAccount token that a projection asks for, by its source.
        pod_ip: for the downward API.
        host_ip: for the downward API.

    """

    def __init__(
        self,
        pod: Object,
        folder: Path,
        *,
        lookup: Callable[[Key], Object | None],
        token: Callable[[Object], str],
        pod_ip: str,
        host_ip: str,
    ) -> None:
        self._pod = pod
        self._folder = folder
        self._lookup = lookup
        self._token = token
        self._addresses = {"pod_ip": pod_ip, "host_ip": host_ip}

    def write(self, pod: Object) -> None:
        """Make every volume as it should be now; raises ConfigError for what is missing or not supported."""
        self._pod = pod
        for volume in pod["spec"].get("volumes", []):
            if "hostPath" in volume:
                self._host_path(volume["hostPath"])
            elif "emptyDir" in volume:
                (self._folder / volume["name"]).mkdir(parents=True, exist_ok=True)
            else:
                _swap(self._folder / volume["name"], self._files(volume))

    def remove(self) -> None:
        """Delete them; what a hostPath names stays."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def paths(self, container: Object) -> dict[str, str]:
        """Return real paths by mountPath."""
        by_name = {volume["name"]: volume for volume in self._pod["spec"].get("volumes", [])}
        result = {}
        for mount in container.get("volumeMounts", []):
            volume = by_name[mount["name"]]
            host = volume.get("hostPath", {}).get("path")
            real = Path(host) if host else self._folder / mount["name"]
            result[mount["mountPath"].rstrip("/")] = str(real / mount.get("subPath", ""))
        return result

    @staticmethod
    def _host_path(source: Object) -> None:
        path = Path(source["path"])
        if source.get("type") == "DirectoryOrCreate":
            path.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            raise ConfigError(f"hostPath {path} does not exist")

    def _files(self, volume: Object) -> dict[str, bytes]:
        if "projected" not in volume:
            return self._source(volume, volume["name"])
        files: dict[str, bytes] = {}
        for source in volume["projected"].get("sources", []):
            files |= self._source(source, volume["name"])
        return files

    def _source(self, source: Object, volume: str) -> dict[str, bytes]:
        namespace = self._pod["metadata"]["namespace"]
        if "secret" in source:
            name = source["secret"].get("secretName") or source["secret"]["name"]
            return self._object(Key("secrets", namespace, name), source["secret"])
        if "configMap" in source:
            return self._object(
                Key("configmaps", namespace, source["configMap"]["name"]), source["configMap"]
            )
        if "downwardAPI" in source:
            return {
                item["path"]: field(self._pod, item["fieldRef"]["fieldPath"], **self._addresses).encode()
                for item in source["downwardAPI"].get("items", [])
            }
        if "serviceAccountToken" in source:
            wanted = source["serviceAccountToken"]
            return {wanted["path"]: self._token(wanted).encode()}
        raise ConfigError(f"volume {volume!r} is of a kind that the process kubelet does not support")

    def _object(self, key: Key, source: Object) -> dict[str, bytes]:
        found = self._lookup(key)
        if found is None:
            if source.get("optional"):
                return {}
            raise ConfigError(f"{key.kind.removesuffix('s')} {key.name!r} not found")
        data = object_data(key, found)
        if "items" not in source:
            return data
        missing = [item["key"] for item in source["items"] if item["key"] not in data]
        if missing and not source.get("optional"):
            raise ConfigError(f"{key.kind.removesuffix('s')} {key.name!r} has no key {missing[0]!r}")
        return {item["path"]: data[item["key"]] for item in source["items"] if item["key"] in data}


def rewrite(text: str, paths: Mapping[str, str]) -> str:
    """Replace every mount path in `text` by its real path, where it stands as a whole path or leads one."""
    if not paths:
        return text
    longest_first = sorted(paths, key=len, reverse=True)
    pattern = "|".join(re.escape(path) for path in longest_first)
    return re.sub(rf"(?<!{_WORD})(?<!/)({pattern})(?!{_WORD})", lambda match: paths[match[1]], text)


def _swap(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make `folder` hold exactly `files`, by paths relative to it, in one step."""
    folder.mkdir(parents=True, exist_ok=True)
    current = folder / "..data"
    if current.exists() and _read(current.resolve()) == dict(files):
        return
    old = current.resolve() if current.is_symlink() else None
    new = Path(tempfile.mkdtemp(dir=folder, prefix="..version-"))
    for name, content in files.items():
        (new / name).parent.mkdir(parents=True, exist_ok=True)
        (new / name).write_bytes(content)
    link = folder / "..data-next"
    link.unlink(missing_ok=True)
    link.symlink_to(new.name)
    link.rename(current)
    tops = {name.split("/")[0] for name in files}
    for top in tops:
        if not (folder / top).is_symlink():
            (folder / top).symlink_to(f"..data/{top}")
    for entry in folder.iterdir():
        if entry.is_symlink() and not entry.name.startswith("..") and entry.name not in tops:
            entry.unlink()
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def _read(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }

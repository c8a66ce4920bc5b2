"""A container's environment and command line, with `$(VAR)` expanded as Kubernetes does."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

from tests.cluster.kubelet.downward import ConfigError, field
from tests.cluster.kubelet.objects import Key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.cluster.kubelet.api import Object

_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace `$(NAME)` by the variable; an unknown one stays as it is, and `$$` is a plain dollar."""

    def value(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else variables.get(match[1], match[0])

    return _REFERENCE.sub(value, text)


def environment(
    pod: Object, container: Object, *, lookup: Callable[[Key], Object | None], pod_ip: str, host_ip: str
) -> dict[str, str]:
    """Return the variables that the container's `envFrom` and `env` give, in their order.

    Raises:
        ConfigError: a Secret, ConfigMap or key is missing and not optional.

    """
    namespace = pod["metadata"]["namespace"]
    result: dict[str, str] = {}
    for source in container.get("envFrom", []):
        data = _bulk(source, namespace, lookup)
        result.update({source.get("prefix", "") + key: value for key, value in data.items()})
    for variable in container.get("env", []):
        origin = variable.get("valueFrom")
        if origin is None:
            result[variable["name"]] = expand(variable.get("value", ""), result)
        elif "fieldRef" in origin:
            path = origin["fieldRef"]["fieldPath"]
            result[variable["name"]] = field(pod, path, pod_ip=pod_ip, host_ip=host_ip)
        else:
            found = _from_key(origin, namespace, lookup)
            if found is not None:
                result[variable["name"]] = found
    return result


def object_data(key: Key, found: Object) -> dict[str, bytes]:
    """Return the entries of a Secret or ConfigMap as bytes."""
    if key.kind == "secrets":
        return {name: base64.b64decode(value) for name, value in found.get("data", {}).items()}
    texts = {name: value.encode() for name, value in found.get("data", {}).items()}
    return texts | {name: base64.b64decode(value) for name, value in found.get("binaryData", {}).items()}


def _bulk(source: Object, namespace: str, lookup: Callable[[Key], Object | None]) -> dict[str, str]:
    if "secretRef" in source:
        reference, key = source["secretRef"], Key("secrets", namespace, source["secretRef"]["name"])
    else:
        reference, key = source["configMapRef"], Key("configmaps", namespace, source["configMapRef"]["name"])
    found = lookup(key)
    if found is None:
        if reference.get("optional"):
            return {}
        raise ConfigError(f"{_word(key)} {key.name!r} not found")
    return {name: value.decode() for name, value in object_data(key, found).items()}


def _from_key(origin: Object, namespace: str, lookup: Callable[[Key], Object | None]) -> str | None:
    if "secretKeyRef" in origin:
        reference, key = origin["secretKeyRef"], Key("secrets", namespace, origin["secretKeyRef"]["name"])
    elif "configMapKeyRef" in origin:
        reference = origin["configMapKeyRef"]
        key = Key("configmaps", namespace, reference["name"])
    else:
        raise ConfigError(f"env valueFrom {', '.join(origin)} is not supported by the process kubelet")
    found = lookup(key)
    data = {} if found is None else object_data(key, found)
    if reference["key"] in data:
        return data[reference["key"]].decode()
    if reference.get("optional"):
        return None
    if found is None:
        raise ConfigError(f"{_word(key)} {key.name!r} not found")
    raise ConfigError(f"couldn't find key {reference['key']} in {_word(key)} {key.namespace}/{key.name}")


def _word(key: Key) -> str:
    return {"secrets": "secret", "configmaps": "configmap"}[key.kind]

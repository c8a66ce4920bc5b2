"""The environment variables that become flags of `vllm serve`: few, those that nearly every manifest sets.

Everything else is an argument. An empty variable counts as unset. A value is checked only as far as its mistake would
be hard to understand later; what vLLM means by a dtype is vLLM's business.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dormouse_engine.serve.errors import ServeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MODEL = "DORMOUSE_MODEL"


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable; `read` returns the words behind the flag, None for no flag at all; it raises ValueError."""

    name: str
    flag: str
    meaning: str
    wanted: str
    read: Callable[[str], list[str] | None]


def _text(raw: str) -> list[str]:
    return [raw]


def _names(raw: str) -> list[str]:
    names = [name.strip() for name in raw.split(",")]
    if not all(names):
        raise ValueError(raw)
    return names


def _whole(raw: str) -> list[str]:
    if not (raw.isascii() and raw.isdigit() and int(raw) > 0):
        raise ValueError(raw)
    return [raw]


def _port(raw: str) -> list[str]:
    if int(*_whole(raw)) > 65535:
        raise ValueError(raw)
    return [raw]


def _share(raw: str) -> list[str]:
    if not 0 < float(raw) <= 1:
        raise ValueError(raw)
    return [raw]


def _size(raw: str) -> list[str]:
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?[kKmMgGtT]?i?", raw) is None:
        raise ValueError(raw)
    return [raw]


def _switch(raw: str) -> list[str] | None:
    if raw.lower() in {"1", "true", "yes", "on"}:
        return []
    if raw.lower() in {"0", "false", "no", "off"}:
        return None
    raise ValueError(raw)


VARIABLES: tuple[Variable, ...] = (
    Variable(
        MODEL, "MODEL", "what to serve: a folder, or a name on the model hub", "such as /models/qwen3", _text
    ),
    Variable(
        "DORMOUSE_SERVED_MODEL_NAME",
        "--served-model-name",
        "names that clients may use, separated by commas",
        "names such as qwen3,default",
        _names,
    ),
    Variable(
        "DORMOUSE_HOST", "--host", "address to listen on (default: all)", "an address such as 0.0.0.0", _text
    ),
    Variable("DORMOUSE_PORT", "--port", "port to listen on (default: 8000)", "a port such as 8000", _port),
    Variable("DORMOUSE_DTYPE", "--dtype", "type of weights and activations", "such as bfloat16", _text),
    Variable(
        "DORMOUSE_QUANTIZATION", "--quantization", "how the weights are quantised", "such as fp8", _text
    ),
    Variable("DORMOUSE_LOAD_FORMAT", "--load-format", "how weights are loaded", "such as safetensors", _text),
    Variable(
        "DORMOUSE_MAX_MODEL_LEN",
        "--max-model-len",
        "longest context, in tokens",
        "a number such as 32768 or 32k",
        _size,
    ),
    Variable(
        "DORMOUSE_MAX_NUM_SEQS",
        "--max-num-seqs",
        "requests that run at once",
        "a whole number such as 64",
        _whole,
    ),
    Variable(
        "DORMOUSE_GPU_MEMORY_UTILIZATION",
        "--gpu-memory-utilization",
        "share of the device that the engine may take; leave room for what sleeping neighbours still hold",
        "a number above 0 and up to 1, such as 0.85",
        _share,
    ),
    Variable(
        "DORMOUSE_KV_CACHE_MEMORY_BYTES",
        "--kv-cache-memory-bytes",
        "size of the KV cache, in place of that share",
        "a size such as 4G",
        _size,
    ),
    Variable(
        "DORMOUSE_TENSOR_PARALLEL_SIZE",
        "--tensor-parallel-size",
        "devices that the model is split over",
        "a whole number such as 2",
        _whole,
    ),
    Variable(
        "DORMOUSE_ENFORCE_EAGER",
        "--enforce-eager",
        "no graphs and no compilation: quick to start, slower to serve",
        "1 or 0",
        _switch,
    ),
)


def read(environ: Mapping[str, str]) -> tuple[str | None, list[str]]:
    """Return the model (None: not set) and the flags that the variables give; raises ServeError."""
    model: str | None = None
    flags: list[str] = []
    for variable in VARIABLES:
        raw = environ.get(variable.name, "").strip()
        if not raw:
            continue
        try:
            words = variable.read(raw)
        except ValueError:
            words = ["-"]
        # A value that looks like a flag would be read as one.
        if words is not None and any(word.startswith("-") for word in words):
            raise ServeError(f"{variable.name}={raw!r} is not usable: give {variable.wanted}")
        if words is None:
            continue
        if variable.name == MODEL:
            model = words[0]
        else:
            flags += [variable.flag, *words]
    return model, flags


def rows() -> list[str]:
    """Return the variables as rows of a Markdown table, for the reference page."""
    return [f"| `{one.name}` | `{one.flag}` | {one.meaning} |" for one in VARIABLES]

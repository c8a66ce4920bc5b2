"""Every flag of the stand-in, each also a variable: `--weights-bytes` is `STANDIN_WEIGHTS_BYTES`.

Sizes take Kubernetes' suffixes (`512Mi`, `40Gi`). *Simulated* sizes are what the device file accounts; *real*
sizes are RSS of this process.
"""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, get_args

from dormouse_engine.facts.model import Deepest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VERSIONS = {"0.23": "0.23.0", "0.32": "0.32.0", "0.33": "0.33.0"}
TIERS: tuple[Deepest, ...] = get_args(Deepest)
_UNITS = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 1 << 10,
    "Mi": 1 << 20,
    "Gi": 1 << 30,
    "Ti": 1 << 40,
}


def parse_size(text: str) -> int:
    """Read bytes from a quantity such as `64Mi`; raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(|[kMGT]|[KMGT]i)", text)
    if match is None:
        raise ValueError(f"{text!r} is no size; write bytes or a quantity such as 512Mi or 40Gi")
    return int(float(match[1]) * _UNITS[match[2]])


def parse_bool(text: str) -> bool:
    """Read 1, true, yes, on or 0, false, no, off; raises ValueError."""
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def parse_names(text: str) -> tuple[str, ...]:
    """Read a comma-separated list; empty text gives an empty one."""
    return tuple(part for part in text.split(",") if part)


def parse_tier(text: str) -> str:
    """Read a tier or nothing; raises ValueError."""
    if text not in ("", *TIERS):
        raise ValueError(f"{text!r} is no tier; write one of {', '.join(TIERS)}")
    return text


def _flag(default: Any, help_: str, parse: Any = str) -> Any:
    return field(default=default, metadata={"help": help_, "parse": parse})


@dataclass(frozen=True, slots=True)
class Options:
    """One engine's settings; sizes in bytes, times in seconds."""

    model: str = _flag("standin", "model name; with seed and revision it gives the weights")
    served_model_name: tuple[str, ...] = _flag(
        (), "names clients may use, comma-separated (default: the model)", parse_names
    )
    host: str = _flag("127.0.0.1", "address to listen on")
    port: int = _flag(8000, "port to listen on", int)
    emulate: str = _flag("0.32", f"vLLM version to behave like: {', '.join(VERSIONS)}")
    dev_mode: bool = _flag(
        default=True, help_="serve the dev endpoints (vLLM: VLLM_SERVER_DEV_MODE=1)", parse=parse_bool
    )
    load_tracking: bool = _flag(
        default=True, help_="count for GET /load (vLLM: --enable-server-load-tracking)", parse=parse_bool
    )
    seed: int = _flag(0, "seed of the weights", int)
    revision: str = _flag("main", "revision of the weights at start; reload_weights may name another")
    max_model_len: int = _flag(4096, "longest prompt plus answer, in bytes", int)
    max_num_seqs: int = _flag(256, "requests that run at once; more wait", int)
    token_seconds: float = _flag(0.0, "time per generated token", float)
    device_file: tuple[str, ...] = _flag(
        (), "file(s) of the simulated device(s), comma-separated; none: no device", parse_names
    )
    device_uuid: tuple[str, ...] = _flag(
        ("SIM-0",), "the devices' ids, used by whoever makes the file", parse_names
    )
    device_bytes: int = _flag(
        80 << 30, "simulated: size of each device, used by whoever makes the file", parse_size
    )
    context_bytes: int = _flag(
        512 << 20, "simulated: what the process holds as long as it lives (the residual)", parse_size
    )
    weights_bytes: int = _flag(8 << 30, "simulated: tag weights, over all devices", parse_size)
    kv_bytes: int = _flag(4 << 30, "simulated: tag kv_cache, over all devices", parse_size)
    arena_bytes: int = _flag(
        0, "real: ballast in the arena beside the transformer, moved with the weights", parse_size
    )
    arena_kv_bytes: int = _flag(0, "real: ballast of the tag kv_cache in the arena", parse_size)
    boot_seconds: float = _flag(0.0, "time spent profiling before the KV cache is taken", float)
    sleep_seconds: float = _flag(0.0, "time of a sleep beside the real work", float)
    wake_seconds: float = _flag(0.0, "time of a wake beside the real work", float)
    reload_seconds: float = _flag(0.0, "time of reload_weights beside the real work", float)
    sleep_seconds_per_gib: float = _flag(0.0, "added to a level-1 sleep per simulated GiB of weights", float)
    wake_seconds_per_gib: float = _flag(
        0.0, "added to a wake per simulated GiB of weights that come from the host copy", float
    )
    strict: bool = _flag(
        default=False, help_="touching memory that is asleep kills the core, as on a GPU", parse=parse_bool
    )
    roll_back: bool = _flag(
        default=False, help_="a sleep after a partial wake gives the resident tags back", parse=parse_bool
    )
    deepest: str = _flag(
        "",
        f"deepest tier from which the guard says that it comes back right: {', '.join(TIERS)}; none: nothing is said",
        parse_tier,
    )
    dead_exit_seconds: float = _flag(0.5, "from a dead core to the end of the process (real: about 5)", float)
    faults: str = _flag("", "fault rules as JSON, or @FILE")
    guard: bool = _flag(
        default=False, help_="put the guard in front even without DORMOUSE_TOKEN_FILE", parse=parse_bool
    )

    @property
    def names(self) -> tuple[str, ...]:
        """The names clients may use; the first one is what answers carry."""
        return self.served_model_name or (self.model,)

    @property
    def version(self) -> tuple[int, int]:
        """The emulated version, comparable."""
        major, minor = self.emulate.split(".")
        return int(major), int(minor)


def add_arguments(
    parser: argparse.ArgumentParser, environment: Mapping[str, str], *, without: tuple[str, ...] = ()
) -> None:
    """Add a flag per field, its default taken from the environment; a boolean flag alone means true."""
    for option in fields(Options):
        if option.name in without:
            continue
        parse = option.metadata["parse"]
        text = environment.get(f"STANDIN_{option.name.upper()}")
        boolean: dict[str, Any] = {"nargs": "?", "const": True} if parse is parse_bool else {}
        parser.add_argument(
            f"--{option.name.replace('_', '-')}",
            type=parse,
            # argparse runs `type` over a default that is text, so a bad variable is reported like a bad flag.
            default=option.default if text is None else text,
            help=f"{option.metadata['help']} [{option.default!r}]".replace("%", "%%"),
            choices=tuple(VERSIONS) if option.name == "emulate" else None,
            **boolean,
        )


def parse_options(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Options:
    """Read flags, then STANDIN_* variables, then defaults; a mistake ends the process with a message."""
    parser = argparse.ArgumentParser(
        prog="dormouse-standin", description="A stand-in for vLLM.", allow_abbrev=False
    )
    add_arguments(parser, environment)
    return Options(**vars(parser.parse_args(arguments)))


def flag_rows() -> list[str]:
    """Return the flags as rows of a Markdown table, for the reference page."""
    return [
        f"| `--{option.name.replace('_', '-')}` | {_shown(option.default)} | {option.metadata['help']} |"
        for option in fields(Options)
    ]


def _shown(default: Any) -> str:
    text = ",".join(default) if isinstance(default, tuple) else str(default)
    if isinstance(default, bool):
        text = text.lower()
    elif isinstance(default, int) and default >= _UNITS["Mi"]:
        unit = "Gi" if default % _UNITS["Gi"] == 0 else "Mi"
        text = f"{default // _UNITS[unit]}{unit}"
    return f"`{text}`" if text else ""

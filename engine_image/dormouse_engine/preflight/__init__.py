"""Checks before an engine starts: what is active, and what would fail later where it is harder to understand.

`collect` looks (at the environment, the arguments of `vllm serve`, the machine), `judge` decides over what was seen
and looks at nothing; so every decision is tested without the machine that it is about. Nothing here imports vLLM or
torch or touches a device: that would cost seconds, and a context that the engine can't have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dormouse_engine.preflight.checks import judge
from dormouse_engine.preflight.collect import collect
from dormouse_engine.preflight.finding import Finding, Level

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Finding", "Level", "collect", "judge", "run"]


def run(arguments: Sequence[str], environ: Mapping[str, str] | None = None) -> list[Finding]:
    """Check an engine that is about to start with these arguments of `vllm serve` (default environment: ours)."""
    return judge(collect(arguments, environ))

"""Faults on demand: what a real engine does rarely and a test must see now.

A fault is a rule: *at* which operation, *when* in it, *what* happens, how often. Rules come from `--faults`
at start and from `PUT /standin/faults` at run time; all randomness comes from one seed. Two groups of kinds:

* any operation, any moment: `slow` (seconds), `fail` (500 with a message), `hang` (until the rules change),
  `die` (the process is gone, with an exit code), `core_dead` (`/health` 503, then exit 0), `freeze`
  (`/health` and `/metrics` answer, everything that needs the core waits; it thaws after `seconds`, or when
  the rules change if that is 0);
* inside one operation: `freed_nothing` (sleep answers 200, the memory stays), `leak` (each sleep leaves
  `bytes` behind on the device), `oom` (a wake finds no room, cleanly), `partial_wake` (a wake takes one tag
  and then fails: a zombie), `corrupt` (after a wake the weights are wrong).
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

OPERATIONS = ("start", "sleep", "wake", "reload", "request")
MOMENTS = ("before", "mid", "after")
ANYWHERE = ("slow", "fail", "hang", "die", "core_dead", "freeze")
INSIDE = {
    "freed_nothing": "sleep",
    "leak": "sleep",
    "oom": "wake",
    "partial_wake": "wake",
    "corrupt": "wake",
}


class FaultError(RuntimeError):
    """An operation fails because a rule says so; the message goes into the 500."""


@dataclass(slots=True)
class Fault:
    """One rule. `count` None: every time; `skip`: let that many pass first; `hits`: how often it struck."""

    at: str
    kind: str
    when: str = "before"
    count: int | None = None
    skip: int = 0
    probability: float = 1.0
    seconds: float = 0.0
    bytes: int = 0
    exit_code: int = 1
    message: str = "injected fault"
    hits: int = 0

    def __post_init__(self) -> None:
        """Reject what could never strike; raises ValueError that names the field."""
        if self.at not in OPERATIONS:
            raise ValueError(f"at must be one of {', '.join(OPERATIONS)}, not {self.at!r}")
        if self.when not in MOMENTS:
            raise ValueError(f"when must be one of {', '.join(MOMENTS)}, not {self.when!r}")
        if self.kind not in (*ANYWHERE, *INSIDE):
            raise ValueError(f"kind must be one of {', '.join((*ANYWHERE, *INSIDE))}, not {self.kind!r}")
        if self.at == "start" and self.kind in ("core_dead", "freeze"):
            raise ValueError(f"{self.kind} can't happen at start: nothing serves yet that could show it")
        if INSIDE.get(self.kind, self.at) != self.at:
            raise ValueError(f"{self.kind} happens at {INSIDE[self.kind]}, not at {self.at}")


def parse_faults(document: Any) -> tuple[list[Fault], int]:
    """Read `{"seed": 0, "faults": [{"at", "kind", …}]}`, or just the list; raises ValueError."""
    if isinstance(document, list):
        document = {"faults": document}
    if not isinstance(document, dict) or set(document) - {"seed", "faults"}:
        raise ValueError('faults are a list of rules or {"seed": n, "faults": [rules]}')
    known = {field.name for field in fields(Fault)} - {"hits"}
    rules = []
    for rule in document.get("faults", []):
        if not isinstance(rule, dict) or set(rule) - known or not {"at", "kind"} <= set(rule):
            raise ValueError(f"a rule has at, kind and optionally {', '.join(sorted(known))}; got {rule!r}")
        rules.append(Fault(**rule))
    return rules, int(document.get("seed", 0))


class Faults:
    """The rules in force. `die`, `core_dead` and `freeze` are the engine's own ways to end or stop."""

    def __init__(
        self,
        *,
        die: Callable[[int], None],
        core_dead: Callable[[], None],
        freeze: Callable[[float], None],
        thaw: Callable[[], None],
    ) -> None:
        self._die, self._core_dead, self._freeze, self._thaw = die, core_dead, freeze, thaw
        self._rules: list[Fault] = []
        self._random = random.Random(0)  # noqa: S311  reproducible on purpose
        self._changed = asyncio.Event()

    def replace(self, rules: list[Fault], seed: int) -> None:
        """Put new rules in force; what hangs or is frozen goes on."""
        self._rules = rules
        self._random = random.Random(seed)  # noqa: S311  reproducible on purpose
        self._changed.set()
        self._changed = asyncio.Event()
        self._thaw()

    def document(self) -> dict[str, Any]:
        """Return the rules with their hits, as `GET /standin/faults` answers them."""
        return {"faults": [asdict(rule) for rule in self._rules]}

    def take(self, at: str, kind: str) -> Fault | None:
        """Return the rule of this kind if one strikes now."""
        return next(
            (rule for rule in self._rules if rule.at == at and rule.kind == kind and self._strikes(rule)),
            None,
        )

    async def point(self, at: str, when: str) -> None:
        """Let every rule for this moment strike; raises FaultError for `fail`."""
        for rule in self._rules:
            if rule.at == at and rule.when == when and rule.kind in ANYWHERE and self._strikes(rule):
                await self._strike(rule)

    def _strikes(self, rule: Fault) -> bool:
        if rule.skip:
            rule.skip -= 1
            return False
        if rule.count is not None and rule.hits >= rule.count:
            return False
        if rule.probability < 1 and self._random.random() >= rule.probability:
            return False
        rule.hits += 1
        return True

    async def _strike(self, rule: Fault) -> None:
        match rule.kind:
            case "slow":
                await asyncio.sleep(rule.seconds)
            case "hang":
                await self._changed.wait()
            case "die":
                self._die(rule.exit_code)
                # In a swarm the process lives on: this is where the operation's task gets its cancellation.
                await asyncio.sleep(0)
            case "core_dead":
                self._core_dead()
                await asyncio.sleep(0)
            case "freeze":
                self._freeze(rule.seconds)
            case _:
                raise FaultError(rule.message)

"""Putting our code in the place of an engine's, all of it or none.

A hook names a place (a module and a path inside it), says what must stand there, and makes what shall stand there from
what does. `install` looks at every place first; only when all are as expected does it set the first one. So an engine
whose version moved one name runs entirely on its own code, and the reason says which name it was.

``` python
reason = install([
    Hook("vllm.v1.worker.gpu_worker", "Worker.sleep", wrap_sleep, takes("self", "level")),
    Hook("vllm.device_allocator.cumem", "cumem_available", lambda _: True),
])
```

Several hooks may name the same place: each gets what the one before it made. Installing the same hooks a second time
changes nothing.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_lock = threading.Lock()
_done: set[tuple[str, str, str]] = set()


def anything(_present: Any) -> str:
    """Expect only that the name exists."""
    return ""


@dataclass(frozen=True, slots=True)
class Hook:
    """One place in an engine and what we put there."""

    module: str
    """Imported if it is not yet."""
    path: str
    """Inside the module, such as `Worker.sleep`. What a class inherits counts as its own."""
    make: Callable[[Any], Any]
    """Gets what stands there and returns what shall. Of a static or class method it gets the plain function."""
    expect: Callable[[Any], str] = anything
    """Gets the same; returns "" or, in a few words, what is wrong with it."""
    optional: bool = False
    """Leave it out where the name does not exist; what exists must still be as expected."""
    name: str = ""
    """Tells hooks of the same place apart when they are installed again; needed only if there are several."""

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.module}.{self.path}"


def takes(*parameters: str) -> Callable[[Any], str]:
    """Expect a function that begins with these parameters, by name and in this order; the rest must be optional."""

    def check(present: Any) -> str:
        if not callable(present):
            return "is not a function"
        try:
            found = list(inspect.signature(present).parameters.values())
        except (TypeError, ValueError):
            return "has no signature that Python can read"
        names = tuple(parameter.name for parameter in found)
        needed = tuple(
            parameter.name
            for parameter in found[len(parameters) :]
            if parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        )
        if names[: len(parameters)] == parameters and not needed:
            return ""
        return f"takes ({', '.join(names)}), expected ({', '.join(parameters)})"

    return check


def has(*names: str) -> Callable[[Any], str]:
    """Expect a class, or any object, that has these attributes."""

    def check(present: Any) -> str:
        missing = [name for name in names if not hasattr(present, name)]
        return f"has no {', '.join(missing)}" if missing else ""

    return check


def install(hooks: Sequence[Hook]) -> str:
    """Set all of `hooks`, or none; returns "" or the reason why none was set."""
    with _lock:
        planned: dict[tuple[int, str], _Place] = {}
        fresh = [hook for hook in hooks if (hook.module, hook.path, hook.name) not in _done]
        for hook in fresh:
            reason = _plan(hook, planned)
            if reason:
                return reason
        reason = _set_all(list(planned.values()))
        if reason:
            return reason
        _done.update((hook.module, hook.path, hook.name) for hook in fresh)
    return ""


def _plan(hook: Hook, planned: dict[tuple[int, str], _Place]) -> str:
    *way, last = hook.path.split(".")
    try:
        owner = functools.reduce(getattr, way, importlib.import_module(hook.module))
        raw = inspect.getattr_static(owner, last)
    except ImportError as error:
        return f"{hook.module} can't be imported: {error}"
    except AttributeError:
        return "" if hook.optional else f"{hook.where} does not exist"
    place = planned.setdefault((id(owner), last), _Place(owner, last, raw, getattr(raw, "__func__", raw)))
    wrong = hook.expect(place.value)
    if wrong:
        return f"{hook.where} {wrong}"
    try:
        place.value = hook.make(place.value)
    except Exception as error:  # noqa: BLE001 - whatever it is, the engine goes on with its own code
        return f"{hook.where} could not be replaced: {error!r}"
    return ""


def _set_all(places: Sequence[_Place]) -> str:
    for number, place in enumerate(places):
        try:
            place.set()
        except (TypeError, AttributeError) as error:
            for earlier in reversed(places[:number]):
                earlier.restore()
            return f"{place.owner!r} lets nobody set {place.name}: {error}"
    return ""


@dataclass(slots=True)
class _Place:
    """Where something is about to be set; `raw` is what stands there, `value` what shall."""

    owner: Any
    name: str
    raw: Any
    value: Any

    def set(self) -> None:
        kind = type(self.raw)
        setattr(
            self.owner, self.name, kind(self.value) if kind in (staticmethod, classmethod) else self.value
        )

    def restore(self) -> None:
        setattr(self.owner, self.name, self.raw)

"""Whether one callable can be called in every way that another can."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def why_not(ours: Callable[..., Any], theirs: Callable[..., Any]) -> str:
    """Return "" or the call that `theirs` takes and `ours` does not, or a default that differs.

    A wrapper is judged by its own parameters, not by those that it shows. `self` is never given by name.
    """
    mine = inspect.signature(ours, follow_wrapped=False)
    parameters = inspect.signature(theirs).parameters
    needed = [each for each in parameters.values() if each.default is each.empty]
    for chosen in (list(parameters.values()), needed):
        positional = [each.name for each in chosen if each.kind in _POSITIONAL]
        for by_position in range(int(positional[:1] == ["self"]), len(positional) + 1):
            args = positional[:by_position]
            kwargs = {
                each.name: each.name for each in chosen if each.kind in _NAMED and each.name not in args
            }
            if any(each.kind is each.POSITIONAL_ONLY and each.name not in args for each in chosen):
                continue
            extra = ["more"] if any(each.kind is each.VAR_POSITIONAL for each in chosen) else []
            if any(each.kind is each.VAR_KEYWORD for each in chosen):
                kwargs["and_more"] = "and_more"
            try:
                mine.bind(*args, *(extra if len(args) == len(positional) else []), **kwargs)
            except TypeError as error:
                return f"({', '.join([*args, *extra, *(f'{name}=' for name in kwargs)])}): {error}"
    for name, parameter in parameters.items():
        own = mine.parameters.get(name)
        if own is not None and parameter.default not in (parameter.empty, own.default):
            return f"{name} is {parameter.default!r} by default there and {own.default!r} here"
    return ""

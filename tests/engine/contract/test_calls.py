"""What counts as being callable in the same ways."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.contract.calls import why_not

if TYPE_CHECKING:
    from collections.abc import Callable


def theirs(self: object, tags: object = None, *, level: int = 1) -> None: ...


def same(self: object, tags: object = None, *, level: int = 1, more: int = 0) -> None: ...


def anything(*args: object, **kwargs: object) -> None: ...


def another_name(self: object, tag: object = None, *, level: int = 1) -> None: ...


def one_less(self: object, tags: object = None) -> None: ...


def one_more(self: object, tags: object, *, level: int = 1) -> None: ...


def another_default(self: object, tags: object = (), *, level: int = 1) -> None: ...


@functools.wraps(theirs)
def dressed_up(self: object) -> None: ...


@pytest.mark.parametrize("ours", [theirs, same, anything])
def test_what_takes_at_least_the_same_calls_is_fine(ours: Callable[..., Any]) -> None:
    assert why_not(ours, theirs) == ""


@pytest.mark.parametrize(
    ("ours", "said"),
    [
        (another_name, "tags"),
        (one_less, "level"),
        (one_more, "missing a required argument: 'tags'"),
        (another_default, "tags is None by default there and () here"),
        (dressed_up, "tags"),
    ],
)
def test_what_differs_is_named(ours: Callable[..., Any], said: str) -> None:
    assert said in why_not(ours, theirs)


def test_keyword_arguments_of_any_name_must_be_taken() -> None:
    assert "and_more" in why_not(same, anything)

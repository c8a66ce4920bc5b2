"""A hook is set with all the others, or not at all."""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any

import pytest

from dormouse_engine.plugin.hooks import Hook, has, install, takes

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> types.ModuleType:
    """A module of its own for each test, since what is installed stays."""
    module = types.ModuleType(f"engine_of_{request.node.name}")

    class Base:
        def load(self) -> str:
            return "loaded"

    class Worker(Base):
        def sleep(self, level: int = 1) -> str:
            return f"asleep at {level}"

        @staticmethod
        def instance() -> str:
            return "stock"

        @classmethod
        def kind(cls) -> str:
            return cls.__name__

    vars(module).update(Worker=Worker, available=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def louder(before: Callable[..., str]) -> Callable[..., str]:
    def after(*args: Any, **kwargs: Any) -> str:
        return before(*args, **kwargs) + "!"

    return after


def test_all_hooks_are_set(engine: types.ModuleType) -> None:
    where = engine.__name__
    assert not install(
        [
            Hook(where, "available", lambda _: True),
            Hook(where, "Worker.sleep", louder, takes("self", "level")),
            Hook(where, "Worker.instance", louder, takes()),
            Hook(where, "Worker.kind", louder),
            Hook(where, "Worker.load", louder),
        ]
    )
    worker = engine.Worker()
    assert engine.available is True
    assert worker.sleep(level=2) == "asleep at 2!"
    assert engine.Worker.instance() == worker.instance() == "stock!"
    assert engine.Worker.kind() == "Worker!"
    assert worker.load() == "loaded!"
    assert engine.Worker.__base__().load() == "loaded", "the base class is not ours to change"


@pytest.mark.parametrize(
    ("path", "expect", "said"),
    [
        ("Worker.dream", takes("self"), "Worker.dream does not exist"),
        ("Sleeper.sleep", takes("self"), "Sleeper.sleep does not exist"),
        ("Worker.sleep", takes("self", "depth"), "takes (self, level), expected (self, depth)"),
        ("Worker.sleep", takes("self", "level", "mode"), "takes (self, level), expected (self, level, mode)"),
        ("available", takes("self"), "is not a function"),
        ("Worker", has("sleep", "wake_up", "discard"), "has no wake_up, discard"),
    ],
)
def test_one_wrong_place_leaves_everything_alone(
    engine: types.ModuleType, path: str, expect: Callable[[Any], str], said: str
) -> None:
    where = engine.__name__
    reason = install([Hook(where, "Worker.load", louder), Hook(where, path, louder, expect)])
    assert said in reason
    assert where in reason
    assert engine.Worker().load() == "loaded"


def test_a_new_parameter_without_a_default_is_a_reason_and_one_with_a_default_is_none(
    engine: types.ModuleType,
) -> None:
    def needs_more(self: Any, level: int, how: str) -> None: ...

    def may_take_more(self: Any, level: int = 1, how: str = "", *rest: Any, **more: Any) -> None: ...

    engine.Worker.sleep = needs_more
    assert "takes (self, level, how)" in install(
        [Hook(engine.__name__, "Worker.sleep", louder, takes("self", "level"))]
    )
    assert engine.Worker.sleep is needs_more
    engine.Worker.sleep = may_take_more
    assert not install([Hook(engine.__name__, "Worker.sleep", louder, takes("self", "level"))])


def test_a_module_that_is_not_there_leaves_everything_alone(engine: types.ModuleType) -> None:
    reason = install([Hook(engine.__name__, "Worker.load", louder), Hook("no_such_engine.core", "x", louder)])
    assert "no_such_engine.core can't be imported" in reason
    assert engine.Worker().load() == "loaded"


def test_a_replacement_that_can_not_be_made_leaves_everything_alone(engine: types.ModuleType) -> None:
    def refuse(_present: Any) -> Any:
        raise RuntimeError("no pool")

    reason = install(
        [Hook(engine.__name__, "Worker.load", louder), Hook(engine.__name__, "Worker.sleep", refuse)]
    )
    assert "Worker.sleep could not be replaced: RuntimeError('no pool')" in reason
    assert engine.Worker().load() == "loaded"


def test_an_optional_hook_is_left_out_where_the_name_is_missing_and_refused_where_it_differs(
    engine: types.ModuleType,
) -> None:
    where = engine.__name__
    assert not install([Hook(where, "Worker.dream", louder, optional=True)])
    assert not hasattr(engine.Worker, "dream")
    wrong = Hook(where, "Worker.sleep", louder, takes("self", "depth"), optional=True)
    assert "expected (self, depth)" in install([wrong])


def test_hooks_of_one_place_build_on_each_other_and_install_once(engine: types.ModuleType) -> None:
    hooks = [
        Hook(engine.__name__, "Worker.load", louder, name="first"),
        Hook(engine.__name__, "Worker.load", louder, name="second"),
    ]
    assert not install(hooks)
    assert not install(hooks)
    assert engine.Worker().load() == "loaded!!"


def test_a_place_that_can_not_be_set_puts_the_others_back(engine: types.ModuleType) -> None:
    engine.Worker.number = int
    reason = install(
        [
            Hook(engine.__name__, "Worker.sleep", louder),
            Hook(engine.__name__, "Worker.instance", louder),
            Hook(engine.__name__, "Worker.number.bit_length", louder),
        ]
    )
    assert "lets nobody set bit_length" in reason
    assert engine.Worker().sleep() == "asleep at 1"
    assert engine.Worker.instance() == engine.Worker().instance() == "stock"

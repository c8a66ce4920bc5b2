"""What waits for a module runs right after it is imported, and leaves no trace in it."""

from __future__ import annotations

import importlib
import inspect
import sys
from typing import TYPE_CHECKING

import pytest

from dormouse_engine.plugin.imports import when_imported

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"late_{request.node.name}"
    (tmp_path / f"{name}.py").write_text("ready = True\n\ndef work():\n    return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = list(sys.meta_path)
    yield name
    sys.modules.pop(name, None)
    sys.meta_path[:] = before


def test_it_waits_and_then_finds_the_module_complete(name: str) -> None:
    seen: list[bool] = []
    finders = list(sys.meta_path)
    when_imported(name, lambda: seen.append(sys.modules[name].ready))
    assert not seen
    module = importlib.import_module(name)
    assert seen == [True]
    assert sys.meta_path == finders
    assert "return 1" in inspect.getsource(module.work), "the module's loader must be its own"


def test_a_module_that_is_there_is_not_waited_for(name: str) -> None:
    importlib.import_module(name)
    seen: list[str] = []
    when_imported(name, lambda: seen.append(name))
    assert seen == [name]


def test_what_it_raises_the_import_raises_and_the_next_import_asks_again(name: str) -> None:
    answers: Iterator[Exception | None] = iter([RuntimeError("not today"), None])

    def action() -> None:
        answer = next(answers)
        if answer is not None:
            raise answer

    when_imported(name, action)
    with pytest.raises(RuntimeError, match="not today"):
        importlib.import_module(name)
    assert name not in sys.modules
    assert importlib.import_module(name).ready
    assert next(answers, "asked twice") == "asked twice"


def test_a_module_that_does_not_exist_is_missed_as_before(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.py").unlink()
    when_imported(name, lambda: pytest.fail("nothing was imported"))
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(name)


def test_a_module_that_fails_by_itself_does_not_count_as_imported(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.py").write_text("raise ValueError('broken')\n")
    when_imported(name, lambda: pytest.fail("it was not imported"))
    with pytest.raises(ValueError, match="broken"):
        importlib.import_module(name)

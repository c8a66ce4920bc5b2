"""An engine that sleeps would be waited for until the side's time is up."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from benchmarks.common.engine import Engine


def test_answers_of_a_sleeping_engine_are_refused_at_once() -> None:
    engine = Engine.__new__(Engine)
    engine._llm = SimpleNamespace(llm_engine=SimpleNamespace(is_sleeping=lambda: True))
    with pytest.raises(RuntimeError, match="no answer would ever come"):
        engine.generate()

"""The reference page says what the code does."""

from __future__ import annotations

from pathlib import Path

import pytest

from dormouse_engine.standin.faults import ANYWHERE, INSIDE, OPERATIONS
from dormouse_engine.standin.options import flag_rows

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "standin.md").read_text()


def test_the_page_lists_every_flag_with_its_default() -> None:
    table = [row for row in PAGE.splitlines() if row.startswith("| `--")]
    assert [row for row in flag_rows() if row not in table] == []


@pytest.mark.parametrize("word", [*ANYWHERE, *INSIDE, *OPERATIONS])
def test_the_page_explains_every_fault(word: str) -> None:
    assert f"`{word}`" in PAGE

"""The reference page says what the code does."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from dormouse_engine.guard.settings import Settings
from dormouse_engine.serve import rules
from dormouse_engine.serve.settings import rows

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "reference" / "engine-image.md").read_text()


def test_the_page_lists_every_variable_of_the_entry_point() -> None:
    lines = PAGE.splitlines()
    assert [row for row in rows() if row not in lines] == []


@pytest.mark.parametrize("name", [field.name for field in fields(Settings)])
def test_the_page_lists_every_setting_of_the_guard(name: str) -> None:
    assert f"| `DORMOUSE_{name.upper()}` |" in PAGE


@pytest.mark.parametrize("flag", rules.refused_flags())
def test_the_page_names_every_flag_that_is_refused(flag: str) -> None:
    assert f"`{flag}" in PAGE or (flag.endswith("-lb") and "`--data-parallel-…-lb`" in PAGE)


def test_every_variable_that_the_package_reads_is_on_the_page() -> None:
    sources = (ROOT / "engine_image" / "dormouse_engine").rglob("*.py")
    read = {
        name for source in sources for name in re.findall(r'"(DORMOUSE_[A-Z_]*[A-Z])"', source.read_text())
    }
    assert read
    assert {name for name in read if f"`{name}`" not in PAGE} == set()

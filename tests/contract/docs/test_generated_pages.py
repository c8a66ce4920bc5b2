"""The generated reference pages say what the sources say, and the check for it notices when they don't."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def generate() -> Any:
    """The script as a module: docs/ is no package."""
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_in_the_tree_are_up_to_date(generate: Any) -> None:
    assert generate.main(["--check"]) == 0


def test_a_change_by_hand_is_found_and_the_remedy_named(
    generate: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generate.main([], tmp_path)
    page = tmp_path / "docs/reference/conditions.md"
    good = page.read_text()
    page.write_text(good.replace("IdleTimeout", "IdleTime"))

    assert generate.main(["--check"], tmp_path) == 1
    complaint = capsys.readouterr().err
    assert "docs/reference/conditions.md" in complaint
    assert "sleepingmodel.md" not in complaint
    assert generate.COMMAND in complaint
    assert page.read_text() != good  # a check writes nothing

    assert generate.main([], tmp_path) == 0
    assert page.read_text() == good


def test_a_missing_page_is_drift(generate: Any, tmp_path: Path) -> None:
    assert generate.main(["--check"], tmp_path) == 1
    assert list(tmp_path.iterdir()) == []


def test_every_field_and_every_reason_is_on_a_page(generate: Any) -> None:
    resource, reasons = generate.sleepingmodel(), generate.conditions()
    for field in (
        "sleep.idleTimeout",
        "engine.template.spec.containers[].name",
        "engines[].lastTransition.error",
    ):
        assert f"| `{field}` |" in resource
    for reason in generate.Reason:
        assert reasons.count(f"| `{reason.value}` |") == 1

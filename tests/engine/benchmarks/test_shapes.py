"""Models by their sizes: what is computed is what is made."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from benchmarks.common.checkpoint import WEIGHTS, put
from benchmarks.common.shapes import QWEN3_32B, SAVED, TINY, Shape, prompts

if TYPE_CHECKING:
    from pathlib import Path

GIB = 2**30


@pytest.mark.parametrize("shape", [QWEN3_32B, SAVED, TINY])
def test_the_bytes_of_a_shape_are_those_of_its_tensors(shape: Shape) -> None:
    assert shape.weights_bytes == 2 * sum(math.prod(size) for size in shape.tensors().values())


def test_the_big_one_is_the_one_that_was_measured_before() -> None:
    assert round(QWEN3_32B.weights_bytes / GIB, 2) == 61.02


def test_fewer_layers_are_another_model() -> None:
    small = QWEN3_32B.with_layers(4)
    assert small.name != QWEN3_32B.name
    assert small.config()["num_hidden_layers"] == 4


def test_prompts_are_the_same_every_time_and_within_the_vocabulary() -> None:
    asked = prompts(100, 8, 32)
    assert asked == prompts(100, 8, 32)
    assert {len(prompt) for prompt in asked} == {32}
    assert max(max(prompt) for prompt in asked) < 100


def test_another_checkpoint_takes_the_place_of_one_that_is_open(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / WEIGHTS).write_text(name)
    live = put(tmp_path / "old", tmp_path / "live")
    with (live / WEIGHTS).open() as opened:
        put(tmp_path / "new", live)
        assert opened.read() == "old"
    assert (live / WEIGHTS).read_text() == "new"
    assert (tmp_path / "old" / WEIGHTS).read_text() == "old"
    assert sorted(file.name for file in live.iterdir()) == ["config.json", WEIGHTS]

"""The residual's script tells whose bytes stay, on a device and an engine that only play."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from benchmarks import residual
from benchmarks.common import children, inside
from dormouse_engine.plugin.cuts import CUTS

MIB = 2**20
SAME = (residual.CYCLES + 1) * residual.ANSWERS
"""Answers of a process that comes to its end."""


def frame(file: str, name: str, line: int = 7) -> dict[str, Any]:
    return {"filename": file, "name": name, "line": line}


VLLM = "/site/vllm/v1/worker/gpu/sample/penalties.py"
STACK = [
    frame("/site/torch/_ops.py", "zeros"),
    frame("/usr/lib/python3.12/contextlib.py", "inner"),
    frame(VLLM, "__init__", 40),
    frame("/site/dormouse_engine/plugin/runtime.py", "build"),
    frame("/site/vllm/v1/worker/gpu/model_runner.py", "__init__"),
]


def block(size: int, state: str = "active_allocated", frames: Any = ()) -> dict[str, Any]:
    return {"size": size, "state": state, "frames": list(frames)}


SEGMENTS = [
    {
        "address": 1,
        "total_size": 8 * MIB,
        "blocks": [block(6 * MIB, frames=STACK), block(2 * MIB, "inactive")],
    },
    {"address": 2, "total_size": 4 * MIB, "blocks": [block(4 * MIB)]},
    {"address": 99, "total_size": 64 * MIB, "blocks": [block(64 * MIB, frames=STACK)]},
]


class Pool:
    def size_of(self, address: int) -> int:
        if address != 99:
            raise ValueError(address)
        return 64 * MIB


def fake_torch() -> Any:
    cuda = SimpleNamespace(
        init=lambda: None,
        synchronize=lambda: None,
        mem_get_info=lambda: (30, 100),
        memory_snapshot=lambda: SEGMENTS,
        get_device_name=lambda: "a device",
        memory=SimpleNamespace(_record_memory_history=lambda *_, **__: None),
    )
    return SimpleNamespace(cuda=cuda, __version__="2.11.0")


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Modules as they are where the engine serves; `allocator` is the one in place."""

    class LLM:
        def __init__(self, **_: Any) -> None:
            self.states: list[str] = []

        def generate(self, asked: list[Any], *_: Any, **__: Any) -> list[Any]:
            return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=(1, 2))]) for _ in asked]

        def collective_rpc(self, function: Any, args: tuple[Any, ...]) -> None:
            assert (function, args) == (inside.refill, (residual.SEED,))
            places.refilled = True

        def sleep(self, level: int) -> None:
            self.states.append(f"sleep {level}")

        def wake_up(self) -> None:
            self.states.append("wake")

    places = SimpleNamespace(allocator=SimpleNamespace(pool=Pool()), torch=fake_torch(), refilled=False)
    vllm = ModuleType("vllm")
    vars(vllm).update(LLM=LLM, SamplingParams=SimpleNamespace, __version__="0.23.0")
    cumem = ModuleType("vllm.device_allocator.cumem")
    vars(cumem)["CuMemAllocator"] = SimpleNamespace(get_instance=lambda: places.allocator)
    for name, module in (("torch", places.torch), ("vllm", vllm), (cumem.__name__, cumem)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(inside, "reading", lambda _: {"device": {"used": 70}})
    monkeypatch.setattr(inside, "transition", lambda _: {"kind": "wake"})
    monkeypatch.setattr(residual, "PAUSE_SECONDS", 0)
    monkeypatch.setenv("DORMOUSE_ALLOCATOR", "dormouse")
    return places


def test_bytes_outside_the_pool_are_told_by_the_place_that_asked_for_them(modules: Any) -> None:
    told = residual.outside(modules.torch)
    assert told == {
        "segments": 12 * MIB,
        "unused": 2 * MIB,
        "places": {
            "sample/penalties.py:40 __init__ < gpu/model_runner.py:7 __init__": 6 * MIB,
            "unknown": 4 * MIB,
        },
    }


def test_vllms_own_allocator_names_its_segments_otherwise(modules: Any) -> None:
    modules.allocator = SimpleNamespace(pointer_to_data={99: "a handle"})
    assert residual.outside(modules.torch)["segments"] == 12 * MIB


def test_a_process_notes_every_cycle(modules: Any, tmp_path: Path) -> None:
    given = argparse.Namespace(scratch=tmp_path, layers=2, graph_layers=3, kv_gib=1)
    record: dict[str, Any] = {}
    residual.measure(given, False, record)  # noqa: FBT003 - one of two modes
    assert len(record["sleep"]) == len(record["transitions"]) == residual.CYCLES
    assert len(record["wake at once"]) == len(record["wake after a pause"]) == residual.CYCLES / 2
    assert [len(each) for each in record["answers"]] == [residual.ANSWERS] * (residual.CYCLES + 1)
    assert record["same answer"] == [True] * SAME
    assert record["used by a bare context"] == 70
    assert record["allocator"] == "dormouse"
    assert modules.refilled
    json.dumps(record)


@pytest.mark.parametrize("wanted", ["dormouse", "stock"])
def test_a_process_on_another_allocator_than_its_choice_measures_nothing(
    modules: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str
) -> None:
    monkeypatch.setenv("DORMOUSE_ALLOCATOR", wanted)
    modules.allocator = SimpleNamespace(pool=Pool()) if wanted == "stock" else SimpleNamespace()
    given = argparse.Namespace(scratch=tmp_path, layers=2, graph_layers=3, kv_gib=1)
    record: dict[str, Any] = {}
    with pytest.raises(RuntimeError, match="its figures would lie"):
        residual.measure(given, False, record)  # noqa: FBT003 - one of two modes
    assert "sleep" not in record


@pytest.mark.parametrize(
    ("choice", "variable"),
    [
        ("stock", "none"),
        ("none", "none"),
        ("buffers", "buffers"),
        ("buffers+stack", "buffers,stack"),
        ("all", ",".join(CUTS)),
        ("all-stack", "buffers,workspaces,scratch,sampling,graphs"),
        ("all-stack-graphs", "buffers,workspaces,scratch,sampling"),
    ],
)
def test_a_choice_names_cuts(choice: str, variable: str) -> None:
    assert residual.choices(choice) == [choice]
    assert residual.cuts(choice) == variable


@pytest.mark.parametrize(
    "choice", ["buffer", "buffers+stak", "all-stak", "none,al", "buffers-stack", "all+stack", "none+stack"]
)
def test_an_unknown_choice_is_refused_before_anything_runs(
    choice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "--out", str(tmp_path / "out"), "--eager", choice])
    with pytest.raises(SystemExit):
        residual.main()
    assert "is no choice: say stock, none, cuts with + between" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("told", "right"),
    [
        ({"exit": 0, "same answer": [True] * SAME}, True),
        ({"exit": 0, "same answer": [*[True] * (SAME - 1), False]}, False),
        ({"exit": 0, "same answer": [True]}, False),
        ({"exit": 1, "same answer": [True] * SAME}, False),
        ({"error": "no time"}, False),
    ],
)
def test_a_choice_is_right_at_its_end_with_the_same_answers(told: dict[str, Any], *, right: bool) -> None:
    assert residual.right(told) is right


def test_a_choice_that_fails_says_so_and_the_next_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], variables: dict[str, str], _log: Path, _seconds: float) -> dict[str, Any]:
        told = (variables["DORMOUSE_ALLOCATOR"], variables["DORMOUSE_RESIDUAL"])
        if told == ("dormouse", "buffers"):
            (Path(command[-1]) / "one.json").write_text('{"sleep": [1.0]}', encoding="utf-8")
            return {"exit": 0}
        return {"exit": 1, "told": told}

    monkeypatch.setattr(children, "run", run)
    monkeypatch.setattr(
        sys, "argv", ["x", "--out", str(tmp_path), "--eager", "stock,buffers", "--graphs", "all"]
    )
    assert residual.main() == 1
    told = json.loads((tmp_path / "residual.json").read_text(encoding="utf-8"))
    assert told["machine"]["host_bytes"] > 0
    assert told["choices"] == {
        "eager stock": {"exit": 1, "told": ["stock", "none"]},
        "eager buffers": {"sleep": [1.0], "exit": 0},
        "graphs all": {"exit": 1, "told": ["dormouse", ",".join(CUTS)]},
    }

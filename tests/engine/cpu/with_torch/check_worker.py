"""The worker over the real one of vLLM. Needs vLLM, so `python -m tests.vllm_cpu` runs it, where vLLM is."""

# mypy: disable-error-code="import-not-found"
# (torch and vLLM are in their own environment only)

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from vllm.model_executor.layers import utils
from vllm.v1.worker.cpu_worker import CPUWorker

from dormouse_engine.plugin.cpu import install
from dormouse_engine.plugin.cpu.errors import IllegalStateError, UnsupportedError
from dormouse_engine.plugin.cpu.linear import keep_linear_plain
from dormouse_engine.plugin.cpu.memory import TAGS, Memory
from dormouse_engine.plugin.cpu.moving import Moved
from dormouse_engine.plugin.cpu.store import Store
from dormouse_engine.plugin.cpu.worker import SleepingCPUWorker
from dormouse_engine.plugin.log import LOG

if TYPE_CHECKING:
    from pathlib import Path

MIB = 2**20


def test_a_vllm_without_the_hook_for_linear_layers_loads_nothing_and_says_which(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded: list[Any] = []
    monkeypatch.delattr(utils, "dispatch_cpu_unquantized_gemm")
    monkeypatch.setattr(CPUWorker, "load_model", lambda *_args, **_named: loaded.append(1))
    with pytest.raises(UnsupportedError, match="dispatch_cpu_unquantized_gemm does not exist"):
        object.__new__(SleepingCPUWorker).load_model()
    assert loaded == []


def test_linear_layers_keep_their_weight_as_a_parameter_and_others_go_vllms_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stock: list[Any] = []

    def dispatch(layer: Any, remove_weight: bool) -> None:  # noqa: ARG001, FBT001 - vLLM's own signature
        stock.append(layer)

    monkeypatch.setattr(utils, "dispatch_cpu_unquantized_gemm", dispatch)
    assert keep_linear_plain() == ""
    layer = torch.nn.Linear(64, 64, bias=False, dtype=torch.bfloat16)
    utils.dispatch_cpu_unquantized_gemm(layer, remove_weight=True)
    assert layer.cpu_linear is torch.nn.functional.linear
    assert layer.weight.numel() == 64 * 64
    assert stock == []
    convolution = SimpleNamespace(weight=torch.zeros(4, 1, 4))
    utils.dispatch_cpu_unquantized_gemm(convolution, remove_weight=False)
    assert stock == [convolution]


def test_every_method_of_ours_takes_the_place_of_one_of_vllms_with_its_parameters() -> None:
    ours = {
        name: method
        for name, method in vars(SleepingCPUWorker).items()
        if inspect.isfunction(method) and name not in {"__init__", "_facts", "_deepest"}
    }
    assert {"load_model", "sleep", "wake_up", "discard", "reload_weights"} <= ours.keys()
    for name, method in ours.items():
        theirs = [one for one in inspect.signature(getattr(CPUWorker, name)).parameters if one != "self"]
        mine = inspect.signature(method).parameters
        assert "args" in mine or [one for one in mine if one != "self"] == theirs, name


@pytest.fixture
def asleep() -> SleepingCPUWorker:
    """A worker of a plain model whose weights sleep at level 1."""
    worker = object.__new__(SleepingCPUWorker)
    worker._memory = Memory(Store())
    worker._moved = Moved(0, 0, 0)
    worker.vllm_config = SimpleNamespace(model_config=SimpleNamespace(is_moe=False, quantization=None))
    for tag in TAGS:
        worker._memory.new(tag, tag, MIB).memory[:] = b"x" * MIB
    worker.sleep(1)
    return worker


@pytest.mark.parametrize(
    ("method", "argument", "error", "why"),
    [
        ("sleep", 7, UnsupportedError, "unknown level 7"),
        ("sleep", 2, IllegalStateError, "sleep at level 1 already"),
        ("wake_up", ["wieghts"], UnsupportedError, "unknown tags wieghts"),
        ("discard", ("weights",), UnsupportedError, "only kv_cache can be discarded"),
    ],
)
def test_what_can_not_be_meant_is_refused_with_the_reason_and_the_sleeper_is_none_the_worse(
    asleep: SleepingCPUWorker, method: str, argument: Any, error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        getattr(asleep, method)(argument)
    assert [asleep._memory.state(tag) for tag in TAGS] == ["offloaded", "discarded"]
    asleep.wake_up()
    assert bytes(asleep._memory.arenas("weights")[0].memory[:]) == b"x" * MIB


def test_a_run_dir_that_can_not_be_used_is_told_of_and_the_engine_serves(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    asleep: SleepingCPUWorker,
) -> None:
    tmp_path.chmod(0o755)
    monkeypatch.setenv("DORMOUSE_RUN_DIR", str(tmp_path))
    monkeypatch.setattr(CPUWorker, "load_model", lambda *_args, **_named: None)
    monkeypatch.setattr(LOG, "handlers", [caplog.handler])
    asleep.wake_up()
    asleep.model_runner = SimpleNamespace(get_model=lambda: torch.nn.Linear(8, 8))
    asleep.load_model()
    assert "nobody will know about the memory of this worker" in caplog.text
    assert "chmod 0700" in caplog.text


def test_the_platform_says_that_it_can_sleep_once_installed() -> None:
    from vllm.platforms import current_platform  # noqa: PLC0415 - found out at this moment

    assert not current_platform.is_sleep_mode_available()
    assert install() == ""
    assert install() == ""
    assert current_platform.is_sleep_mode_available()

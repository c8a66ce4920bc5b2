"""Which configurations may sleep. The configurations here are plain objects; real ones are tried with real vLLM."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dormouse_engine.plugin.cpu.errors import UnsupportedError
from dormouse_engine.plugin.cpu.platform import STOCK_WORKER, WORKER, hooks
from dormouse_engine.plugin.settings import SettingsError


def config(*, sleep: bool = True, worker: str = "auto", **changes: Any) -> SimpleNamespace:
    return SimpleNamespace(
        model_config=SimpleNamespace(enable_sleep_mode=sleep, quantization=changes.get("quantization")),
        parallel_config=SimpleNamespace(worker_cls=worker, enable_eplb=changes.get("eplb", False)),
        speculative_config=changes.get("speculative"),
    )


def check(given: SimpleNamespace) -> str:
    """What vLLM's platform and ours make of it; returns the worker class."""

    def stock(_cls: Any, vllm_config: Any) -> None:
        parallel = vllm_config.parallel_config
        parallel.worker_cls = STOCK_WORKER if parallel.worker_cls == "auto" else parallel.worker_cls

    (make,) = (hook.make for hook in hooks() if hook.path.endswith("check_and_update_config"))
    make(stock)(object, given)
    worker: str = given.parallel_config.worker_cls
    return worker


def test_an_engine_that_shall_sleep_gets_our_worker_however_often_it_is_checked() -> None:
    given = config()
    assert [check(given), check(given)] == [WORKER, WORKER]


def test_an_engine_that_shall_not_sleep_keeps_everything() -> None:
    assert check(config(sleep=False)) == STOCK_WORKER
    assert check(config(sleep=False, quantization="awq", eplb=True)) == STOCK_WORKER
    modelless = config()
    modelless.model_config = None
    assert check(modelless) == STOCK_WORKER


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"quantization": "awq"}, r"quantised model \(awq\)"),
        ({"speculative": object()}, "second model"),
        ({"eplb": True}, "--enable-eplb"),
        ({"worker": "my.Worker"}, "worker class is my.Worker"),
    ],
)
def test_what_would_not_come_back_right_stops_the_start_with_the_reason(
    changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(UnsupportedError, match=f"{why}.*without --enable-sleep-mode"):
        check(config(**changes))


def test_a_setting_that_nobody_can_mean_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DORMOUSE_CPU_STRICT", "maybe")
    assert check(config(sleep=False)) == STOCK_WORKER
    with pytest.raises(SettingsError):
        check(config())

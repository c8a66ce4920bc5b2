from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from dormouse.api.names import API_VERSION, KIND
from dormouse.api.sleepingmodel import SleepingModel
from dormouse.api.spec import DeepestTier, EngineType, SleepMode
from dormouse.errors import SpecUnreadableError


def body(spec: Any = None, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": "hello", "namespace": "demo", "uid": "u-1", "generation": 3, **metadata},
        "spec": spec,
    }


def test_metadata_is_read() -> None:
    model = SleepingModel.from_body(body(annotations={"dormouse.dev/force": "awake"}))
    assert (model.namespace, model.name, model.uid, model.generation) == ("demo", "hello", "u-1", 3)
    assert model.annotations == {"dormouse.dev/force": "awake"}
    assert not model.deleting
    assert SleepingModel.from_body(body(deletionTimestamp="2026-11-21T12:00:00Z")).deleting


def test_an_empty_spec_adopts_and_has_every_default() -> None:
    model = SleepingModel.from_body(body())
    spec = model.spec
    assert model.served_name == "hello"
    assert not model.managed
    assert (spec.replicas, spec.aliases) == (1, ())
    assert (spec.engine.type, spec.engine.port, spec.engine.start_timeout) == (EngineType.VLLM, 8000, 1800)
    assert (spec.sleep.mode, spec.sleep.deepest) == (SleepMode.AUTO, DeepestTier.OFFLOADED)
    assert (spec.sleep.idle_timeout, spec.sleep.deep_sleep_after, spec.sleep.drain_timeout) == (
        300,
        21600,
        30,
    )
    assert (spec.wake.max_wait, spec.wake.max_attempts) == (120, 3)


def test_a_template_makes_a_model_managed() -> None:
    model = SleepingModel.from_body(
        body({"modelName": "Qwen/Qwen3", "engine": {"template": {"spec": {"containers": [{"name": "e"}]}}}})
    )
    assert model.managed
    assert model.served_name == "Qwen/Qwen3"


def test_the_spec_can_not_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        SleepingModel.from_body(body()).spec.replicas = 2


def test_a_spec_of_a_newer_definition_is_refused_whole() -> None:
    with pytest.raises(SpecUnreadableError) as refusal:
        SleepingModel.from_body(body({"priority": 2, "sleep": {"deepest": "Frozen", "schedule": []}}))
    assert str(refusal.value) == (
        "spec.sleep.deepest input should be 'Offloaded' or 'Discarded'; "
        "spec.sleep.schedule is unknown to this release: is the CRD newer than the operator?; "
        "spec.priority is unknown to this release: is the CRD newer than the operator?"
    )


@pytest.mark.parametrize(("field", "value"), [("apiVersion", "dormouse.dev/v1"), ("kind", "Deployment")])
def test_another_version_or_kind_is_refused(field: str, value: str) -> None:
    with pytest.raises(SpecUnreadableError, match=f"reads {API_VERSION} {KIND}, not .*{value}"):
        SleepingModel.from_body(body() | {field: value})


def test_all_faults_by_name_are_told_at_once() -> None:
    with pytest.raises(SpecUnreadableError) as refusal:
        SleepingModel.from_body(body({"aliases": ["a" * 64]}, name="a" * 64))
    assert "metadata.name must have at most 63" in str(refusal.value)
    assert "spec.aliases must not repeat modelName" in str(refusal.value)

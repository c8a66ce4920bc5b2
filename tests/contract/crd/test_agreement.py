"""The API server and the Python types accept and refuse the same objects, each with words for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from kubernetes.client import ApiException

from dormouse.api.sleepingmodel import SleepingModel
from dormouse.errors import SpecUnreadableError
from tests.contract.crd.official import causes
from tests.contract.crd.specimens import BAD, GOOD, Bad, Good, body

if TYPE_CHECKING:
    from tests.contract.crd.official import Models

pytestmark = pytest.mark.cluster


def test_the_table_is_large_enough() -> None:
    assert len(GOOD) + len(BAD) >= 60


@pytest.mark.parametrize("specimen", GOOD.values(), ids=GOOD)
def test_both_sides_accept_and_read_the_same(models: Models, specimen: Good) -> None:
    stored = models.try_out(body(specimen))
    assert SleepingModel.from_body(stored).spec == SleepingModel.from_body(body(specimen)).spec


@pytest.mark.parametrize("specimen", BAD.values(), ids=BAD)
def test_the_api_server_refuses_in_words(models: Models, specimen: Bad) -> None:
    with pytest.raises(ApiException) as refusal:
        models.try_out(body(specimen))
    assert refusal.value.status in (400, 422)
    said = causes(refusal.value)
    text = "\n".join(f"{field}: {message}" for field, message in said)
    assert specimen.says in text
    assert specimen.field in text
    # A bare pattern tells nobody what to write: beside each there must be a sentence on the same field.
    for field, message in said:
        if "should match" in message:
            assert any(f == field and "should match" not in m for f, m in said), text


@pytest.mark.parametrize("specimen", BAD.values(), ids=BAD)
def test_the_types_refuse_in_words(specimen: Bad) -> None:
    with pytest.raises(SpecUnreadableError) as refusal:
        SleepingModel.from_body(body(specimen))
    assert specimen.types_say in str(refusal.value)
    assert specimen.field in str(refusal.value)


def test_an_unknown_field_is_dropped_where_the_client_does_not_ask_for_strictness(
    models: Models,
) -> None:
    stored = models.try_out(body(Good({"nap": 1, "replicas": 2})), validation="Ignore")
    assert "nap" not in stored["spec"]
    assert SleepingModel.from_body(stored).spec.replicas == 2


def test_the_inside_of_a_template_is_kept_as_given(models: Models) -> None:
    template = {
        "metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
        "spec": {
            "containers": [{"name": "engine", "resources": {"limits": {"cpu": "1000m", "memory": "1024Mi"}}}],
            "resourceClaims": [{"name": "gpu", "resourceClaimName": "shared"}],
            "somethingNew": {"x": [1, "two", {"three": 3}]},
        },
    }
    stored = models.try_out(body(Good({"engine": {"template": template}})))
    assert stored["spec"]["engine"]["template"] == template
    read = SleepingModel.from_body(stored).spec.engine.template
    assert read is not None
    assert read.spec == template["spec"]
    assert read.metadata.labels == {"a": "b"}
    assert read.metadata.annotations == {"c": "d"}

from __future__ import annotations

import pytest

from dormouse.api.conditions import ConditionType, Reason, ReasonGroup


@pytest.mark.parametrize("word", [*ConditionType, *Reason, *ReasonGroup])
def test_every_word_is_documented_in_one_paragraph_that_ends(
    word: ConditionType | Reason | ReasonGroup,
) -> None:
    assert len(word.doc) > 15
    assert word.doc.endswith(".")
    assert "\n" not in word.doc


@pytest.mark.parametrize("reason", Reason)
def test_a_constant_is_named_like_its_value(reason: Reason) -> None:
    assert reason.name.replace("_", "").lower() == reason.value.lower()


def test_every_group_is_used() -> None:
    assert {reason.group for reason in Reason} == set(ReasonGroup)

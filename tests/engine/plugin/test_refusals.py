"""What would lose content or kill the engine is refused, with what to do instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dormouse_engine.plugin.refusals import refuse_sleep, refuse_touch, refuse_wake
from dormouse_native.errors import IllegalState, InvalidArgument

if TYPE_CHECKING:
    from dormouse_engine.facts.model import State


def tags(weights: State, kv_cache: State) -> dict[str, State]:
    return {"weights": weights, "kv_cache": kv_cache}


@pytest.mark.parametrize("level", [0, 3, -1])
def test_an_unknown_level_is_refused(level: int) -> None:
    with pytest.raises(InvalidArgument, match=rf"level {level} is unknown: it is 1 .* or 2"):
        refuse_sleep(level, tags("resident", "resident"), "Discarded", "")


def test_level_2_is_refused_where_it_is_known_to_be_wrong_and_level_1_is_not() -> None:
    refuse_sleep(1, {}, "Offloaded", "its weights are quantised (fp8)")
    with pytest.raises(IllegalState, match=r"because its weights are quantised \(fp8\): use level 1"):
        refuse_sleep(2, {}, "Offloaded", "its weights are quantised (fp8)")


@pytest.mark.parametrize(
    ("level", "weights", "kv_cache", "refused"),
    [
        (1, "resident", "resident", False),
        (2, "resident", "resident", False),
        (1, "resident", "discarded", False),  # the KV cache was given away before
        (2, "resident", "discarded", False),
        (1, "offloaded", "discarded", False),  # asleep at that level
        (2, "discarded", "discarded", False),
        (2, "offloaded", "discarded", True),
        (1, "discarded", "discarded", True),
        (1, "offloaded", "resident", False),  # half awake: the rest may follow
        (2, "offloaded", "resident", True),
        (2, "discarded", "resident", True),
        (1, "discarded", "resident", True),
    ],
)
def test_a_sleep_that_would_need_weights_that_are_away_is_refused(
    level: int, weights: State, kv_cache: State, *, refused: bool
) -> None:
    if not refused:
        refuse_sleep(level, tags(weights, kv_cache), "Discarded", "")
        return
    with pytest.raises(
        IllegalState, match=rf"level {level}.*weights are {weights} already: wake it up first"
    ):
        refuse_sleep(level, tags(weights, kv_cache), "Discarded", "")


def test_an_unknown_tag_is_refused_and_one_that_the_engine_never_used_is_not() -> None:
    refuse_wake(None, {})
    refuse_wake(["kv_cache"], {"weights": "offloaded"})
    refuse_wake(["runtime"], {"runtime": "offloaded"})
    with pytest.raises(InvalidArgument, match="unknown tags scheduling: name kv_cache or weights, or none"):
        refuse_wake(["weights", "scheduling"], {"weights": "offloaded"})


@pytest.mark.parametrize("weights", ["offloaded", "discarded", "in_transition"])
def test_weights_that_are_away_are_not_touched(weights: State) -> None:
    refuse_touch("reload_weights", tags("resident", weights))
    refuse_touch("reload_weights", {})
    with pytest.raises(IllegalState, match=rf"reload_weights needs .* they are {weights}: wake them first"):
        refuse_touch("reload_weights", tags(weights, "resident"))

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dormouse.api.durations import PATTERN, format_duration, parse_duration

PARTS = st.lists(
    st.tuples(st.integers(0, 99999), st.sampled_from(["h", "m", "s", "ms"])), min_size=1, max_size=4
)
SECONDS_OF_A_UNIT = {"h": 3600, "m": 60, "s": 1, "ms": 0.001}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0.0),
        ("90s", 90.0),
        ("1h30m", 5400.0),
        ("1h2m3s4ms", 3723.004),
        ("250ms", 0.25),
        ("1m1m", 120.0),
        ("5ms1h", 3600.005),
        ("00001s", 1.0),
    ],
)
def test_reads_what_the_standard_allows(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "1",
        "-1s",
        "1.5s",
        "1d",
        "1S",
        " 1s",
        "1s ",
        "1s\n",
        "1h 1m",
        "100000s",
        "1s1s1s1s1s",
        "٣s",
        "1µs",
    ],
)
def test_refuses_the_rest_and_says_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match="such as 90s or 1h30m") as refusal:
        parse_duration(text)
    assert repr(text) in str(refusal.value)


@given(PARTS)
def test_parts_add_up_in_any_order(parts: list[tuple[int, str]]) -> None:
    text = "".join(f"{count}{unit}" for count, unit in parts)
    assert parse_duration(text) == pytest.approx(
        sum(count * SECONDS_OF_A_UNIT[unit] for count, unit in parts)
    )


@given(st.integers(0, 100_000 * 3_600_000 - 1))
def test_what_is_written_reads_back_to_the_millisecond(milliseconds: int) -> None:
    text = format_duration(milliseconds / 1000)
    assert re.fullmatch(PATTERN, text)
    assert parse_duration(text) == milliseconds / 1000


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0004, "0s"),
        (-0.0001, "0s"),
        (0.25, "250ms"),
        (59.9999, "1m"),
        (5400, "1h30m"),
        (-90, "-1m30s"),
        (400_000 * 3600, "400000h"),
    ],
)
def test_writes_as_a_person_would(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text

"""A setting that nobody can mean stops the start and says what is accepted."""

from __future__ import annotations

import pytest

from dormouse_engine.plugin.settings import Settings, SettingsError


def test_nothing_set_means_the_defaults() -> None:
    assert Settings.from_env({}) == Settings()
    assert Settings.from_env({"DORMOUSE_ALLOCATOR": "", "DORMOUSE_STAGING": ""}) == Settings()


def test_everything_set() -> None:
    assert Settings.from_env(
        {
            "DORMOUSE_ALLOCATOR": "dormouse",
            "DORMOUSE_STAGING": "off",
            "DORMOUSE_STAGING_BYTES_PER_SECOND": "0",
        }
    ) == Settings(allocator="dormouse", staging=False, staging_bytes_per_second=0)


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("DORMOUSE_ALLOCATOR", "cumem", "say auto or stock or dormouse"),
        ("DORMOUSE_STAGING", "yes", "say on or off"),
        ("DORMOUSE_STAGING_BYTES_PER_SECOND", "8GiB", "a whole number of bytes"),
        ("DORMOUSE_STAGING_BYTES_PER_SECOND", "-1", "a whole number of bytes"),
    ],
)
def test_what_can_not_be_meant_is_refused(name: str, value: str, accepted: str) -> None:
    with pytest.raises(SettingsError, match=accepted) as refused:
        Settings.from_env({name: value})
    assert f"{name}={value!r}" in str(refused.value)

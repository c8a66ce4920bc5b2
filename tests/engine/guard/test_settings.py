"""Settings come from the environment, and a bad one says what to give."""

from pathlib import Path

import pytest

from dormouse_engine.guard import Settings, SettingsError


def test_an_empty_environment_gives_the_contracts_defaults() -> None:
    settings = Settings.from_env({})
    assert settings == Settings()
    assert (settings.drain_seconds, settings.held_requests, settings.held_bytes) == (30, 1024, 64 * 2**20)
    assert (settings.max_wait_seconds, settings.heartbeat_seconds, settings.token_file) == (120, 15, None)


def test_every_variable_is_read() -> None:
    env = {
        "DORMOUSE_TOKEN_FILE": "/run/token",
        "DORMOUSE_DRAIN_SECONDS": "0",
        "DORMOUSE_HELD_REQUESTS": "7",
        "DORMOUSE_HELD_BYTES": "99",
        "DORMOUSE_MAX_WAIT_SECONDS": "1.5",
        "DORMOUSE_HEARTBEAT_SECONDS": "2",
        "DORMOUSE_ENGINE_TIMEOUT_SECONDS": "3",
        "DORMOUSE_ENGINE_API_KEY": "key",
        "DORMOUSE_WEIGHTS_REVISION": "step-1",
    }
    assert Settings.from_env(env) == Settings(
        token_file=Path("/run/token"),
        drain_seconds=0,
        held_requests=7,
        held_bytes=99,
        max_wait_seconds=1.5,
        heartbeat_seconds=2,
        engine_timeout_seconds=3,
        engine_api_key="key",
        weights_revision="step-1",
    )


def test_the_engines_own_key_is_found_where_vllm_looks_for_it() -> None:
    assert Settings.from_env({"VLLM_API_KEY": "theirs"}).engine_api_key == "theirs"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DORMOUSE_DRAIN_SECONDS", "-1"),
        ("DORMOUSE_DRAIN_SECONDS", "soon"),
        ("DORMOUSE_DRAIN_SECONDS", "inf"),
        ("DORMOUSE_MAX_WAIT_SECONDS", "0"),
        ("DORMOUSE_MAX_WAIT_SECONDS", "nan"),
        ("DORMOUSE_HEARTBEAT_SECONDS", "16"),
        ("DORMOUSE_HEARTBEAT_SECONDS", "0"),
        ("DORMOUSE_ENGINE_TIMEOUT_SECONDS", "0"),
        ("DORMOUSE_HELD_REQUESTS", "0"),
        ("DORMOUSE_HELD_REQUESTS", "1.5"),
        ("DORMOUSE_HELD_BYTES", "64Mi"),
        ("DORMOUSE_HELD_BYTES", "-5"),
    ],
)
def test_a_bad_value_names_the_variable_the_value_and_what_is_accepted(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"{name}='{value}' is not usable: give a (number|whole)"):
        Settings.from_env({name: value})

"""Settings come from the environment; a bad one is named, and `--help` lists them all."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from dormouse.errors import SettingsError
from dormouse.settings import LogFormat, Settings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, _, _ in Settings.variables():
        monkeypatch.delenv(name, raising=False)


def test_an_empty_environment_is_enough() -> None:
    settings = Settings.read()
    assert settings.namespaces == ()
    assert settings.token_file is None
    assert settings.log_format is LogFormat.JSON
    assert settings.identity


def test_variables_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DORMOUSE_NAMESPACES", " a, b,,")
    monkeypatch.setenv("DORMOUSE_TOKEN_FILE", str(tmp_path))
    monkeypatch.setenv("DORMOUSE_LOG_FORMAT", "console")
    monkeypatch.setenv("DORMOUSE_DRAIN_AFTER", "7.5")
    monkeypatch.setenv("DORMOUSE_OF_AN_ENGINE", "left alone")
    settings = Settings.read()
    assert settings.namespaces == ("a", "b")
    assert settings.token_file == tmp_path
    assert settings.log_format is LogFormat.CONSOLE
    assert settings.drain_after == 7.5


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("DORMOUSE_HEALTH_PORT", "http", "integer"),
        ("DORMOUSE_HEALTH_PORT", "70000", "65535"),
        ("DORMOUSE_LEASE_DURATION", "0", "greater than 0"),
        ("DORMOUSE_LOG_FORMAT", "xml", "'json' or 'console'"),
    ],
)
def test_a_bad_value_names_its_variable_and_what_is_good(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        Settings.read()
    assert name in str(caught.value)
    assert says in str(caught.value)


def _dormouse(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from dormouse.cli import main; main()", *arguments],
        env={"COLUMNS": "300", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_lists_every_variable() -> None:
    answer = _dormouse("operator", "--help")
    assert answer.returncode == 0
    for name, default, _ in Settings.variables():
        assert f"{name}: " in answer.stdout
        assert not default or f"Default: {default}." in answer.stdout


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"DORMOUSE_HEALTH_PORT": "http"}, "DORMOUSE_HEALTH_PORT"),
        ({"DORMOUSE_LOG_LEVEL": "loud"}, "DEBUG, INFO, WARNING, ERROR"),
        ({"KUBECONFIG": "/nonexistent/kubeconfig"}, "set KUBECONFIG"),
    ],
)
def test_an_operator_that_can_not_start_says_why_in_its_last_line_and_ends_with_one(
    environment: dict[str, str], says: str
) -> None:
    answer = _dormouse("operator", **environment)
    assert answer.returncode == 1
    last = answer.stderr.splitlines()[-1]
    assert last.startswith("dormouse: ")
    assert says in last
    assert "Traceback" not in answer.stderr

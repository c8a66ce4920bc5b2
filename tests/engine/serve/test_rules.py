"""No engine with dev mode and without the guard: every way around it that vLLM has is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dormouse_engine.serve import Installed, ServeError, build
from dormouse_engine.serve.rules import check, flags

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--no-enable-sleep-mode"], "--no-enable-sleep-mode"),
        (["--no_enable_sleep_mode"], "--no-enable-sleep-mode"),
        (["--headless"], "--headless"),
        (["--head"], "--headless"),
        (["--grpc"], "--grpc"),
        (["--config", "x.yaml"], "--config"),
        (["--conf=x.yaml"], "--config"),
        (["--api-server-count", "2"], "--api-server-count 2"),
        (["--api_server_count=4"], "--api-server-count 4"),
        (["--api-server-count"], "--api-server-count None"),
        (["-asc", "2"], "--api-server-count 2"),
        (["--data-parallel-multi-port-external-lb"], "--data-parallel-multi-port-external-lb"),
        (["--data-parallel-external-lb"], "--data-parallel-external-lb"),
        (["-dph"], "--data-parallel-hybrid-lb"),
        (["-dpn", "0"], "--data-parallel-rank"),
        (["-dpr=1"], "--data-parallel-start-rank"),
        (["--middleware", "dormouse_engine.guard.Guard"], "--middleware"),
        (["--middleware=dormouse_engine.guard.middleware.Guard"], "--middleware"),
        (["--api-key", "secret"], "VLLM_API_KEY"),
        (["--seed", "1", "--", "--headless"], "'--'"),
    ],
)
def test_an_argument_that_goes_around_the_guard_is_refused(
    environ: dict[str, str], gpu: Installed, arguments: list[str], named: str
) -> None:
    with pytest.raises(ServeError) as refused:
        build(environ, arguments, gpu)
    assert named in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--api-server-count", "1"],
        ["-asc=1"],
        ["--enable-sleep-mode"],
        ["--config-format", "auto"],
        ["--data-parallel-size", "2"],
        ["--middleware", "theirs.Own"],
        ["--temperature", "-1.5"],
        ["--compilation-config.mode", "3"],
    ],
)
def test_what_leaves_the_guard_in_place_is_allowed(environ: dict[str, str], arguments: list[str]) -> None:
    check(environ, arguments)


@pytest.mark.parametrize("name", ["VLLM_API_KEY", "DORMOUSE_ENGINE_API_KEY"])
def test_an_api_key_that_the_guard_knows_is_allowed(environ: dict[str, str], name: str) -> None:
    check({**environ, name: "secret"}, ["--api-key", "secret"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VLLM_SERVER_DEV_MODE", "0"),
        ("VLLM_SERVER_DEV_MODE", "true"),
        ("VLLM_USE_RUST_FRONTEND", "1"),
        ("VLLM_PLUGINS", ""),
        ("VLLM_PLUGINS", "ascend"),
        ("VLLM_PLUGINS", "ascend, dormouse"),
        ("DORMOUSE_HELD_REQUESTS", "none"),
    ],
)
def test_a_variable_that_takes_ours_away_is_refused_by_name(
    environ: dict[str, str], gpu: Installed, name: str, value: str
) -> None:
    with pytest.raises(ServeError, match=name):
        build({**environ, name: value}, [], gpu)


@pytest.mark.parametrize(
    ("name", "value"),
    [("VLLM_SERVER_DEV_MODE", "1"), ("VLLM_USE_RUST_FRONTEND", "0"), ("VLLM_PLUGINS", "ascend,dormouse")],
)
def test_a_variable_that_changes_nothing_is_allowed(
    environ: dict[str, str], gpu: Installed, name: str, value: str
) -> None:
    assert build({**environ, name: value}, [], gpu).environ[name] == value


def test_without_a_token_file_nothing_starts(environ: dict[str, str], gpu: Installed) -> None:
    del environ["DORMOUSE_TOKEN_FILE"]
    with pytest.raises(ServeError, match="DORMOUSE_TOKEN_FILE is not set"):
        build(environ, [], gpu)


def test_a_token_file_that_is_not_there_is_refused(environ: dict[str, str], token_file: Path) -> None:
    token_file.unlink()
    with pytest.raises(ServeError, match="can't be read"):
        check(environ, [])


def test_a_token_file_that_is_a_folder_is_refused(environ: dict[str, str], token_file: Path) -> None:
    environ["DORMOUSE_TOKEN_FILE"] = str(token_file.parent)
    with pytest.raises(ServeError, match="can't be read"):
        check(environ, [])


def test_an_empty_token_file_is_refused(environ: dict[str, str], token_file: Path) -> None:
    token_file.write_text("\n  \n")
    with pytest.raises(ServeError, match="holds no token"):
        check(environ, [])


def test_flags_are_read_as_vllm_reads_them() -> None:
    words = ["model", "--a_b", "v", "--c=d_e", "--f.g", "1", "-asc=2", "-3", "--last"]
    assert [*flags(words)] == [
        ("--a-b", "v"),
        ("--c", "d_e"),
        ("--f", "1"),
        ("--api-server-count", "2"),
        ("--last", None),
    ]

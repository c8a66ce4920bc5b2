"""What every image must do, asked of an image from outside: the same for a plain folder and for a real container."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import httpx

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

TOKEN = "dream-of-cheese"
STANDIN_SECONDS = 60.0
VLLM_SECONDS = 300.0
OURS = """\
import importlib.metadata as m, sys
import dormouse_engine, dormouse_native
names = {(e.name, e.value) for e in m.entry_points(group="vllm.general_plugins")}
assert ("dormouse", "dormouse_engine.plugin:register") in names, names
pool = dormouse_native.Pool("host", capacity=64 << 20, check_host_memory=False)
address = pool.malloc(4 << 20, "weights")
pool.sleep(1)
pool.wake()
pool.free(address)
print("ours", m.version("dormouse-engine"), m.version("dormouse-native"), sys.prefix)
"""


@dataclass(frozen=True)
class Running:
    """A started image: where it listens and what it wrote."""

    url: str
    log: Path
    alive: Callable[[], bool]

    def wait_until_healthy(self, seconds: float) -> None:
        """Return once `/health` answers 200; an AssertionError shows the end of the log otherwise."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.alive():
            try:
                if httpx.get(f"{self.url}/health", timeout=2).status_code == 200:
                    return
            except httpx.TransportError:
                pass  # not listening yet
            time.sleep(0.2)
        what = f"not healthy in {seconds:.0f} s" if self.alive() else "it ended"
        raise AssertionError(f"{what}:\n{self.log.read_text()[-4000:]}")


class Image(Protocol):
    """One image, however it was built. `files` are given to it as variables that name their paths."""

    @property
    def name(self) -> str:
        """Its short name, such as cpu."""

    @property
    def user(self) -> str:
        """Who it runs as."""

    @property
    def labels(self) -> Mapping[str, str]:
        """What it says of itself."""

    def run(
        self,
        arguments: Sequence[str],
        *,
        entrypoint: Sequence[str] | None = None,
        environ: Mapping[str, str] | None = None,
        files: Mapping[str, Path] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""

    def started(
        self, *arguments: str, environ: Mapping[str, str], files: Mapping[str, Path], log: Path
    ) -> AbstractContextManager[Running]:
        """Run it until the block ends."""


def check(image: Image, folder: Path, model: Path | None) -> list[str]:
    """Ask one image everything that can be asked of it here; returns what was shown, raises AssertionError.

    `folder` takes logs and the token. `model` is what a `cpu` image is started with; None: it is not started.
    """
    token = folder / "token"
    token.write_text(f"{TOKEN}\n")
    token.chmod(0o644)
    shown = [_describes_itself(image)]
    if image.name in {"operator", "standin", "cpu"}:
        shown.append(_installs_nothing(image))
    if image.name == "operator":
        done = image.run(["--help"])
        assert done.returncode == 0, done.stderr
        return [*shown, "the entry point starts"]
    if image.name == "standin":
        return [*shown, _standin_serves(image, token, folder / "standin.log")]
    shown += [_has_ours(image), _refuses_to_run_unguarded(image, token)]
    if image.name == "cpu" and model is not None:
        shown.append(_vllm_serves(image, token, model, folder / "cpu.log"))
    return shown


def _describes_itself(image: Image) -> str:
    assert re.fullmatch(r"[0-9]+:[0-9]+", image.user), image.user
    # Only an NPU's device nodes ask for root.
    assert (image.user.split(":")[0] == "0") == (image.name == "ascend"), image.user
    assert image.labels["org.opencontainers.image.licenses"].startswith("Apache-2.0")
    return f"runs as {image.user}, {image.labels['org.opencontainers.image.licenses']}"


def _installs_nothing(image: Image) -> str:
    # The bases of the others bring an installer of their own.
    find = "import importlib.util as u; print([n for n in ('pip', 'uv') if u.find_spec(n)])"
    done = image.run(["-c", find], entrypoint=["python"])
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
    return "has nothing that installs packages"


def _standin_serves(image: Image, token: Path, log: Path) -> str:
    with image.started("--model=smoke", environ={}, files={"DORMOUSE_TOKEN_FILE": token}, log=log) as running:
        running.wait_until_healthy(STANDIN_SECONDS)
        sleeps_and_wakes(running.url, "smoke")
    return "serves, sleeps and wakes, and wants the token for it"


def _has_ours(image: Image) -> str:
    done = image.run(["-c", OURS], entrypoint=["python3"])
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _refuses_to_run_unguarded(image: Image, token: Path) -> str:
    refusals: list[tuple[list[str], dict[str, str], dict[str, Path], str]] = [
        (["some/model"], {}, {}, "DORMOUSE_TOKEN_FILE"),
        (["some/model", "--api-server-count=2"], {}, {"DORMOUSE_TOKEN_FILE": token}, "--api-server-count"),
        (["some/model"], {"VLLM_PLUGINS": "theirs"}, {"DORMOUSE_TOKEN_FILE": token}, "VLLM_PLUGINS"),
        ([], {}, {"DORMOUSE_TOKEN_FILE": token}, "DORMOUSE_MODEL"),
    ]
    for arguments, environ, files, said in refusals:
        done = image.run(arguments, environ=environ, files=files)
        assert done.returncode == 2, (arguments, environ, done.returncode, done.stderr)
        assert said in done.stderr, done.stderr
    return f"refuses each of {len(refusals)} starts that would leave it unguarded"


def _vllm_serves(image: Image, token: Path, model: Path, log: Path) -> str:
    environ = {
        "DORMOUSE_SERVED_MODEL_NAME": "smoke",
        "DORMOUSE_MAX_MODEL_LEN": "1024",
        "DORMOUSE_MAX_NUM_SEQS": "1",
        "DORMOUSE_KV_CACHE_MEMORY_BYTES": "64M",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    files = {"DORMOUSE_TOKEN_FILE": token, "DORMOUSE_MODEL": model}
    with image.started(environ=environ, files=files, log=log) as running:
        running.wait_until_healthy(VLLM_SECONDS)
        sleeps_and_wakes(running.url, "smoke")
    return "real vLLM serves, sleeps and wakes, and wants the token for it"


def sleeps_and_wakes(url: str, model: str) -> None:
    """One engine, over HTTP: the same answer before and after a sleep; without the token nothing of it."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    question = {"model": model, "prompt": "import os", "max_tokens": 8, "temperature": 0}
    with httpx.Client(base_url=url, timeout=60) as http:

        def answer() -> str:
            got = http.post("/v1/completions", json=question)
            assert got.status_code == 200, got.text
            text: str = got.json()["choices"][0]["text"]
            return text

        before = answer()
        assert http.post("/sleep?level=1").status_code == 401
        assert http.get("/is_sleeping").status_code == 401
        for path, tier in (("/sleep?level=1", "Offloaded"), ("/wake_up", "Awake")):
            done = http.post(path, headers=headers)
            assert done.status_code == 200, done.text
            report = http.get("/dormouse/report", headers=headers).json()
            assert report["tier"] == tier, report
        assert answer() == before

"""Real vLLM started through `dormouse-engine serve`, as an image starts it: variables, checks, guard, sleep."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.cluster.ports import free_port
from tests.cluster.processes import Child
from tests.cluster.waiting import wait_for
from tests.vllm_cpu import engines
from tests.vllm_cpu.conftest import TOKEN
from tests.vllm_cpu.talk import Talk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.vllm_cpu.conftest import Installed

HOST = "127.81.0.9"


@pytest.fixture(scope="module")
def served(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[engines.Engine]:
    folder = tmp_path_factory.mktemp("entrypoint")
    token_file = folder / "token"
    token_file.write_text(f"{TOKEN}\n")
    port = free_port(HOST)
    own = engines.variables(token_file=token_file, plugin_folder=folder)
    # The entry point's own business.
    del own["VLLM_SERVER_DEV_MODE"]
    settings = {
        "DORMOUSE_MODEL": str(installed.model),
        "DORMOUSE_SERVED_MODEL_NAME": "tiny,also-tiny",
        "DORMOUSE_HOST": HOST,
        "DORMOUSE_PORT": str(port),
        "DORMOUSE_MAX_MODEL_LEN": "64",
        "DORMOUSE_MAX_NUM_SEQS": "1",
        "DORMOUSE_KV_CACHE_MEMORY_BYTES": "64M",
        "DORMOUSE_ENFORCE_EAGER": "1",
    }
    foreign = ("DORMOUSE_", "VLLM_")
    process = Child(
        "vllm-entrypoint",
        [str(installed.python), "-m", "dormouse_engine.serve", "serve", "--max-model-len", "1024"],
        state=folder,
        log=folder / "engine.log",
        env={name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        | own
        | settings,
        cwd=folder,
        death_signal=signal.SIGTERM,
    )
    engine = engines.Engine(f"http://{HOST}:{port}", "tiny", process)
    with engines.running(engine):
        yield engine


def test_the_process_is_the_engine_itself(served: engines.Engine) -> None:
    words = Path(f"/proc/{served.process.pid}/cmdline").read_bytes().split(b"\0")
    assert b"vllm.entrypoints.openai.api_server" in words


def test_the_checks_were_printed_before(served: engines.Engine) -> None:
    assert "preflight" in served.process.log_tail(10_000)


def test_variables_were_taken_and_arguments_win(served: engines.Engine) -> None:
    models = httpx.get(f"{served.url}/v1/models", timeout=30).json()["data"]
    assert [(one["id"], one["max_model_len"]) for one in models] == [("tiny", 1024), ("also-tiny", 1024)]


@pytest.mark.parametrize("path", ["/sleep", "/wake_up", "/collective_rpc", "/dormouse/report", "/pause"])
def test_nobody_gets_at_a_dev_endpoint_without_the_token(served: engines.Engine, path: str) -> None:
    assert httpx.post(f"{served.url}{path}", timeout=30).status_code == 401


async def test_it_sleeps_and_answers_as_before(served: engines.Engine) -> None:
    async with Talk.to(served.url, served.name, TOKEN) as talk:
        before = await talk.ask("import os", 8)
        await talk.sleep(1)
        assert (await talk.report())["tier"] == "Offloaded"
        await talk.wake_fully()
        assert await talk.ask("import os", 8) == before


def test_its_log_has_the_users_requests_and_not_the_operators(served: engines.Engine) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    for path in ("/dormouse/report", "/v1/models?seen"):
        httpx.get(f"{served.url}{path}", headers=headers, timeout=30).raise_for_status()
    wait_for("the log", lambda: "GET /v1/models?seen" in served.process.log_tail(10_000), seconds=10)
    assert "GET /dormouse/report" not in served.process.log_tail(10_000)


def test_a_stop_ends_it_with_the_engine_s_own_code(served: engines.Engine) -> None:
    os.kill(served.process.pid, signal.SIGTERM)
    assert served.process.wait(engines.STOP_SECONDS * 4) == 0

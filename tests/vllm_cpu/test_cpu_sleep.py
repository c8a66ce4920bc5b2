"""Real vLLM, and memory that really leaves it: the plugin on a CPU, with half a GiB of weights.

Two engines. `large` has the guard and keeps its backup in RAM. `strict` has no guard, other weights of the same shape,
its backup in a file, and memory that ends the engine when it is touched asleep, as a GPU's would.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import resource
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
import pytest_asyncio

from dormouse_engine.facts.read import read_all
from tests.vllm_cpu import engines, environment, model, plugin
from tests.vllm_cpu.conftest import TOKEN
from tests.vllm_cpu.talk import PATIENCE_SECONDS, PROMPTS, Talk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from dormouse_engine.facts.model import WorkerFacts
    from tests.vllm_cpu.conftest import Installed

MIB = 2**20
TOKENS = 12
# Heap that comes and goes with requests.
SLACK = 48 * MIB
CONFIGURE = Path(__file__).with_name("configure.py")


class Sleeper(NamedTuple):
    """One engine, where its workers tell facts, and the folder that it loads its model from."""

    engine: engines.Engine
    run_dir: Path
    model: Path

    def facts(self) -> WorkerFacts:
        """What its one worker says."""
        (worker,) = read_all(self.run_dir, 5)
        return worker

    def rss(self) -> int:
        """Resident bytes of the process that holds the model."""
        status = Path(f"/proc/{self.facts().pid}/status").read_text()
        (kib,) = re.findall(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
        return int(kib) * 1024

    @contextlib.contextmanager
    def no_file_beyond(self, size: int) -> Iterator[None]:
        """The kernel lets the worker write no larger file: a real shortage, made from outside."""
        pid = self.facts().pid
        soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))

    def serve(self, made: Path) -> None:
        """Let its model folder hold what is in `made`, as a new checkpoint would be put there."""
        self.model.mkdir(exist_ok=True)
        for file in made.iterdir():
            fresh = self.model / f".{file.name}"
            fresh.symlink_to(file)
            fresh.replace(self.model / file.name)


class Stage(NamedTuple):
    """Both engines, and the two checkpoints."""

    large: Sleeper
    strict: Sleeper
    first: Path
    second: Path


@pytest.fixture(scope="module")
def stage(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("sleep")
    home = environment.cache_home()
    first, second = (model.ensure(installed.python, home, "large", seed) for seed in (20, 21))
    (folder / "token").write_text(TOKEN)
    (folder / "backups").mkdir()

    def start(name: str, host: str, made: Path, token: Path | None, settings: dict[str, str]) -> Sleeper:
        run_dir, served = folder / f"run-{name}", folder / f"model-{name}"
        Sleeper.serve(Sleeper(None, run_dir, served), made)  # type: ignore[arg-type]  # it comes below
        engine = engines.start(
            installed.python,
            served,
            host=host,
            name=name,
            folder=folder,
            token_file=token,
            sleeps={"DORMOUSE_RUN_DIR": str(run_dir), **settings},
        )
        return Sleeper(engine, run_dir, served)

    both = Stage(
        large=start("large", "127.81.0.3", first, folder / "token", {}),
        strict=start(
            "strict",
            "127.81.0.4",
            second,
            None,
            {"DORMOUSE_CPU_STRICT": "1", "DORMOUSE_CPU_BACKUP": f"file:{folder / 'backups'}"},
        ),
        first=first,
        second=second,
    )
    with engines.running(both.large.engine, both.strict.engine):
        yield both


@pytest_asyncio.fixture
async def large(stage: Stage) -> AsyncIterator[Talk]:
    """The guarded engine, awake before and after each test."""
    async with Talk.to(stage.large.engine.url, "large", TOKEN) as talk:
        yield talk
        await talk.wake_fully()


@pytest_asyncio.fixture
async def strict(stage: Stage) -> AsyncIterator[Talk]:
    async with Talk.to(stage.strict.engine.url, "strict", "nobody asks for one") as talk:
        yield talk


def wait_for_end(pid: int) -> None:
    """Return when a process runs no more, be it that nobody has asked how it ended yet; fails after half a minute."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
                return
        except FileNotFoundError:
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} lives on")


async def greedy(talk: Talk) -> list[list[int]]:
    """Tokens of each prompt; no two of a text may be the same everywhere, or it would prove nothing."""
    said = [(await talk.ask(prompt, TOKENS))["token_ids"] for prompt in PROMPTS[:2]]
    assert all(len(set(ids)) > TOKENS // 2 for ids in said)
    return said


async def test_rss_falls_by_the_weights_at_levels_1_and_2_and_every_wake_gives_equal_tokens(
    stage: Stage, large: Talk
) -> None:
    engine, before = stage.large, await greedy(large)
    weights = engine.facts().tags["weights"].bytes
    assert weights > 512 * MIB
    for level in (1, 1, 2):
        awake = engine.rss()
        await large.sleep(level)
        asleep, told = engine.rss(), engine.facts()
        print(f"level {level}: RSS {awake / MIB:.0f}, then {asleep / MIB:.0f} MiB; {told.last}")
        assert awake - asleep > weights - SLACK
        assert told.tags["kv_cache"].mapped == 0
        assert told.tags["weights"].mapped < 2 * MIB
        await large.wake_fully()
        assert await greedy(large) == before
        assert engine.rss() - asleep > weights - SLACK


async def test_a_later_sleep_at_level_1_copies_no_weights_and_level_2_frees_the_backup(
    stage: Stage, large: Talk
) -> None:
    seen: list[tuple[bool, bool, bool]] = []
    for level in (1, 1, 2):
        await large.sleep(level)
        facts = stage.large.facts()
        assert facts.last is not None
        assert facts.backup is not None
        weights = facts.tags["weights"].bytes
        seen.append(
            (facts.last.copied > weights / 2, facts.last.clean > weights / 2, facts.backup.committed > 0)
        )
        await large.wake_fully()
    # The first may be clean already, if another test slept before.
    assert seen[1:] == [(False, True, True), (False, False, False)]


async def test_rotary_tables_and_other_buffers_survive_level_2(stage: Stage, large: Talk) -> None:
    # No checkpoint holds them, so a reload can't have brought them back; a late position needs them most.
    question = "def f(self):\n" * 60
    before = (await large.ask(question, TOKENS))["token_ids"]
    await large.sleep(2)
    kept = stage.large.facts().tags["weights"]
    assert (kept.state, kept.mapped > 0) == ("discarded", True)
    await large.wake_fully()
    assert (await large.ask(question, TOKENS))["token_ids"] == before


async def test_after_a_reload_of_changed_weights_it_equals_a_fresh_engine_with_these(
    stage: Stage, large: Talk, strict: Talk
) -> None:
    fresh, old = await greedy(strict), await greedy(large)
    assert fresh != old
    # A backup of the old weights is there when they change.
    await large.sleep(1)
    await large.wake_fully()
    stage.large.serve(stage.second)
    reloads = stage.large.facts().reloads
    await large.sleep(2)
    await large.wake_fully()
    assert await greedy(large) == fresh
    assert stage.large.facts().reloads == reloads + 1
    await large.sleep(1)
    await large.wake_fully()
    assert await greedy(large) == fresh
    # The same without sleeping: the backup just made is worth nothing any more.
    stage.large.serve(stage.first)
    reloaded = await large.say("/collective_rpc", {"method": "reload_weights"})
    assert reloaded.status_code == 200, reloaded.text
    await large.sleep(1)
    await large.wake_fully()
    assert await greedy(large) == old


@pytest.mark.parametrize(
    ("first", "between"),
    [("weights", ["resident", "discarded"]), ("kv_cache", ["offloaded", "resident"])],
)
async def test_tags_wake_one_by_one_in_both_orders(
    stage: Stage, large: Talk, first: str, between: list[str]
) -> None:
    before = await greedy(large)
    await large.sleep(1)
    held = asyncio.create_task(large.ask(PROMPTS[0], TOKENS))
    await large.say(f"/wake_up?tags={first}")
    assert [tag.state for tag in stage.large.facts().tags.values()] == between
    assert not held.done()
    (second,) = {"weights", "kv_cache"} - {first}
    await large.say(f"/wake_up?tags={second}")
    assert (await held)["token_ids"] == before[0]
    assert await greedy(large) == before


async def test_a_sleep_without_room_for_its_backup_loses_nothing_and_the_engine_serves_on(
    stage: Stage, large: Talk
) -> None:
    before = await greedy(large)
    # Leaves no backup behind, so that one is needed.
    await large.sleep(2)
    await large.wake_fully()
    with stage.large.no_file_beyond(16 * MIB):
        failed = await large.say("/sleep?level=1&mode=wait")
        missing = stage.large.facts().tags["weights"].bytes - 16 * MIB
        assert failed.status_code == 500
        assert re.search(r"this process may write 16777216 at most, (\d+) too few", failed.text)
        assert missing - MIB < int(re.findall(r"(\d+) too few", failed.text)[0]) <= missing
        assert [tag.state for tag in stage.large.facts().tags.values()] == ["resident", "resident"]
        assert await greedy(large) == before
    report = await large.report()
    assert (report["tier"], report["admitting"], report["sleeping"]) == ("Awake", True, False)
    await large.sleep(1)
    assert stage.large.facts().tags["weights"].mapped == 0
    await large.wake_fully()
    assert await greedy(large) == before


async def test_what_needs_weights_that_sleep_is_refused_and_the_sleeper_is_none_the_worse(
    stage: Stage, large: Talk
) -> None:
    before = await greedy(large)
    await large.sleep(1)
    refused = await large.say("/collective_rpc", {"method": "reload_weights"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "weights_not_resident")
    for method in (
        "compute_weight_checksums",
        "reset_weights",
        "start_weight_update",
        "finish_weight_update",
    ):
        told = await large.say("/collective_rpc", {"method": method})
        assert told.status_code == 500
        assert f"{method} needs the weights, and they are offloaded: wake them first" in told.text
    for method in ("sleep", "wake_up", "discard"):
        told = await large.say("/collective_rpc", {"method": method})
        assert (told.status_code, told.json()["error"]["code"]) == (400, "bad_method")
    assert stage.large.facts().tags["weights"].state == "offloaded"
    await large.wake_fully()
    assert await greedy(large) == before


async def test_the_report_carries_what_the_worker_measured(stage: Stage, large: Talk) -> None:
    await large.sleep(1)
    report = await large.report()
    facts = stage.large.facts()
    assert report["host"]["backup"] == facts.tags["weights"].bytes
    assert '"arena"' in json.dumps(report["allocator"])
    assert report["deepest"]["tier"] == "Discarded"


def test_a_configuration_that_could_not_sleep_is_refused_with_the_reason(
    installed: Installed, tmp_path: Path
) -> None:
    quantised = tmp_path / "quantised"
    quantised.mkdir()
    for file in installed.model.iterdir():
        (quantised / file.name).write_bytes(file.read_bytes())
    config = json.loads((quantised / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "activation_scheme": "dynamic"}
    (quantised / "config.json").write_text(json.dumps(config))
    own = engines.variables(token_file=None, plugin_folder=tmp_path)
    line = [str(installed.python), str(CONFIGURE), str(installed.model), str(quantised)]
    done = subprocess.run(line, env=own, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    said: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    assert said["plain"] == "dormouse_engine.plugin.cpu.worker.SleepingCPUWorker"
    assert said["without sleep mode"] == "vllm.v1.worker.cpu_worker.CPUWorker"
    assert "a quantised model (fp8)" in said["quantised"]
    assert "speculative decoding has a second model" in said["speculative"]
    assert "the worker class is somebody.Else" in said["another worker"]
    assert "DORMOUSE_CPU_STRICT='perhaps'" in said["a bad setting"]


async def test_in_strict_mode_a_right_order_of_calls_works_and_queued_requests_are_answered(
    stage: Stage, strict: Talk
) -> None:
    before = await greedy(strict)
    weights = stage.strict.facts().tags["weights"].bytes
    awake = stage.strict.rss()
    for level in (1, 2):
        assert (await strict.say(f"/sleep?level={level}")).status_code == 200
        assert awake - stage.strict.rss() > weights - SLACK
        backup = stage.strict.facts().backup
        assert backup is not None
        # In a file: the container's memory really falls.
        assert (backup.store, backup.committed) == ("file", 0)
        queued = asyncio.create_task(strict.ask(PROMPTS[0], TOKENS))
        await asyncio.sleep(0.5)
        assert not queued.done()
        assert (await strict.say("/wake_up?tags=weights")).status_code == 200
        if level == 2:
            assert (await strict.say("/collective_rpc", {"method": "reload_weights"})).status_code == 200
        assert not queued.done()
        assert (await strict.say("/wake_up?tags=kv_cache")).status_code == 200
        assert (await queued)["token_ids"] == before[0]
        assert await greedy(strict) == before


async def test_in_strict_mode_a_reload_of_weights_that_sleep_ends_the_engine_as_on_a_gpu(
    stage: Stage, strict: Talk
) -> None:
    pid = stage.strict.facts().pid
    assert (await strict.say("/sleep?level=2")).status_code == 200
    # What the API server makes of it is vLLM's business: it may answer, hang up or linger.
    asked = asyncio.create_task(strict.say("/collective_rpc", {"method": "reload_weights"}))
    await asyncio.to_thread(wait_for_end, pid)
    asked.cancel()
    stage.strict.engine.process.kill()


def test_the_plugin_is_found_by_the_entry_point_that_the_wheel_declares(tmp_path: Path) -> None:
    written = plugin.metadata(tmp_path) / "dormouse_engine-0.1.0.dist-info" / "entry_points.txt"
    assert written.read_text() == "[vllm.general_plugins]\ndormouse = dormouse_engine.plugin:register\n"

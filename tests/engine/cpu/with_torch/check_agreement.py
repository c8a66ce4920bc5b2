"""Two ranks of real vLLM's process groups. Needs vLLM, so `python -m tests.vllm_cpu` runs it, where vLLM is."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, sys
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.distributed import parallel_state as state
from dormouse_engine.plugin.cpu.agreement import agree, said_once
from dormouse_engine.plugin.cpu.errors import IllegalStateError
from dormouse_engine.plugin.cpu.memory import Memory
from dormouse_engine.plugin.cpu.store import Store

rank, meeting = int(sys.argv[1]), sys.argv[2]
with set_current_vllm_config(VllmConfig()):
    state.init_distributed_environment(2, rank, f"file://{meeting}", rank, "gloo")
    state.initialize_model_parallel(2, 1, backend="gloo")

def outcome(step):
    try:
        step()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "went on"

memory = Memory(Store(), agree=agree)
arena = memory.new("weights", "parameters", 4096)
arena.memory[0] = 7

class FullStore(Store):
    def require(self, sizes):
        raise IllegalStateError("no room here")

def sleep_where(full):
    memory.store = FullStore() if rank == full else Store()
    memory.sleep(1)

said = [outcome(lambda: agree(None))]
said += [outcome(lambda: agree(OSError("broken") if rank == failing else None)) for failing in (0, 1)]
said += [outcome(lambda: sleep_where(0)), memory.state("weights"), arena.memory[0]]
said += [outcome(lambda: said_once(sleep_where)(1)), memory.state("weights"), arena.memory[0]]
said += [outcome(lambda: sleep_where(None)), memory.state("weights")]
# Who ends without it breaks the other's connections.
state.destroy_model_parallel()
state.destroy_distributed_environment()
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> list[list[object]]:
    """What each rank went through, in order."""
    meeting = tmp_path_factory.mktemp("ranks") / "meeting"
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(rank), str(meeting)], stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=100)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0]
    return [json.loads(text.splitlines()[-1]) for text in said]


def test_where_all_went_well_all_go_on(heard: list[list[object]]) -> None:
    assert [said[0] for said in heard] == ["went on", "went on"]


@pytest.mark.parametrize("failing", [0, 1])
def test_what_fails_on_one_rank_is_raised_on_all_with_its_reason(
    heard: list[list[object]], failing: int
) -> None:
    told = f"IllegalStateError: all ranks stay as they were, because of rank {failing}: broken"
    assert [said[1 + failing] for said in heard] == [told, told]


def test_a_rank_without_room_keeps_all_awake_and_intact(heard: list[list[object]]) -> None:
    told = "IllegalStateError: all ranks stay as they were, because of rank 0: no room here"
    assert [said[3:6] for said in heard] == [[told, "resident", 7], [told, "resident", 7]]


def test_the_engine_hears_of_it_from_the_last_rank_alone(heard: list[list[object]]) -> None:
    told = "IllegalStateError: all ranks stay as they were, because of rank 1: no room here"
    assert [said[6:9] for said in heard] == [["went on", "resident", 7], [told, "resident", 7]]


def test_a_later_sleep_works_on_all(heard: list[list[object]]) -> None:
    assert [said[9:] for said in heard] == [["went on", "offloaded"], ["went on", "offloaded"]]

"""What the offline benchmarks use of vLLM is there, in the release that they run on with a GPU.

They are rehearsed with another release on a CPU; here each call and option is held against the real one's source.
"""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.common import environment
from benchmarks.common.engine import Setting
from benchmarks.common.shapes import QWEN3_32B
from tests.engine.contract.rows import V23

if TYPE_CHECKING:
    from tests.engine.contract.tree import Tree

pytestmark = pytest.mark.parametrize("release", [V23])
LLM = "vllm.entrypoints.llm"


def called(tree: Tree, module: str, path: str) -> inspect.Signature:
    """How a function is called, as far as `bind` asks: names, kinds, and which have a default."""
    given = tree.function(module, path).args
    kinds = inspect.Parameter
    positional = [*given.posonlyargs, *given.args]
    needed = len(positional) - len(given.defaults)
    found = [
        kinds(each.arg, kinds.POSITIONAL_OR_KEYWORD, default=kinds.empty if index < needed else None)
        for index, each in enumerate(positional)
    ]
    if given.vararg:
        found.append(kinds(given.vararg.arg, kinds.VAR_POSITIONAL))
    found += [
        kinds(each.arg, kinds.KEYWORD_ONLY, default=kinds.empty if default is None else None)
        for each, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)
    ]
    if given.kwarg:
        found.append(kinds(given.kwarg.arg, kinds.VAR_KEYWORD))
    return inspect.Signature(found)


@pytest.mark.parametrize(
    ("path", "arguments", "named"),
    [
        ("LLM.generate", ("self", "prompts", "params"), {"use_tqdm": False}),
        ("LLM.sleep", ("self",), {"level": 1}),
        ("LLM.wake_up", ("self",), {"tags": ["weights"]}),
        ("LLM.collective_rpc", ("self", "function"), {"args": ()}),
        ("LLM.collective_rpc", ("self", "name"), {"kwargs": {}}),
    ],
)
def test_the_calls_fit(tree: Tree, path: str, arguments: tuple[str, ...], named: dict[str, object]) -> None:
    called(tree, LLM, path).bind(*arguments, **named)


def test_whether_it_sleeps_can_be_asked(tree: Tree) -> None:
    called(tree, "vllm.v1.engine.llm_engine", "LLMEngine.is_sleeping").bind("self")


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("saved", [False, True])
def test_every_option_of_an_engine_exists(tree: Tree, *, graphs: bool, ranks: int, saved: bool) -> None:
    setting = Setting(
        shape=QWEN3_32B, model=Path("/model"), kv_bytes=1, graphs=graphs, ranks=ranks, saved=saved
    )
    own = set(called(tree, LLM, "LLM.__init__").parameters)
    fields = tree.find("vllm.engine.arg_utils", "EngineArgs")
    assert isinstance(fields, ast.ClassDef)
    known = {ast.unparse(each.target) for each in fields.body if isinstance(each, ast.AnnAssign)}
    assert set(setting.arguments()) <= own | known


def test_greedy_sampling_without_words_exists(tree: Tree) -> None:
    fields = tree.find("vllm.sampling_params", "SamplingParams")
    assert isinstance(fields, ast.ClassDef)
    known = {ast.unparse(each.target) for each in fields.body if isinstance(each, ast.AnnAssign)}
    assert {"temperature", "max_tokens", "ignore_eos", "detokenize"} <= known


def test_weights_can_be_reloaded_from_another_folder(tree: Tree) -> None:
    call = called(tree, "vllm.v1.worker.gpu_model_runner", "GPUModelRunner.reload_weights")
    call.bind("self", weights_path="/other")


@pytest.mark.parametrize("module", ["vllm.v1.worker.gpu_worker", "vllm.v1.worker.worker_base"])
def test_a_worker_hands_out_its_model(tree: Tree, module: str) -> None:
    name = "Worker" if module.endswith("gpu_worker") else "WorkerBase"
    called(tree, module, f"{name}.get_model").bind("self")


def test_a_rank_knows_its_number(tree: Tree) -> None:
    assert "self.rank = rank" in tree.body("vllm.v1.worker.worker_base", "WorkerBase.__init__")


def test_every_variable_that_is_set_for_vllm_is_read_by_it(tree: Tree, tmp_path: Path) -> None:
    known = tree.file("vllm.envs").read_text()
    ours = [
        name
        for name in environment.for_engine("stock", tmp_path, rehearsal=False)
        if name.startswith("VLLM_")
    ]
    unknown = [name for name in ours if f'"{name}"' not in known]
    assert ours
    # One that this process brought with it is not ours to judge.
    assert not set(unknown) & set(re.findall(r'"(VLLM_\w+)":', inspect.getsource(environment)))


def test_names_that_are_used_of_nvml_exist(tree: Tree) -> None:
    text = "".join(
        (Path(environment.__file__).with_name(f"{name}.py")).read_text() for name in ("memory", "machine")
    )
    used = set(re.findall(r"library\.(nvml\w+|NVML\w+)", text))
    assert len(used) > 8
    for name in used:
        tree.find("vllm.third_party.pynvml", name)

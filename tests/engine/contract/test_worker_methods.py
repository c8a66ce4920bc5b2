"""Every public method of a worker has been looked at: whether it writes weights, reads them, or neither.

`/collective_rpc` calls any of them by name, asleep or awake. So one that a new release brings must be put into one of
these sets, and where it writes or reads weights the plugin must hook it.
"""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING

import pytest

from dormouse_engine.plugin.settings import Settings
from dormouse_engine.plugin.versions import Engine
from tests.engine.contract import skeleton
from tests.engine.contract.calls import why_not
from tests.engine.contract.rows import A23, V23, V32, V33
from tests.engine.contract.tree import Tree
from tests.engine.sources.lock import ROOT

if TYPE_CHECKING:
    from pathlib import Path

WRITES = {
    "add_lora",
    "elastic_ep_execute",
    "finish_weight_update",
    "pin_lora",
    "reload_weights",
    "remove_lora",
    "reset_weights",
    "start_draft_weight_update",
    "start_weight_update",
    "update_weights",
}
READS = {"compute_weight_checksums", "save_sharded_state", "save_tensorized_model"}
SLEEPS = {"discard", "sleep", "wake_up"}
STARTS = {
    "checkpoint_prepare",
    "checkpoint_restore",
    "compile_or_warm_up_model",
    "determine_available_memory",
    "init_device",
    "init_weight_transfer_engine",
    "initialize_cache",
    "initialize_from_config",
    "load_model",
    "profile_prefill_latency",
    "set_kv_cache_layout",
    "update_max_model_len",
}
"""Called once, before the engine serves, or by something that refuses a sleeping engine itself."""
SERVES = {"annotate_profile", "execute_dummy_batch", "execute_model", "sample_tokens", "take_draft_token_ids"}
"""Called by the scheduler, which is paused while the engine sleeps."""
CALLERS_OWN = {"apply_model", "get_model", "get_draft_model"}
"""Hand out the model: what is done with it is the caller's business."""
NEITHER = {
    "check_health",
    "get_cache_block_size_bytes",
    "get_compilation_match_table",
    "get_encoder_timing_stats",
    "get_kv_cache_spec",
    "get_kv_connector_handshake_metadata",
    "get_model_inspection",
    "get_simple_cpu_offload_num_cpu_blocks",
    "get_supported_kv_cache_layouts",
    "get_supported_pooling_tasks",
    "get_supported_tasks",
    "handle_ft_command",
    "list_loras",
    "log_memory_stats",
    "profile",
    "release_late_interaction_query_cache",
    "reset_encoder_cache",
    "reset_mm_cache",
    "shutdown",
    "shutdown_weight_transfer_engine",
    "supports_draft_weight_updates",
    "synchronize_device",
    "uninstall_static_kernel",
    "update_config",
}
KNOWN = WRITES | READS | SLEEPS | STARTS | SERVES | CALLERS_OWN | NEITHER

WORKERS = [
    pytest.param(V23, "vllm.v1.worker.gpu_worker", "Worker", Engine("vllm", "0.23.0"), id=V23),
    pytest.param(V32, "vllm.v1.worker.gpu_worker", "Worker", Engine("vllm", "0.32.0"), id=V32),
    pytest.param(V33, "vllm.v1.worker.gpu_worker", "Worker", Engine("vllm", "0.33.0"), id=V33),
    pytest.param(A23, "vllm_ascend.worker.worker", "NPUWorker", Engine("vllm-ascend", "0.23.0"), id=A23),
]


def public(tree: Tree, module: str, name: str) -> set[str]:
    with skeleton.bones(tree):
        worker = getattr(importlib.import_module(module), name)
        return {method for method, _ in inspect.getmembers(worker, inspect.isfunction) if method[0] != "_"}


@pytest.mark.parametrize(("release", "module", "worker", "engine"), WORKERS)
def test_no_method_is_unknown_and_those_that_touch_weights_are_hooked(
    tree: Tree, module: str, worker: str, engine: Engine
) -> None:
    from dormouse_engine.plugin.staging import Stager  # noqa: PLC0415 - needs the native pool
    from dormouse_engine.plugin.workers import hooks  # noqa: PLC0415

    methods = public(tree, module, worker)
    assert methods - KNOWN == set(), "what do these do to weights?"
    hooked = {
        hook.path.removeprefix(f"{worker}.") for hook in hooks(module, worker, engine, Stager(Settings()))
    }
    assert methods & (WRITES | READS) <= hooked


def test_no_method_is_listed_that_no_release_has(sources: Path) -> None:
    everywhere: set[str] = set()
    for release, module, worker, _ in (case.values for case in WORKERS):
        everywhere |= public(Tree(sources / str(release)), str(module), str(worker))
    assert KNOWN - everywhere == set()


# ── the worker on a CPU, which is derived from vLLM's ────────────────────────────────────────────────────

OUTSIDE = {
    "add_lora": "adapters lie in plain attributes, which are not moved into arenas and never sleep",
    "remove_lora": "the same",
    "pin_lora": "the same",
    "start_draft_weight_update": "an engine with a draft model is refused at its start",
    "elastic_ep_execute": "so is one with expert load balancing, which this needs",
}
"""Why the CPU's worker need not see these calls."""
OURS = "dormouse_engine.plugin.cpu.worker"
CLASS = "SleepingCPUWorker"


@pytest.mark.parametrize("release", [V32])
def test_the_cpu_worker_takes_every_call_that_vllms_own_takes(tree: Tree) -> None:
    ours = Tree(ROOT / "engine_image")
    with skeleton.bones(tree):
        theirs = importlib.import_module("vllm.v1.worker.cpu_worker").CPUWorker
        overridden = {
            name for name in ours.methods(OURS, CLASS) if name[:2] != "__" and hasattr(theirs, name)
        }
        assert overridden >= SLEEPS | {"load_model", "reload_weights"}
        differing = {
            name: reason
            for name in overridden
            if (reason := why_not(skeleton.function(ours, OURS, f"{CLASS}.{name}"), getattr(theirs, name)))
        }
    assert differing == {}


@pytest.mark.parametrize("release", [V32])
def test_the_cpu_worker_sees_everybody_who_touches_weights(tree: Tree) -> None:
    methods = public(tree, "vllm.v1.worker.cpu_worker", "CPUWorker")
    assert methods - KNOWN == set()
    seen = Tree(ROOT / "engine_image").methods(OURS, CLASS)
    assert (methods & (WRITES | READS)) - seen == OUTSIDE.keys()

"""The sleep-mode allocator of vLLM: the class that ours stands in for, and how everybody gets at it."""

from __future__ import annotations

from tests.engine.contract.rows import (
    LATER,
    V23,
    V32,
    V33,
    Bound,
    Class,
    Missing,
    Row,
    Signature,
    Steps,
    Value,
)

CUMEM = "vllm.device_allocator.cumem"
LOOKUP = "vllm.device_allocator"
BACKEND = "vllm.device_allocator.sleep_mode_backend"

ROWS: tuple[Row, ...] = (
    # ── the class ───────────────────────────────────────────────────────────────────────────────────────
    Class(
        CUMEM,
        "CuMemAllocator",
        (),
        frozenset({"get_instance", "sleep", "wake_up", "use_memory_pool", "get_current_usage"}),
        why="our class takes this one's place; it has no base that isinstance could ask for",
    ),
    Value(
        CUMEM,
        "CuMemAllocator.instance",
        "None",
        why="the worker's shutdown reads it (0.32 on); ours has it too",
    ),
    Value(CUMEM, "CuMemAllocator.default_tag", "'default'", why="the tag of memory that nobody tagged"),
    Signature(
        CUMEM, "CuMemAllocator.get_instance", "staticmethod ()", why="the only way callers get the allocator"
    ),
    Signature(CUMEM, "CuMemAllocator.__init__", "(self)", why="built without arguments"),
    Signature(
        CUMEM,
        "CuMemAllocator.sleep",
        "(self, offload_tags=None)",
        why="called by keyword: the name is part of it",
    ),
    Signature(CUMEM, "CuMemAllocator.wake_up", "(self, tags=None)", why="called by position and by keyword"),
    Signature(
        CUMEM,
        "CuMemAllocator.use_memory_pool",
        "contextmanager (self, tag=None)",
        why="entered around allocations",
    ),
    Signature(
        CUMEM, "CuMemAllocator.get_current_usage", "(self)", why="asserted to be 0 before weights load"
    ),
    Signature(
        CUMEM,
        "CuMemAllocator.discard",
        "(self, tags)",
        versions=LATER,
        why="/release_kv_cache_memory ends here",
    ),
    Signature(
        CUMEM,
        "CuMemAllocator.cudagraph_pool",
        "contextmanager (self)",
        versions=LATER,
        why="graph capture asks it for a pool id when graphs are offloaded",
    ),
    Signature(
        CUMEM, "CuMemAllocator.release_pools", "(self)", versions=LATER, why="called by the worker's shutdown"
    ),
    Signature(CUMEM, "CuMemAllocator.close", "(self)", versions=LATER, why="another name of release_pools"),
    *(
        Missing(
            CUMEM,
            f"CuMemAllocator.{name}",
            versions=(V23,),
            why="0.23 is served without it; one that came is new work",
        )
        for name in ("discard", "cudagraph_pool", "release_pools", "close")
    ),
    Steps(
        CUMEM,
        "CuMemAllocator.cudagraph_pool",
        ("self.current_tag = 'cudagraph'", "yield self.allocator_and_pools['cudagraph'][0][0].id"),
        without=("use_mem_pool(",),
        versions=LATER,
        why="it yields a pool's id and routes nothing itself: capture routes to that pool",
    ),
    Steps(
        CUMEM,
        "CuMemAllocator.wake_up",
        ("if tags is None or data.tag in tags:",),
        without=("DEFERRABLE_TAGS",),
        versions=(V23,),
        why="0.23 wakes exactly the tags that are named; ours brings every other tag back with any wake",
    ),
    Steps(
        CUMEM,
        "CuMemAllocator.wake_up",
        ("if tags is None or data.tag in tags or data.tag not in DEFERRABLE_TAGS:",),
        versions=LATER,
        why="any wake restores every tag that can't be deferred, and ours does the same",
    ),
    Value(
        LOOKUP,
        "DEFERRABLE_TAGS",
        "('weights', 'kv_cache')",
        versions=LATER,
        why="the tags that a wake may leave asleep: ours knows the same two",
    ),
    Missing(LOOKUP, "DEFERRABLE_TAGS", versions=(V23,), why="ours defines the two tags itself"),
    # ── whether there is one ────────────────────────────────────────────────────────────────────────────
    Value(
        CUMEM,
        "cumem_available",
        "True",
        why="set where the engine's extension imports; the plugin sets it for ours",
    ),
    Bound(
        CUMEM,
        "cumem_available",
        frozenset(),
        frozenset({"vllm.platforms.interface:Platform.is_cumem_allocator_available"}),
        why="nobody keeps a copy of the flag, so setting the module's is enough",
    ),
    Signature(
        "vllm.platforms.interface",
        "Platform.is_cumem_allocator_available",
        "(self)",
        why="the configuration asks it before it allows sleep mode",
    ),
    # ── how everybody gets at it ────────────────────────────────────────────────────────────────────────
    Signature(LOOKUP, "get_mem_allocator_instance", "()", why="the lookup that workers call"),
    Steps(
        LOOKUP,
        "get_mem_allocator_instance",
        (
            "if current_platform.is_cuda_alike():",
            "from vllm.device_allocator.cumem import CuMemAllocator",
            "return CuMemAllocator.get_instance()",
        ),
        why="the class is looked up at each call: replacing it in its module reaches everybody, whenever it happens",
    ),
    Bound(
        CUMEM,
        "CuMemAllocator",
        frozenset(),
        frozenset({"vllm.device_allocator:get_mem_allocator_instance"}),
        versions=(V23,),
        why="nobody binds the class at import, so replacing it in its module is enough",
    ),
    Bound(
        CUMEM,
        "CuMemAllocator",
        frozenset(),
        frozenset(
            {"vllm.device_allocator:get_mem_allocator_instance", "vllm.v1.worker.gpu_worker:Worker.shutdown"}
        ),
        versions=LATER,
        why="nobody binds the class at import, so replacing it in its module is enough",
    ),
    Bound(
        LOOKUP,
        "get_mem_allocator_instance",
        frozenset({"vllm.v1.worker.gpu_worker"}),
        frozenset(),
        versions=(V23,),
        why="bound at import: the function itself must not be what we replace",
    ),
    Bound(
        LOOKUP,
        "get_mem_allocator_instance",
        frozenset({"vllm.v1.worker.gpu_worker", "vllm.compilation.cudagraph_pool"}),
        frozenset(f"{BACKEND}:CuMemBackend.{name}" for name in ("suspend", "resume", "discard")),
        versions=(V32,),
        why="bound at import: the function itself must not be what we replace",
    ),
    Bound(
        LOOKUP,
        "get_mem_allocator_instance",
        frozenset(
            {
                "vllm.v1.worker.gpu_worker",
                "vllm.compilation.cudagraph_pool",
                "vllm.v1.worker.lora_model_runner_mixin",
            }
        ),
        frozenset(f"{BACKEND}:CuMemBackend.{name}" for name in ("suspend", "resume", "discard")),
        versions=(V33,),
        why="bound at import: the function itself must not be what we replace",
    ),
    # ── the backend between worker and allocator, from 0.32 on ──────────────────────────────────────────
    Missing(BACKEND, "CuMemBackend", versions=(V23,), why="0.23's worker calls the allocator itself"),
    Signature(
        BACKEND, "CuMemBackend.suspend", "(self, level=1)", versions=LATER, why="the worker's sleep ends here"
    ),
    Steps(
        BACKEND,
        "CuMemBackend.suspend",
        (
            "offload_tags: tuple[str, ...] = ('runtime', 'cudagraph')",
            "if level == 1:",
            "offload_tags = ('weights', *offload_tags)",
            "allocator.sleep(offload_tags=offload_tags)",
        ),
        versions=LATER,
        why="runtime state and graphs are kept at every level; kv_cache and workspace at none",
    ),
    Signature(
        BACKEND, "CuMemBackend.resume", "(self, tags=None)", versions=LATER, why="the worker's wake ends here"
    ),
    Steps(BACKEND, "CuMemBackend.resume", ("allocator.wake_up(tags)",), versions=LATER, why="by position"),
    Signature(
        BACKEND, "CuMemBackend.discard", "(self, tags)", versions=LATER, why="the worker's discard ends here"
    ),
    Steps(BACKEND, "CuMemBackend.discard", ("allocator.discard(tags)",), versions=LATER, why="by position"),
    Value(
        BACKEND,
        "SleepModeBackendFactory._registry",
        "{}",
        versions=LATER,
        why="the registry by name; the name cumem stays vLLM's, for any other switches graph offload off",
    ),
    Steps(
        "vllm.config.vllm",
        "VllmConfig.use_cumem_cudagraph_pool",
        (
            "model_config.sleep_mode_offload_cudagraph",
            "model_config.enable_sleep_mode",
            "model_config.sleep_mode_backend == 'cumem'",
        ),
        versions=LATER,
        why="graphs are offloaded only under the backend's stock name: we keep it",
    ),
    # ── torch's allocator settings ──────────────────────────────────────────────────────────────────────
    Signature(
        "vllm.v1.worker.gpu_worker",
        "Worker._scoped_allocator_max_split",
        "contextmanager (self, max_split_size_mb)",
        why="while weights load no block of 20 MiB or more is split: one large tensor is one segment",
    ),
    Steps(
        CUMEM,
        "CuMemAllocator.use_memory_pool",
        ("_set_allocator_settings('expandable_segments:False')", "yield"),
        versions=(V23,),
        why="expandable segments are off inside a pool; ours does this itself",
    ),
    Steps(
        CUMEM,
        "CuMemAllocator.use_memory_pool",
        (
            "set_alloc_conf(with_conf_flag(prev_conf, EXPANDABLE_SEGMENTS, False))",
            "yield",
            "set_alloc_conf(prev_conf)",
        ),
        versions=LATER,
        why="the whole configuration is put back, for torch resets every option that it is not told",
    ),
)

"""vllm-ascend: its allocator class and its worker."""

from __future__ import annotations

from tests.engine.contract.rows import A23, Bound, Callers, Class, Missing, Row, Signature, Steps, Value

CAMEM = "vllm_ascend.device_allocator.camem"
WORKER = "vllm_ascend.worker.worker"
ONLY = (A23,)
MUTATES = "it writes weights: a backup taken before is stale after"

ROWS: tuple[Row, ...] = (
    Class(
        CAMEM,
        "CaMemAllocator",
        (),
        frozenset(
            {"get_instance", "sleep", "wake_up", "use_memory_pool", "use_allocation_tag", "get_current_usage"}
        ),
        versions=ONLY,
        why="get_instance is replaced on the class, for the worker's module binds the class by name",
    ),
    Signature(CAMEM, "CaMemAllocator.get_instance", "staticmethod ()", versions=ONLY, why="replaced by ours"),
    Value(CAMEM, "CaMemAllocator.instance", "None", versions=ONLY, why="unset until the first get_instance"),
    Value(
        CAMEM,
        "CaMemAllocator.default_tag",
        "'default'",
        versions=ONLY,
        why="the tag of memory that nobody tagged",
    ),
    Value(
        CAMEM,
        "CaMemAllocator.sleep_persistent_tag",
        "'sleep_persistent'",
        versions=ONLY,
        why="memory of this tag is never released; ours keeps its content",
    ),
    *(
        Signature(CAMEM, f"CaMemAllocator.{name}", called, versions=ONLY, why="ours is called like this")
        for name, called in (
            ("sleep", "(self, offload_tags=None)"),
            ("wake_up", "(self, tags=None)"),
            ("use_memory_pool", "contextmanager (self, tag=None)"),
            ("use_allocation_tag", "contextmanager (self, tag)"),
            ("get_current_usage", "(self)"),
        )
    ),
    Missing(CAMEM, "CaMemAllocator.discard", versions=ONLY, why="nothing discards alone there"),
    Steps(
        CAMEM,
        "CaMemAllocator.sleep",
        ("if data.tag == CaMemAllocator.sleep_persistent_tag:", "continue"),
        versions=ONLY,
        why="stays mapped while asleep: nothing reads it then, so ours may offload it",
    ),
    Bound(
        CAMEM,
        "CaMemAllocator",
        frozenset({WORKER}),
        frozenset(
            {
                "vllm_ascend.attention.dsa_v1:AscendDSAMetadataBuilder.__init__",
                "vllm_ascend.attention.context_parallel.dsa_cp:AscendDSACPMetadataBuilder.__init__",
            }
        ),
        versions=ONLY,
        why="the worker keeps the class that it imported: get_instance on the class is what everybody reaches",
    ),
    Callers(
        "use_allocation_tag",
        frozenset(
            {
                "vllm_ascend.attention.dsa_v1:AscendDSAMetadataBuilder.__init__",
                "vllm_ascend.attention.context_parallel.dsa_cp:AscendDSACPMetadataBuilder.__init__",
            }
        ),
        versions=ONLY,
        why="who tags inside the KV cache's pool",
    ),
    # ── the worker ──────────────────────────────────────────────────────────────────────────────────────
    Class(
        WORKER,
        "NPUWorker",
        ("WorkerBase",),
        versions=ONLY,
        why="not vLLM's GPU worker: it has hooks of its own",
    ),
    Signature(WORKER, "NPUWorker.sleep", "(self, level=1)", versions=ONLY, why="wrapped"),
    Signature(WORKER, "NPUWorker.wake_up", "(self, tags=None)", versions=ONLY, why="wrapped"),
    Signature(
        WORKER, "NPUWorker.load_model", "(self)", versions=ONLY, why="wrapped: it takes no arguments here"
    ),
    Signature(WORKER, "NPUWorker.compile_or_warm_up_model", "(self)", versions=ONLY, why="wrapped"),
    Missing(
        WORKER,
        "NPUWorker.reload_weights",
        versions=ONLY,
        why="inherits vLLM's WorkerBase: there is none to wrap",
    ),
    *(
        Signature(WORKER, f"NPUWorker.{name}", called, versions=ONLY, why=MUTATES)
        for name, called in (
            ("update_weights", "(self, update_info)"),
            ("start_weight_update", "(self, is_checkpoint_format=True)"),
            ("finish_weight_update", "(self)"),
            ("add_lora", "(self, lora_request)"),
            ("remove_lora", "(self, lora_id)"),
            ("pin_lora", "(self, lora_id)"),
        )
    ),
    Steps(
        WORKER,
        "NPUWorker.sleep",
        (
            "torch.npu.mem_get_info()[0]",
            "self._sleep_saved_buffers = {name: buffer.cpu().clone() for name, buffer in model.named_buffers()}",
            "CaMemAllocator.get_instance()",
            "allocator.sleep(offload_tags=('weights',) if level == 1 else tuple())",
            "assert freed_bytes >= 0",
        ),
        versions=ONLY,
        why="as in vLLM 0.23",
    ),
    Steps(
        WORKER,
        "NPUWorker.wake_up",
        (
            "nz_mode = get_ascend_config().weight_nz_mode",
            "if nz_mode:",
            "raise ValueError(",
            "CaMemAllocator.get_instance()",
            "allocator.wake_up(tags=tags)",
            "if len(self._sleep_saved_buffers):",
        ),
        versions=ONLY,
        why="an engine with weight_nz_mode falls asleep and can never wake: refused at start; tags come by keyword",
    ),
    Steps(
        "vllm_ascend.ascend_config",
        "AscendConfig.__init__",
        (
            "self.weight_nz_mode = self._get_config_value(additional_config, 'weight_nz_mode', 'VLLM_ASCEND_ENABLE_NZ'",
        ),
        versions=ONLY,
        why="the two places where it is set",
    ),
    Steps(
        WORKER,
        "NPUWorker.load_model",
        (
            "allocator.get_current_usage() == 0",
            "allocator.use_memory_pool(tag='weights')",
            "self.model_runner.load_model()",
        ),
        versions=ONLY,
        why="an empty allocator is asserted before weights load",
    ),
    Steps(
        WORKER,
        "NPUWorker.initialize_from_config",
        (
            "allocator.use_memory_pool(tag='kv_cache')",
            "self.model_runner.initialize_kv_cache(kv_cache_config)",
        ),
        versions=ONLY,
        why="runtime tensors are under kv_cache too: small ones must be kept",
    ),
    *(
        Steps(
            "vllm_ascend.platform",
            f"NPUPlatform.{name}",
            ("return True",),
            versions=ONLY,
            why="sleep mode is always allowed there: nothing to hook",
        )
        for name in ("is_sleep_mode_available", "is_cumem_allocator_available")
    ),
)

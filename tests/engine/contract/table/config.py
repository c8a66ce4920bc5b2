"""vLLM's configuration, which the plugin reads to judge an engine: a name that moved would read as "no"."""

from __future__ import annotations

from tests.engine.contract.rows import LATER, V23, VLLM, Exists, Missing, Row

_READ: tuple[tuple[tuple[str, ...], str, str, tuple[str, ...], str], ...] = (
    (VLLM, "model", "ModelConfig", ("quantization",), "a reload of quantised weights is known to go wrong"),
    (VLLM, "model", "ModelConfig", ("is_multimodal_model",), "how deep the engine may sleep"),
    (
        VLLM,
        "model",
        "ModelConfig",
        ("enable_sleep_mode", "enforce_eager"),
        "whether it sleeps, whether it has graphs",
    ),
    (
        VLLM,
        "model",
        "ModelConfig",
        ("enable_cumem_allocator",),
        "whether it allocates through the allocator at all",
    ),
    (
        LATER,
        "model",
        "ModelConfig",
        ("sleep_mode_backend", "sleep_mode_offload_cudagraph"),
        "what offloads graphs",
    ),
    (LATER, "model", "ModelConfig", ("enable_nccl_comm_suspend",), "what suspends NCCL"),
    ((V23,), "cache", "CacheConfig", ("calculate_kv_scales",), "measured scales are lost with the KV cache"),
    (
        VLLM,
        "vllm",
        "VllmConfig",
        ("model_config", "cache_config", "parallel_config"),
        "where the others hang",
    ),
    (
        VLLM,
        "vllm",
        "VllmConfig",
        ("lora_config", "speculative_config", "compilation_config"),
        "where the others hang",
    ),
    (
        VLLM,
        "speculative",
        "SpeculativeConfig",
        ("draft_model_config", "target_model_config"),
        "a second model",
    ),
    (VLLM, "parallel", "ParallelConfig", ("enable_eplb",), "experts that move"),
    (
        VLLM,
        "parallel",
        "ParallelConfig",
        ("use_ubatching", "world_size", "data_parallel_size"),
        "who captures graphs",
    ),
    (VLLM, "parallel", "ParallelConfig", ("worker_cls",), "the worker class, by name"),
    (VLLM, "compilation", "CompilationConfig", ("cudagraph_mode",), "whether graphs are captured"),
)

ROWS: tuple[Row, ...] = (
    *(
        Exists(f"vllm.config.{module}", f"{config}.{name}", versions=versions, why=why)
        for versions, module, config, names, why in _READ
        for name in names
    ),
    Missing(
        "vllm.config.cache",
        "CacheConfig.calculate_kv_scales",
        versions=LATER,
        why="scales are no longer measured at run time, so nothing of them can be lost",
    ),
)

"""What the plugin needs of vLLM on a CPU."""

from __future__ import annotations

from tests.engine.contract.rows import LATER, V23, Bound, Class, Missing, Row, Signature, Steps

PLATFORM = "vllm.platforms.cpu"
WORKER = "vllm.v1.worker.cpu_worker"
LAYERS = "vllm.model_executor.layers.utils"
AFTER_LOADING = frozenset(
    {
        "vllm.model_executor.layers.linear:UnquantizedLinearMethod.process_weights_after_loading",
        "vllm.model_executor.layers.vocab_parallel_embedding:UnquantizedEmbeddingMethod.process_weights_after_loading",
    }
)

ROWS: tuple[Row, ...] = (
    Class(PLATFORM, "CpuPlatform", ("Platform",), why="it inherits the answer about sleep mode"),
    Missing(
        PLATFORM, "CpuPlatform.is_sleep_mode_available", why="an answer of its own would need another hook"
    ),
    Signature(
        "vllm.platforms.interface",
        "Platform.is_sleep_mode_available",
        "(self)",
        why="refuses --enable-sleep-mode on a CPU: overridden on CpuPlatform",
    ),
    Steps(
        "vllm.config.model",
        "ModelConfig.__post_init__",
        (
            "if not current_platform.is_sleep_mode_available():",
            "if current_platform.is_cuda_alike() and (not self.enable_cumem_allocator):",
            "not current_platform.is_cumem_allocator_available()",
        ),
        why="sleep mode asks the platform alone; only CUDA-like ones must have the allocator's extension too",
    ),
    Signature(
        PLATFORM,
        "CpuPlatform.check_and_update_config",
        "classmethod (cls, vllm_config)",
        why="wrapped: names our worker",
    ),
    Steps(
        PLATFORM,
        "CpuPlatform.check_and_update_config",
        (
            "if parallel_config.worker_cls == 'auto':",
            "parallel_config.worker_cls = 'vllm.v1.worker.cpu_worker.CPUWorker'",
        ),
        why="the worker class that ours takes the place of",
    ),
    Class(
        WORKER, "CPUWorker", ("Worker",), why="ours is derived from it, and inherits the GPU worker's loading"
    ),
    Signature(WORKER, "CPUWorker.sleep", "(self, level=1)", why="replaced by ours"),
    Signature(WORKER, "CPUWorker.wake_up", "(self, tags=None)", why="replaced by ours"),
    Signature(WORKER, "CPUWorker.discard", "(self, tags)", versions=LATER, why="replaced by ours"),
    Missing(WORKER, "CPUWorker.load_model", why="it inherits the GPU worker's, which ours extends"),
    Steps(WORKER, "CPUWorker.sleep", ("logger.warning(",), why="does nothing by itself"),
    Steps(WORKER, "CPUWorker.wake_up", ("logger.warning(",), why="does nothing by itself"),
    Steps(
        "vllm.v1.worker.gpu_worker",
        "Worker._maybe_get_memory_pool_context",
        ("if current_platform.is_cpu():", "return nullcontext()", "get_mem_allocator_instance()"),
        why="no device allocator is asked for on a CPU",
    ),
    Signature(
        LAYERS,
        "dispatch_cpu_unquantized_gemm",
        "(layer, remove_weight)",
        why="replaced: it packs weights away",
    ),
    Bound(
        LAYERS,
        "dispatch_cpu_unquantized_gemm",
        frozenset(),
        AFTER_LOADING,
        why="looked up at each call, so replacing it in its module reaches all",
    ),
    Steps(
        LAYERS,
        "dispatch_cpu_unquantized_gemm",
        ("layer.cpu_linear = lambda x, weight, bias: torch.nn.functional.linear(x, weight, bias)",),
        why="the plain way that ours always takes: the call it must leave on the layer",
    ),
    Signature(
        "vllm.v1.worker.gpu_model_runner",
        "GPUModelRunner.initialize_kv_cache_tensors",
        "(self, kv_cache_config, kernel_block_sizes)",
        versions=(V23,),
        why="what allocates the KV cache on a CPU too",
    ),
    Signature(
        "vllm.v1.worker.gpu_model_runner",
        "GPUModelRunner.initialize_kv_cache_tensors",
        "(self, kv_cache_config, kernel_block_sizes, kv_cache_allocation_context=None)",
        versions=LATER,
        why="what allocates the KV cache on a CPU too",
    ),
    Signature(
        "vllm.v1.worker.gpu_model_runner",
        "GPUModelRunner.reload_weights",
        "(self, weights_iterator=None, weights_path=None, is_checkpoint_format=True)",
        why="level 2 comes back through it, and RL's new weights: weights_path is where they lie",
    ),
)

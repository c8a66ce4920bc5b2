"""What the cuts of the residual rely on: where vLLM builds what a sleep would leave on the device."""

from __future__ import annotations

from tests.engine.contract.rows import V23, Callers, Row, Signature, Steps

WORKER = "vllm.v1.worker.gpu_worker"
V1 = "vllm.v1.worker.gpu_model_runner"
V2 = "vllm.v1.worker.gpu.model_runner"
PLATFORM = "vllm.platforms.interface"
CUSTOM = "vllm.distributed.device_communicators.custom_all_reduce"
WORKSPACE = "vllm.v1.worker.workspace"
FLASHINFER = "vllm.v1.attention.backends.flashinfer"
SAMPLER = "vllm.v1.sample.ops.topk_topp_triton"
OLD = (V23,)

ROWS: tuple[Row, ...] = (
    # ── the model runner ────────────────────────────────────────────────────────────────────────────────
    Steps(
        WORKER,
        "Worker.__init__",
        ("self.use_v2_model_runner = ",),
        why="says which module's model runner will be made",
    ),
    *(
        Signature(
            module,
            "GPUModelRunner.__init__",
            "(self, vllm_config, device)",
            why="what it allocates goes under the tag runtime",
        )
        for module in (V1, V2)
    ),
    *(
        Steps(
            module,
            "GPUModelRunner.__init__",
            ("self.device = device",),
            without=("empty_cache",),
            why="it runs inside a pool, where torch can't empty its cache, and we read its device",
        )
        for module in (V1, V2)
    ),
    Steps(
        WORKER,
        "Worker.init_device",
        ("init_worker_distributed_environment(", "init_workspace_manager(", "GPUModelRunnerV2("),
        versions=OLD,
        why="buffers that other processes know are made before the model runner, outside our pool",
    ),
    Steps(
        "vllm.v1.worker.gpu.sample.penalties",
        "PenaltiesState.__init__",
        ("self.output_bin_counts = torch.zeros(max_num_reqs, self.vocab_size",),
        versions=OLD,
        why="the largest part of what a sleep leaves: made with the model runner",
    ),
    # ── graphs ──────────────────────────────────────────────────────────────────────────────────────────
    Signature(
        PLATFORM, "Platform.get_global_graph_pool", "(self)", versions=OLD, why="replaced: returns our pool"
    ),
    Callers(
        "get_global_graph_pool",
        frozenset(
            {
                "vllm.compilation.cuda_graph:CUDAGraphWrapper.__init__",
                "vllm.compilation.breakable_cudagraph:BreakableCUDAGraphWrapper.__init__",
                "vllm.v1.worker.gpu.cudagraph_utils:CudaGraphManager.__init__",
            }
        ),
        versions=OLD,
        why="everybody who captures at a start and not for profiling gets our pool",
    ),
    *(
        Signature(
            module,
            "GPUModelRunner.capture_model",
            "(self)",
            versions=OLD,
            why="wrapped: what it captures is tagged",
        )
        for module in (V1, V2)
    ),
    Steps(
        V1,
        "GPUModelRunner.profile_cudagraph_memory",
        (
            "profiling_pool = current_platform.graph_pool_handle()",
            "instance.graph_pool = profiling_pool",
            "instance.graph_pool = original_pools[id(instance)]",
        ),
        versions=OLD,
        why="captures for profiling bring pools of their own, which are freed",
    ),
    Signature(
        CUSTOM,
        "CustomAllreduce.all_reduce",
        "(self, inp, *, out=None, registered=False)",
        versions=OLD,
        why="wrapped: never told that its input is registered",
    ),
    Steps(
        CUSTOM,
        "CustomAllreduce.custom_all_reduce",
        ("if torch.cuda.is_current_stream_capturing():", "return self.all_reduce(input, registered=True)"),
        versions=OLD,
        why="the only one who says so; unregistered input is copied to a registered buffer",
    ),
    Steps(
        CUSTOM,
        "CustomAllreduce.all_reduce",
        ("if registered:", "else:", "self.buffer_ptrs[self.rank]"),
        versions=OLD,
        why="without registration it goes through the buffer",
    ),
    Signature(
        V1,
        "GPUModelRunner._warmup_and_capture",
        "(self, desc, cudagraph_runtime_mode, profile_seq_lens=None, allow_microbatching=False, num_warmups=None)",
        versions=OLD,
        why="wrapped: the stream of captures is current there, and nothing is captured yet",
    ),
    Steps(
        "vllm.v1.worker.gpu.cudagraph_utils",
        "CudaGraphManager.capture",
        (
            "with graph_capture(device=self.device):",
            "create_forward_fn(desc, warmup=True)",
            "forward_fn(CUDAGraphMode.NONE)",
            "with torch.cuda.graph(graph, self.pool):",
        ),
        versions=OLD,
        why="its first argument is called on the stream of captures, before anything runs there",
    ),
    Signature(
        "vllm.v1.worker.gpu.cudagraph_utils",
        "CudaGraphManager.capture",
        "(self, create_forward_fn, progress_bar_desc='Capturing CUDA graphs')",
        versions=OLD,
        why="wrapped by this signature",
    ),
    # ── workspaces ──────────────────────────────────────────────────────────────────────────────────────
    Signature(
        WORKSPACE,
        "WorkspaceManager._ensure_workspace_size",
        "(self, required_bytes)",
        versions=OLD,
        why="wrapped: it grows under the tag workspace",
    ),
    Steps(
        WORKSPACE,
        "WorkspaceManager._ensure_workspace_size",
        (
            "ubatch_id = dbo_current_ubatch_id()",
            "current_workspace = self._current_workspaces[ubatch_id]",
            "if self._locked:",
            "self._current_workspaces[ubatch_id] = None",
            "torch.accelerator.empty_cache()",
            "self._current_workspaces[ubatch_id] = torch.empty(",
        ),
        versions=OLD,
        why="we drop the old one earlier, and keep it from emptying the cache inside the pool",
    ),
    Signature(
        WORKSPACE,
        "WorkspaceManager._workspace_size_bytes",
        "staticmethod (workspace)",
        versions=OLD,
        why="tells whether it will grow",
    ),
    Signature(
        "vllm.v1.worker.ubatching",
        "dbo_current_ubatch_id",
        "()",
        versions=OLD,
        why="tells which workspace will grow",
    ),
    Steps(
        FLASHINFER,
        "FlashInferMetadataBuilder._get_workspace_buffer",
        ("if self._workspace_buffer is None:", "self._workspace_buffer = torch.zeros("),
        why="wrapped: made under the tag runtime, and its zeros are kept",
    ),
    Signature(
        FLASHINFER,
        "FlashInferMetadataBuilder._get_workspace_buffer",
        "(self)",
        why="wrapped by this signature",
    ),
    Steps(
        SAMPLER,
        "reset_buffer_cache",
        ("_TRITON_BUFFER_CACHE.clear()", "_TRITON_TABLE_CACHE.clear()"),
        why="called before a sleep",
    ),
    Signature(SAMPLER, "reset_buffer_cache", "()", why="called before a sleep"),
)

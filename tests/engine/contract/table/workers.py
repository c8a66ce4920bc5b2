"""The worker, the executor above it and the engine core above that: what sleeps in which order."""

from __future__ import annotations

from tests.engine.contract.rows import (
    LATER,
    V23,
    V32,
    V33,
    Callers,
    Class,
    Missing,
    Row,
    Signature,
    Steps,
    Value,
)

WORKER = "vllm.v1.worker.gpu_worker"
EXECUTOR = "vllm.v1.executor.abstract"
STATE = "vllm.distributed.parallel_state"
CORE = "vllm.v1.engine.core"
MUTATES = "it writes weights: a backup taken before is stale after"

ROWS: tuple[Row, ...] = (
    # ── the worker ──────────────────────────────────────────────────────────────────────────────────────
    Class(WORKER, "Worker", ("WorkerBase",), why="its methods are wrapped in place"),
    Signature(WORKER, "Worker.sleep", "(self, level=1)", why="wrapped"),
    Signature(WORKER, "Worker.wake_up", "(self, tags=None)", why="wrapped"),
    Signature(
        WORKER,
        "Worker.load_model",
        "(self, *, load_dummy_weights=False)",
        why="wrapped; ends with new weights",
    ),
    Signature(WORKER, "Worker.reload_weights", "(self, *args, **kwargs)", why="wrapped: " + MUTATES),
    Signature(
        WORKER, "Worker.compile_or_warm_up_model", "(self)", why="wrapped: what it leaves is what stays"
    ),
    Signature(
        WORKER, "Worker.initialize_from_config", "(self, kv_cache_config)", why="allocates the KV cache"
    ),
    Signature(WORKER, "Worker.init_device", "(self)", why="the first that touches the device"),
    Signature(WORKER, "Worker.shutdown", "(self)", why="pools must be gone before the interpreter is"),
    Signature(WORKER, "Worker.discard", "(self, tags)", versions=LATER, why="wrapped"),
    Missing(WORKER, "Worker.discard", versions=(V23,), why="0.23 discards nothing alone"),
    *(
        Signature(WORKER, f"Worker.{name}", called, why=MUTATES)
        for name, called in (
            ("add_lora", "(self, lora_request)"),
            ("remove_lora", "(self, lora_id)"),
            ("pin_lora", "(self, lora_id)"),
            ("update_weights", "(self, update_info)"),
            ("finish_weight_update", "(self)"),
            ("elastic_ep_execute", "(self, execute_method, *args, **kwargs)"),
        )
    ),
    Signature(
        WORKER,
        "Worker.start_weight_update",
        "(self, is_checkpoint_format=True)",
        versions=(V23,),
        why=MUTATES,
    ),
    Signature(WORKER, "Worker.start_weight_update", "(self)", versions=LATER, why=MUTATES),
    Signature(WORKER, "Worker.start_draft_weight_update", "(self)", versions=LATER, why=MUTATES),
    Signature(WORKER, "Worker.reset_weights", "(self)", versions=LATER, why=MUTATES),
    Missing(
        WORKER, "Worker.reset_weights", versions=(V23,), why="a mutator that came would have to be wrapped"
    ),
    Signature(
        WORKER,
        "Worker.compute_weight_checksums",
        "(self)",
        versions=LATER,
        why="tells whether weights came back bit by bit",
    ),
    Signature(
        WORKER, "Worker._maybe_get_memory_pool_context", "(self, tag)", why="where every tag enters the pool"
    ),
    Steps(
        WORKER,
        "Worker._maybe_get_memory_pool_context",
        (
            "current_platform.is_cuda_alike() and (not self.vllm_config.model_config.enable_cumem_allocator)",
            "allocator.get_current_usage() == 0",
            "return allocator.use_memory_pool(tag=tag)",
        ),
        why="an empty allocator is asserted before weights load: ours must count 0 then",
    ),
    Steps(
        WORKER,
        "Worker.load_model",
        ("self._maybe_get_memory_pool_context(tag='weights')", "self.model_runner.load_model("),
        why="all that loading allocates has the tag weights",
    ),
    Steps(
        WORKER,
        "Worker.initialize_from_config",
        (
            "with self._maybe_get_memory_pool_context(tag='kv_cache'):",
            "self.model_runner.initialize_kv_cache(",
        ),
        versions=(V23,),
        why="0.23 puts runtime tensors under kv_cache too: small ones must be kept",
    ),
    Steps(
        WORKER,
        "Worker.initialize_from_config",
        (
            "self._maybe_get_memory_pool_context(tag='kv_cache')",
            "self._maybe_get_memory_pool_context(tag='runtime')",
            "kv_cache_allocation_context=mem_pool_context",
        ),
        versions=LATER,
        why="only the backing allocation has the tag kv_cache, the rest is runtime",
    ),
    # ── its sleep ───────────────────────────────────────────────────────────────────────────────────────
    Steps(
        WORKER,
        "Worker.sleep",
        (
            "mem_get_info()[0]",
            "if level == 2:",
            "self._sleep_saved_buffers = {name: buffer.cpu().clone() for name, buffer in model.named_buffers()}",
            "allocator.sleep(offload_tags=('weights',) if level == 1 else tuple())",
            "assert freed_bytes >= 0",
        ),
        versions=(V23,),
        why="buffers are saved before anything goes; device memory may not grow between the two readings",
    ),
    Steps(
        WORKER,
        "Worker.sleep",
        (
            "get_memory_info()[0]",
            "if level == 2:",
            "self._save_sleep_parameters(model)",
            "self._sleep_saved_buffers = {name: buffer.cpu().clone() for name, buffer in model.named_buffers()}",
            "self._sleep_saved_draft_buffers",
            "self.sleep_mode_backend.suspend(level)",
            "suspend_device_comms()",
            "assert freed_bytes >= 0",
        ),
        versions=LATER,
        why="buffers are saved before anything goes; device memory may not grow between the two readings",
    ),
    Steps(
        WORKER,
        "Worker.wake_up",
        (
            "allocator.wake_up(tags)",
            "if len(self._sleep_saved_buffers):",
            "buffer.data.copy_(self._sleep_saved_buffers[name].data)",
            "self._sleep_saved_buffers = {}",
            "if tags is None or 'kv_cache' in tags:",
            "self.model_runner.post_kv_cache_wake_up()",
        ),
        without=("'weights' in tags",),
        versions=(V23,),
        why="0.23 writes saved buffers back on any wake, also while weights are not there: a wake of kv_cache alone",
    ),
    Steps(
        WORKER,
        "Worker.wake_up",
        (
            "self.sleep_mode_backend.resume(tags)",
            "wake_weights = tags is None or 'weights' in tags",
            "self._restore_sleep_parameters(self.model_runner.model)",
            "if wake_weights and len(self._sleep_saved_buffers):",
            "buffer.data.copy_(self._sleep_saved_buffers[name].data)",
            "if wake_weights and len(self._sleep_saved_draft_buffers):",
        ),
        versions=LATER,
        why="saved buffers come back with the weights alone",
    ),
    Signature(
        "vllm.v1.worker.gpu_model_runner",
        "GPUModelRunner.post_kv_cache_wake_up",
        "(self)",
        versions=(V23,),
        why="re-initialises what 0.23 lost with the KV cache; it must do no harm to what ours kept",
    ),
    Steps(
        WORKER,
        "Worker.shutdown",
        ("if CuMemAllocator.instance is not None:", "CuMemAllocator.instance.release_pools()"),
        versions=LATER,
        why="the class attribute is read and the method called: both must be ours",
    ),
    Steps(
        WORKER,
        "Worker._init_workspace_and_model_runner",
        ("alloc_context=lambda: self._maybe_get_memory_pool_context('workspace')",),
        versions=(V33,),
        why="scratch is allocated under a tag that no sleep keeps",
    ),
    Signature(
        "vllm.v1.worker.workspace",
        "init_workspace_manager",
        "(device, num_ubatches=None)",
        versions=(V23,),
        why="0.23 has no context for scratch: bringing it into the pool is ours",
    ),
    # ── graph pools ─────────────────────────────────────────────────────────────────────────────────────
    Signature(
        "vllm.platforms.interface",
        "Platform.get_global_graph_pool",
        "(self)",
        why="the one pool of all captured graphs: replaced to bring them into ours (0.23)",
    ),
    Callers(
        "get_global_graph_pool",
        frozenset(
            {
                "vllm.compilation.breakable_cudagraph:BreakableCUDAGraphWrapper.__init__",
                "vllm.compilation.cuda_graph:CUDAGraphWrapper.__init__",
                "vllm.v1.worker.gpu.cudagraph_utils:CudaGraphManager.__init__",
            }
        ),
        versions=(V23, V32),
        why="whoever asks captures into the pool that it gets: ours",
    ),
    Steps(
        "vllm.platforms.interface",
        "Platform.get_global_graph_pool",
        ("if cls._global_graph_pool is None:", "cls._global_graph_pool = self.graph_pool_handle()"),
        why="one pool for the process, made at the first question",
    ),
    Signature(
        "vllm.compilation.cudagraph_pool",
        "capture_pool",
        "contextmanager (pool, vllm_config)",
        versions=LATER,
        why="every capture that is offloaded goes through it to cudagraph_pool()",
    ),
    Steps(
        "vllm.compilation.cudagraph_pool",
        "capture_pool",
        (
            "vllm_config.use_cumem_cudagraph_pool",
            "with allocator.cudagraph_pool() as cumem_pool:",
            "yield cumem_pool",
        ),
        versions=LATER,
        why="what our cudagraph_pool() yields is what torch captures into",
    ),
    # ── the ranks of one engine ─────────────────────────────────────────────────────────────────────────
    Signature(STATE, "get_tp_group", "()", why="ranks tell each other how it went"),
    Signature(STATE, "get_pcp_group", "()", why="the same"),
    Signature(STATE, "get_pp_group", "()", why="the same"),
    Signature(STATE, "GroupCoordinator.is_last_rank", "property (self)", why="one of them raises for all"),
    Steps(
        "vllm.v1.executor.multiproc_executor",
        "MultiprocExecutor.collective_rpc",
        (
            "for mq in response_mqs:",
            "mq.dequeue(timeout=dequeue_timeout)",
            "if status != WorkerProc.ResponseStatus.SUCCESS:",
            "raise RuntimeError(",
        ),
        versions=(V23, V32),
        why="it stops reading at the first error, so only the last rank may raise",
    ),
    # ── the executor ────────────────────────────────────────────────────────────────────────────────────
    Signature(EXECUTOR, "Executor.sleep", "(self, level=1)", why="where all ranks are asked at once"),
    Signature(EXECUTOR, "Executor.wake_up", "(self, tags=None)", why="where all ranks are asked at once"),
    Steps(
        EXECUTOR,
        "Executor.sleep",
        (
            "if self.is_sleeping:",
            "return",
            "self.collective_rpc('sleep', kwargs=dict(level=level))",
            "self.sleeping_tags = {'weights', 'kv_cache'}",
            "self.is_sleeping = True",
        ),
        versions=(V23,),
        why="asleep only after every rank is; a second sleep never reaches a worker; a sleep that raised left it awake",
    ),
    Steps(
        EXECUTOR,
        "Executor.sleep",
        (
            "if 'weights' in self.sleeping_tags:",
            "return",
            "self.collective_rpc('sleep', kwargs=dict(level=level))",
            "self.sleeping_tags |= SLEEP_TAGS",
        ),
        versions=LATER,
        why="asleep only after every rank is; a second sleep never reaches a worker; a sleep that raised left it awake",
    ),
    Value(
        EXECUTOR, "SLEEP_TAGS", "frozenset(('weights', 'kv_cache'))", versions=LATER, why="the tags it counts"
    ),
    Signature(
        EXECUTOR, "Executor.is_sleeping", "property (self)", versions=LATER, why="it can't be set there"
    ),
    Steps(
        EXECUTOR,
        "Executor.wake_up",
        (
            "if not self.is_sleeping:",
            "return",
            "if tag not in self.sleeping_tags:",
            "return",
            "self.collective_rpc('wake_up', kwargs=dict(tags=tags))",
            "self.sleeping_tags.remove(tag)",
            "self.sleeping_tags.clear()",
        ),
        why="tags count as awake only after every rank has them; an unknown one reaches no worker",
    ),
    # ── the engine core ─────────────────────────────────────────────────────────────────────────────────
    Signature(
        CORE, "EngineCore.sleep", "(self, level=1, mode='abort')", why="the guard's level and mode end here"
    ),
    Steps(
        CORE,
        "EngineCore.sleep",
        (
            "clear_prefix_cache = level >= 1",
            "self.pause_scheduler(mode=mode, clear_cache=clear_prefix_cache)",
            "if level < 1:",
            "return pause_future",
            "model_executor.sleep(level)",
            "pause_future.add_done_callback(pause_complete)",
        ),
        why="the scheduler is paused, and caches are empty, before any memory goes",
    ),
    Steps(
        CORE,
        "EngineCore.wake_up",
        ("self.model_executor.wake_up(tags)", "self.resume_scheduler()"),
        without=("fully_awake",),
        versions=(V23,),
        why="0.23 resumes after any wake, however partial: the guard keeps requests away until all is back",
    ),
    Steps(
        CORE,
        "EngineCore.wake_up",
        (
            "self.model_executor.wake_up(tags)",
            "fully_awake = not self.model_executor.is_sleeping",
            "if fully_awake:",
            "self.resume_scheduler()",
            "return fully_awake",
        ),
        versions=LATER,
        why="it resumes only when all is back",
    ),
)

"""What vLLM does with requests in flight, and with its prefix cache, before a sleep drops the KV cache.

The guard lets a sleep keep requests (`mode=keep`) because of these rows: in each of these releases they are computed
again from their tokens. All of it happens between pause and sleep of the executor, in every mode, from level 1 on.
"""

from __future__ import annotations

from tests.engine.contract.rows import A23, LATER, V23, VLLM, Exists, Header, Row, Signature, Steps

CORE = "vllm.v1.engine.core"
SCHEDULER = "vllm.v1.core.sched.scheduler"
BLOCKS = "vllm.v1.core.block_pool"
BASIC = "vllm.entrypoints.serve.instrumentator.basic"

ROWS: tuple[Row, ...] = (
    Steps(
        CORE,
        "EngineCore.sleep",
        (
            "clear_prefix_cache = level >= 1",
            "pause_future = self.pause_scheduler(mode=mode, clear_cache=clear_prefix_cache)",
            "if pause_future is None:",
            "model_executor.sleep(level)",
            "def pause_complete(f: Future):",
            "f.result()",
            "future.set_result(model_executor.sleep(level))",
            "pause_future.add_done_callback(pause_complete)",
        ),
        why="memory goes when the pause is through, at once or later, caches cleared, and not when that failed",
    ),
    Steps(
        CORE,
        "EngineCoreProc.pause_scheduler",
        (
            "if clear_cache:",
            "engine._reset_caches()",
            "future.set_result(None)",
            "self.scheduler.set_pause_state(pause_state)",
            "if self._pause_complete():",
            "if clear_cache:",
            "self._reset_caches()",
            "return None",
            "self._idle_state_callbacks.append(partial(engine_idle_callback, future=future))",
        ),
        versions=(V23,),
        why="whichever way a pause ends, caches are cleared first, whatever the mode",
    ),
    Steps(
        CORE,
        "EngineCoreProc.pause_scheduler",
        (
            "engine._finish_pause(clear_cache)",
            "future.set_exception(e)",
            "self.scheduler.set_pause_state(pause_state)",
            "if self._pause_complete():",
            "self._finish_pause(clear_cache)",
            "return None",
            "self._idle_state_callbacks.append(partial(engine_idle_callback, future=future))",
        ),
        versions=LATER,
        why="whichever way a pause ends, caches are cleared first, whatever the mode; one that fails is no sleep",
    ),
    Steps(
        CORE,
        "EngineCore._finish_pause",
        ("if clear_cache:", "self._reset_caches()"),
        versions=LATER,
        why="the end of each pause",
    ),
    Steps(
        CORE,
        "EngineCoreProc.has_work",
        ("self.engines_running", "or self.scheduler.has_requests()", "or bool(self.batch_queue)"),
        why="a pause is through when no step is under way: what is preempted then has all its tokens",
    ),
    Signature(
        CORE,
        "EngineCore._reset_caches",
        "(self, reset_running_requests=True, reset_connector=True)",
        why="called without arguments: requests that run are preempted",
    ),
    Steps(
        CORE,
        "EngineCore._reset_caches",
        ("self.reset_prefix_cache(reset_running_requests=reset_running_requests",),
        why="what it says it passes on",
    ),
    Steps(
        SCHEDULER,
        "Scheduler.reset_prefix_cache",
        (
            "if reset_running_requests:",
            "while self.running:",
            "request = self.running.pop()",
            "self._preempt_request(request, timestamp",
            "self.prev_step_scheduled_req_ids.clear()",
            "reset_successful = self.kv_cache_manager.reset_prefix_cache()",
            "if reset_running_requests and (not reset_successful):",
            "raise RuntimeError(",
        ),
        why="all that run are preempted; blocks that somebody still holds are an error, and then nothing sleeps",
    ),
    Steps(
        SCHEDULER,
        "Scheduler._preempt_request",
        (
            "self.kv_cache_manager.free(request)",
            "request.status = RequestStatus.PREEMPTED",
            "request.num_computed_tokens = 0",
            "self.waiting.prepend_request(request)",
        ),
        versions=(V23,),
        why="it gives up its blocks, starts from nothing and is the first to run again",
    ),
    Steps(
        SCHEDULER,
        "Scheduler._preempt_request",
        (
            "self._free_request_blocks(request)",
            "request.status = RequestStatus.PREEMPTED",
            "request.num_computed_tokens = 0",
            "self.waiting.prepend_request(request)",
        ),
        versions=LATER,
        why="it gives up its blocks, starts from nothing and is the first to run again",
    ),
    Steps(
        BLOCKS,
        "BlockPool.reset_prefix_cache",
        (
            "if num_used_blocks != 1:",
            "return False",
            "self.cached_block_hash_to_block = BlockHashToBlockMap()",
            "for block in self.blocks:",
            "block.reset_hash()",
        ),
        why="no later request hits what was cached before, or the reset says that it failed",
    ),
    # ── and what runs them again knows them by their tokens ─────────────────────────────────────────────
    Steps(
        "vllm.v1.worker.gpu_model_runner",
        "GPUModelRunner._update_states",
        (
            "unscheduled_req_ids = cached_req_ids - (scheduled_req_ids - resumed_req_ids)",
            "req_state.block_ids = new_block_ids",
            "req_state.output_token_ids = resumed_token_ids[-num_output_tokens:]",
        ),
        why="a preempted request gets new blocks, and its tokens from the scheduler",
    ),
    Steps(
        "vllm.v1.worker.gpu.model_runner",
        "GPUModelRunner.add_requests",
        (
            "self._remove_request(req_id)",
            "all_token_ids=new_req_data.prefill_token_ids",
            "num_computed_tokens=new_req_data.num_computed_tokens",
            "self.block_tables.append_block_ids(req_index, new_req_data.block_ids, overwrite=True)",
        ),
        why="to the second runner a preempted request is a new one, with the tokens that it has so far",
    ),
    # ── where a connector may hold blocks ───────────────────────────────────────────────────────────────
    Exists(
        "vllm.config.vllm", "VllmConfig.kv_transfer_config", why="where the guard reads that there is one"
    ),
    Exists("vllm.config.kv_transfer", "KVTransferConfig.kv_connector", why="its name"),
    Steps(
        CORE,
        "EngineCoreProc.run_engine_core",
        (
            "engine_core.run_busy_loop()",
            "except Exception as e:",
            "engine_core._send_engine_dead()",
            "raise e",
        ),
        versions=(V23,),
        why="a reset that fails when the pause is through fails in the loop itself: the engine ends",
    ),
    # ── where vLLM-Ascend does otherwise ────────────────────────────────────────────────────────────────
    Steps(
        "vllm_ascend.patch.platform.patch_balance_schedule",
        "BalanceScheduler.reset_prefix_cache",
        (
            "if self._disable_preemption and reset_running_requests and self.running:",
            "raise RuntimeError(",
            "return super().reset_prefix_cache(reset_running_requests, reset_connector)",
        ),
        versions=(A23,),
        why="a node that computes prompts for others refuses to preempt: nothing sleeps there, and nothing is wrong",
    ),
    # ── which release it is ─────────────────────────────────────────────────────────────────────────────
    Header(BASIC, "show_version", ("@router.get('/version')",), why="method and path"),
    Steps(
        BASIC, "show_version", ("{'version': VLLM_VERSION}",), versions=VLLM, why="where the guard reads it"
    ),
)

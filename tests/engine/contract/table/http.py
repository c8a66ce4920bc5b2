"""What the guard, which vLLM's API server loads, relies on."""

from __future__ import annotations

from tests.engine.contract.rows import LATER, V23, Exists, Header, Missing, Row, Signature, Steps

SLEEP = "vllm.entrypoints.serve.dev.sleep.api_router"
RPC = "vllm.entrypoints.serve.dev.rpc.api_router"
ENTRY = "vllm.entrypoints.launchers.api_server.entry"
CORE = "vllm.v1.engine.core"

BUILD = (
    "for middleware in args.middleware:",
    "module_path, object_name = middleware.rsplit('.', 1)",
    "imported = getattr(importlib.import_module(module_path), object_name)",
    "if inspect.isclass(imported):",
    "app.add_middleware(imported)",
)

ROWS: tuple[Row, ...] = (
    # ── --middleware ────────────────────────────────────────────────────────────────────────────────────
    Steps(
        "vllm.entrypoints.openai.api_server",
        "build_app",
        BUILD,
        versions=(V23,),
        why="Guard is built with the application alone, and last: it is the outermost",
    ),
    Steps(
        "vllm.entrypoints.serve.middleware.register",
        "init_entrypoints_middleware",
        BUILD,
        versions=LATER,
        why="Guard is built with the application alone, and last: it is the outermost",
    ),
    Steps(
        "vllm.entrypoints.launchers.app",
        "build_app",
        ("init_entrypoints_middleware(args, app, supported_tasks)",),
        versions=LATER,
        why="the server's application goes through it",
    ),
    # ── /sleep, /wake_up, /is_sleeping ──────────────────────────────────────────────────────────────────
    Signature(SLEEP, "sleep", "async (raw_request)", versions=(V23,), why="level and mode are read by hand"),
    Steps(
        SLEEP,
        "sleep",
        (
            "level = raw_request.query_params.get('level', '1')",
            "mode = raw_request.query_params.get('mode', 'abort')",
            "await engine_client(raw_request).sleep(int(level), mode)",
            "return Response(status_code=200)",
        ),
        versions=(V23,),
        why="0.23 checks neither: the guard does; its answer is empty",
    ),
    Signature(
        SLEEP,
        "sleep",
        "async (raw_request, level=1, mode='abort')",
        versions=LATER,
        why="query parameters by name",
    ),
    Header(
        SLEEP,
        "sleep",
        (
            "@router.post('/sleep')",
            "level: Annotated[int, Query(ge=0, le=2)]",
            "mode: Annotated[PauseMode, Query()]",
        ),
        versions=LATER,
        why="levels 0 to 2; all in the query, never in a body",
    ),
    Steps(
        SLEEP,
        "sleep",
        ("await engine_client(raw_request).sleep(level, mode)", "{'status': 'sleeping', 'level': level}"),
        versions=LATER,
        why="the answer that the guard gives for a sleep that it need not forward",
    ),
    Header(SLEEP, "sleep", ("@router.post('/sleep')",), versions=(V23,), why="method and path"),
    Header(SLEEP, "wake_up", ("@router.post('/wake_up')",), why="method and path"),
    Header(SLEEP, "is_sleeping", ("@router.get('/is_sleeping')",), why="method and path"),
    Signature(SLEEP, "wake_up", "async (raw_request)", why="tags are read by hand"),
    Steps(
        SLEEP,
        "wake_up",
        (
            "tags = raw_request.query_params.getlist('tags')",
            "if tags == []:",
            "tags = None",
            ".wake_up(tags)",
        ),
        why="the key is repeated per tag; none means all",
    ),
    Steps(
        SLEEP,
        "wake_up",
        (".wake_up(tags)", "return Response(status_code=200)"),
        without=("fully_awake",),
        versions=(V23,),
        why="0.23 says nothing of how awake it is",
    ),
    Steps(
        SLEEP,
        "wake_up",
        ("{'status': 'awake' if fully_awake else 'sleeping', 'tags': tags}",),
        versions=LATER,
        why="the answer that the guard gives for a wake that it need not forward",
    ),
    Steps(
        SLEEP,
        "is_sleeping",
        ("{'is_sleeping': is_sleeping}",),
        why="what is read back after every transition",
    ),
    Header(
        SLEEP,
        "release_kv_cache_memory",
        ("@router.post('/release_kv_cache_memory')",),
        versions=LATER,
        why="the guard refuses it while asleep",
    ),
    Missing(SLEEP, "release_kv_cache_memory", versions=(V23,), why="0.23 has no such path"),
    # ── /collective_rpc ─────────────────────────────────────────────────────────────────────────────────
    Header(
        RPC, "collective_rpc", ("@router.post('/collective_rpc')",), why="reload_weights is called through it"
    ),
    Steps(
        RPC,
        "collective_rpc",
        (
            "method = body.get('method')",
            "body.get('args', [])",
            "body.get('kwargs', {})",
            "body.get('timeout')",
            "{'results': response}",
        ),
        why="the body's keys and the answer's",
    ),
    # ── one API server ──────────────────────────────────────────────────────────────────────────────────
    Steps(
        "vllm.entrypoints.openai.api_server",
        "build_async_engine_client",
        ("engine_args._api_process_count = client_config.get('client_count', 1)",),
        versions=(V23,),
        why="a server's own configuration says how many there are: the guard refuses to be one of several",
    ),
    Steps(
        ENTRY,
        "build_async_engine_client",
        ("engine_args._api_process_count = client_config.get('client_count', 1)",),
        versions=LATER,
        why="a server's own configuration says how many there are: the guard refuses to be one of several",
    ),
    Exists(
        "vllm.config.parallel", "ParallelConfig._api_process_count", why="where the guard reads that number"
    ),
    Exists(
        "vllm.config.parallel",
        "ParallelConfig.world_size_across_dp",
        why="where the guard reads how many workers must speak",
    ),
    Steps(
        "vllm.entrypoints.openai.api_server",
        "init_app_state",
        ("vllm_config = engine_client.vllm_config", "state.vllm_config = vllm_config"),
        versions=(V23,),
        why="the guard finds it at the application that the lifespan names",
    ),
    Steps(
        "vllm.entrypoints.launchers.api_server.app_state",
        "init_app_state",
        ("vllm_config = engine_client.vllm_config", "state.vllm_config = vllm_config"),
        versions=LATER,
        why="the guard finds it at the application that the lifespan names",
    ),
    Steps(
        "vllm.entrypoints.openai.api_server",
        "build_and_serve",
        ("await init_app_state(", "return await serve_http("),
        versions=(V23,),
        why="it is there before the lifespan begins",
    ),
    Steps(
        ENTRY,
        "build_and_serve",
        ("await init_app_state(", "return await serve_http("),
        versions=LATER,
        why="it is there before the lifespan begins",
    ),
    # ── after a sleep that failed ───────────────────────────────────────────────────────────────────────
    Steps(
        CORE,
        "EngineCore.is_sleeping",
        ("return self.is_scheduler_paused() or self.model_executor.is_sleeping",),
        why="true after a sleep that raised in a worker, whether anything sleeps or not",
    ),
    Steps(
        CORE,
        "EngineCore.wake_up",
        ("if tags is None or tags:", "self.model_executor.wake_up(tags)", "self.resume_scheduler()"),
        why="without tags it resumes an engine whose executor believes to be awake, and touches no worker",
    ),
)

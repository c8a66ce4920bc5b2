"""Where plugins run and which process is which."""

from __future__ import annotations

from tests.engine.contract.rows import Bound, Callers, Row, Signature, Steps, Value

UTILS = "vllm.v1.utils"

ROWS: tuple[Row, ...] = (
    Value(
        "vllm.plugins",
        "DEFAULT_PLUGINS_GROUP",
        "'vllm.general_plugins'",
        why="the entry point group of our plugin",
    ),
    Signature("vllm.plugins", "load_general_plugins", "()", why="runs our register()"),
    Steps(
        "vllm.plugins",
        "load_general_plugins",
        ("if plugins_loaded:", "return", "load_plugins_by_group(group=DEFAULT_PLUGINS_GROUP)", "func()"),
        without=("except",),
        why="once per process, and what a plugin raises ends the start: that is how `dormouse` fails loudly",
    ),
    Steps(
        "vllm.plugins",
        "load_plugins_by_group",
        ("allowed_plugins = envs.VLLM_PLUGINS", "allowed_plugins is None or plugin.name in allowed_plugins"),
        why="VLLM_PLUGINS must name dormouse where it is set",
    ),
    Callers(
        "load_general_plugins",
        frozenset(
            {
                "vllm.engine.arg_utils:EngineArgs.__post_init__",
                "vllm.engine.arg_utils:AsyncEngineArgs.add_cli_args",
                "vllm.model_executor.models.registry:_run",
                "vllm.v1.engine.core:EngineCore.__init__",
                "vllm.v1.worker.worker_base:WorkerWrapperBase.init_worker",
            }
        ),
        why="API server, engine core, every worker and the process that inspects a model: register() runs in each",
    ),
    Steps(
        "vllm.v1.worker.worker_base",
        "WorkerWrapperBase.init_worker",
        ("load_general_plugins()", "resolve_obj_by_qualname(", "worker_class(**kwargs)"),
        why="in a worker the plugin runs before its class is imported and before anything touches the device",
    ),
    Steps(
        "vllm.v1.worker.worker_base",
        "WorkerWrapperBase.init_device",
        ("self.worker.init_device()",),
        why="whatever its class, a worker starts through here: where facts begin under the engine's own allocator",
    ),
    Steps(
        "vllm.v1.engine.core",
        "EngineCore.__init__",
        ("load_general_plugins()", "self.model_executor = executor_class(vllm_config)"),
        why="in the core the plugin runs before any worker exists, also with the worker inside this process",
    ),
    Bound(
        "vllm.plugins",
        "load_general_plugins",
        frozenset({"vllm.engine.arg_utils"}),
        frozenset(
            {
                "vllm.engine.arg_utils:EngineArgs.__post_init__",
                "vllm.model_executor.models.registry:_run",
                "vllm.v1.engine.core:EngineCore.__init__",
                "vllm.v1.worker.worker_base:WorkerWrapperBase.init_worker",
            }
        ),
        why="the same by the names that they bind",
    ),
    Steps(
        UTILS,
        "APIServerProcessManager.__init__",
        ("'client_count': num_servers", "name=f'ApiServer_{i}'"),
        why="the process name of each of several API servers, and how a server knows how many there are",
    ),
    Signature(
        UTILS,
        "run_api_server_worker_proc",
        "(listen_address, sock, args, client_config=None, **uvicorn_kwargs)",
        why="where such a process begins",
    ),
    Steps(
        "vllm.v1.engine.utils",
        "CoreEngineProcManager.__init__",
        ("name=f'EngineCore_DP{global_index}' if is_dp else 'EngineCore'",),
        why="the process name of an engine core",
    ),
    Steps(
        "vllm.v1.executor.multiproc_executor",
        "WorkerProc.make_worker_process",
        ("name=f'VllmWorker-{rank}'",),
        why="the process name of a worker",
    ),
)

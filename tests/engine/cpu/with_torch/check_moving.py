"""Moving real tensors into arenas. Needs torch, so `python -m tests.vllm_cpu` runs it, where torch is."""

# mypy: disable-error-code="import-not-found"
# (torch is in the environment of real vLLM only)

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from dormouse_engine.arena import Arena
from dormouse_engine.plugin.cpu.errors import UnsupportedError
from dormouse_engine.plugin.cpu.kv import KVCacheInArena
from dormouse_engine.plugin.cpu.moving import Moved, move

if TYPE_CHECKING:
    from collections.abc import Callable


class Model(nn.Module):  # type: ignore[misc]  # torch is not there when this is type-checked
    """Tied weights, two names for one parameter, a view, a buffer, a plain alias, odd strides, and an empty one."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(100, 48, dtype=torch.bfloat16)
        self.head = nn.Linear(48, 100, bias=False, dtype=torch.bfloat16)
        self.head.weight = self.embed.weight
        self.twin = nn.Parameter(self.embed.weight.data[10:20].t(), requires_grad=False)
        self.columns = nn.Parameter(torch.randn(7, 5).t(), requires_grad=False)
        self.nothing = nn.Parameter(torch.empty(0), requires_grad=False)
        self.register_buffer("table", torch.arange(30, dtype=torch.float32), persistent=False)
        self.alias = self.table[5:10]
        self.loose = torch.ones(4)
        self.none: Any = None


class Arenas:
    """Makes arenas and remembers them by name."""

    def __init__(self) -> None:
        self.made: dict[str, Arena] = {}
        self.kept: dict[str, bool] = {}

    def __call__(self, name: str, size: int, kept: bool) -> Arena:  # noqa: FBT001 - called by position
        self.made[name], self.kept[name] = Arena(name, size), kept
        return self.made[name]

    def holds(self, name: str, tensor: Any) -> bool:
        """Whether the tensor's bytes lie in that arena."""
        arena = self.made[name]
        start = torch.frombuffer(arena.memory, dtype=torch.uint8).data_ptr()
        return bool(start <= tensor.data_ptr() < start + arena.size)


def everything(model: Model) -> dict[str, Any]:
    names = ("twin", "columns", "table", "alias", "loose", "nothing")
    return {
        **{name: getattr(model, name) for name in names},
        "embed": model.embed.weight,
        "head": model.head.weight,
    }


def test_everything_keeps_its_content_identity_shape_and_strides() -> None:
    model = Model()
    before = {
        name: (id(tensor), tensor.clone(), tensor.stride()) for name, tensor in everything(model).items()
    }
    move(model, Arenas())
    for name, tensor in everything(model).items():
        identity, content, stride = before[name]
        assert (id(tensor), tensor.stride()) == (identity, stride), name
        assert torch.equal(tensor, content), name


def test_parameters_and_buffers_lie_in_an_arena_each_and_strangers_in_none() -> None:
    model, arenas = Model(), Arenas()
    moved = move(model, arenas)
    assert arenas.kept == {"parameters": False, "buffers": True}
    assert all(
        arenas.holds("parameters", tensor) for tensor in (model.embed.weight, model.twin, model.columns)
    )
    assert all(arenas.holds("buffers", tensor) for tensor in (model.table, model.alias))
    assert not any(arenas.holds(name, model.loose) for name in arenas.made)
    # Tied weights once: 100 x 48 of two bytes, and 7 x 5 of four.
    assert moved == Moved(parameters=9600 + 140, buffers=120, left_behind=0)


def test_what_was_tied_stays_tied() -> None:
    model = Model()
    move(model, Arenas())
    model.embed.weight.data.fill_(3)
    assert (model.head.weight == 3).all()
    assert (model.twin == 3).all()
    model.table.fill_(4)
    assert (model.alias == 4).all()


def test_a_sleep_loses_parameters_at_the_arena_and_writing_in_place_brings_them_back() -> None:
    model, arenas = Model(), Arenas()
    move(model, arenas)
    weights = model.embed.weight.clone()
    arenas.made["parameters"].drop()
    assert (model.embed.weight == 0).all()
    model.embed.weight.data.copy_(weights)
    assert torch.equal(model.twin, weights[10:20].t())


def test_a_storage_of_a_parameter_and_a_buffer_counts_as_a_buffer() -> None:
    model, arenas = Model(), Arenas()
    model.register_buffer("shared", model.columns.data[0])
    move(model, arenas)
    assert arenas.holds("buffers", model.columns)
    assert arenas.holds("buffers", model.shared)


def test_bytes_that_somebody_else_holds_are_counted_as_left_behind() -> None:
    model = Model()
    held = model.columns.data[0]
    assert move(model, Arenas()).left_behind == 140
    del held


def test_a_layer_with_packed_weights_is_refused_by_name_and_nothing_moves() -> None:
    model, arenas = Model(), Arenas()
    packed = nn.Linear(2, 2)
    packed.weight = nn.Parameter(torch.empty(0), requires_grad=False)
    packed.cpu_linear = object()
    model.packed = packed
    with pytest.raises(UnsupportedError, match="the layer packed has packed its weight"):
        move(model, arenas)
    assert arenas.made == {}


@pytest.fixture
def zeros() -> Callable[[], Any]:
    return lambda: torch.zeros(4096, dtype=torch.int8, device="cpu")


def test_a_kv_cache_made_in_the_context_lies_in_an_arena(zeros: Callable[[], Any]) -> None:
    arenas: list[Arena] = []

    def make(size: int) -> Arena:
        arenas.append(Arena("kv_cache", size))
        return arenas[-1]

    with KVCacheInArena(make):
        cache = zeros()
        others = torch.zeros(2, 2), torch.zeros(8, dtype=torch.int32)
    assert [arena.size for arena in arenas] == [4096]
    assert all((other == 0).all() for other in others)
    cache.fill_(1)
    assert arenas[0].memory[0] == 1
    assert zeros().data_ptr() != cache.data_ptr()


def test_a_kv_cache_made_in_another_way_stops_the_start() -> None:
    context = KVCacheInArena(lambda size: Arena("kv_cache", size))
    with pytest.raises(UnsupportedError, match="KV cache in a way that Dormouse doesn't know"), context:
        torch.empty(4096, dtype=torch.int8)

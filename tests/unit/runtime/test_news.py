from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from dormouse.api.conditions import Reason
from dormouse.api.names import API_VERSION, KIND
from dormouse.cluster.resources import MODELS
from dormouse.domain.plan import Verdict
from dormouse.domain.snapshot import UNKNOWN_DEVICE, DeviceKey
from dormouse.domain.states import EngineState
from dormouse.runtime.operator import Operator
from dormouse.settings import Settings
from tests.unit.runtime.fakes import World, observation

if TYPE_CHECKING:
    from dormouse.domain.snapshot import EngineKey


def leading(world: World) -> tuple[Any, list[str]]:
    """Return an operator that leads this world, and the models that it looks at from now on."""
    operator: Any = Operator(Settings())
    operator._port = SimpleNamespace(store=world.store)
    operator._engines, operator._collector = world.engines, world.collector
    looked: list[str] = []
    operator._loop = SimpleNamespace(verdicts=world.verdicts, look=lambda model: looked.append(model.name))
    operator._leading = True
    return operator, looked


def waits(world: World, key: EngineKey) -> None:
    world.verdicts[key] = Verdict(Reason.NEIGHBOUR_BOOTING, "boots", None, waiting=True)


async def test_whoever_waited_for_an_engine_to_boot_is_looked_at_wherever_it_turns_out_to_be() -> None:
    world = World()
    anywhere = frozenset({DeviceKey("n", UNKNOWN_DEVICE)})
    boots = world.add("boots", observation(EngineState.CONNECTING, devices=anywhere, tier=None))
    for device in ("0", "1"):
        waits(world, world.add(f"on-{device}", observation(EngineState.OFFLOADED, device)))
    content = world.add("content", observation(EngineState.AWAKE, "1"))
    operator, looked = leading(world)
    world.engines.seen[boots] = observation(EngineState.AWAKE, "0", max_wait_seconds=120.0)
    operator._engine_changed(boots, None)
    assert sorted(set(looked)) == ["boots", "on-0", "on-1"]
    assert content not in world.verdicts


async def test_an_engine_that_stays_where_it_is_concerns_its_own_device_alone() -> None:
    world = World()
    for device in ("0", "1"):
        waits(world, world.add(f"on-{device}", observation(EngineState.OFFLOADED, device)))
    moves = world.add("moves", observation(EngineState.OFFLOADED, "0", max_wait_seconds=120.0))
    operator, looked = leading(world)
    operator._engine_changed(moves, frozenset({"state"}))
    assert sorted(set(looked)) == ["moves", "on-0"]
    looked.clear()
    operator._engine_changed(moves, frozenset())
    assert looked == []


async def test_a_deadline_that_changed_while_a_guard_was_out_of_reach_is_set_when_it_is_back() -> None:
    world = World()
    key = world.add("a", observation(EngineState.AWAKE, max_wait_seconds=9.0))
    operator, _ = leading(world)
    settled: list[EngineKey] = []
    operator._settle = settled.append
    operator._engine_changed(key, frozenset({"in_flight"}))
    assert settled == []
    operator._engine_changed(key, frozenset({"reach", "state", "error"}))
    assert settled == [key]


async def test_a_deadline_that_changes_while_one_is_being_set_is_set_next() -> None:
    world = World()
    key = world.add("a", observation(EngineState.AWAKE, max_wait_seconds=9.0), {"wake": {"maxWait": "20s"}})
    operator, _ = leading(world)
    told: list[float] = []

    async def settle_settings(key: EngineKey, max_wait_seconds: float) -> None:
        if not told:
            meta = {"namespace": "ns", "name": "a", "uid": "a-uid", "generation": 2}
            spec = {"wake": {"maxWait": "30s"}}
            world.store.put(MODELS, {"apiVersion": API_VERSION, "kind": KIND, "metadata": meta, "spec": spec})
            operator._settle(key)
        told.append(max_wait_seconds)
        world.engines.seen[key] = observation(EngineState.AWAKE, max_wait_seconds=max_wait_seconds)

    operator._engines = SimpleNamespace(settle_settings=settle_settings, observe=world.engines.observe)
    operator._settle(key)
    await world.settle()
    assert told == [20.0, 30.0]

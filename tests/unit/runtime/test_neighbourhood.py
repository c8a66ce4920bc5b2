"""Who shares a device with whom."""

from __future__ import annotations

from dormouse.domain.snapshot import UNKNOWN_DEVICE, DeviceKey, EngineKey
from dormouse.runtime.neighbourhood import Neighbourhood


def _engine(name: str) -> EngineKey:
    return EngineKey("ns", name, name)


def _device(uuid: str, node: str = "n") -> DeviceKey:
    return DeviceKey(node, uuid)


A, B, C, D = (_engine(name) for name in "abcd")
NOWHERE = _device(UNKNOWN_DEVICE)


def _placed(**where: set[DeviceKey]) -> Neighbourhood:
    there = Neighbourhood()
    for name, devices in where.items():
        there.place(_engine(name), frozenset(devices))
    return there


def _group(
    there: Neighbourhood, *start: EngineKey, leaves: frozenset[EngineKey] = frozenset()
) -> set[EngineKey]:
    met = set()

    def follow(key: EngineKey) -> bool:
        met.add(key)
        return key not in leaves

    there.walk(start, follow)
    return met


def test_engines_of_one_device_are_neighbours_and_of_another_node_never() -> None:
    there = _placed(a={_device("0")}, b={_device("0")}, c={_device("1")}, d={_device("0", "m")})
    assert there.on([_device("0")]) == {A, B}
    assert _group(there, A) == {A, B}


def test_an_engine_that_moved_leaves_where_it_was() -> None:
    there = _placed(a={_device("0")}, b={_device("0")})
    there.place(A, frozenset({_device("1")}))
    assert there.on([_device("0")]) == {B}
    assert there.on([_device("1")]) == {A}
    assert there.devices(A) == {_device("1")}


def test_a_forgotten_engine_is_nowhere() -> None:
    there = _placed(a={_device("0")}, b={_device("0")})
    there.forget(A)
    there.forget(A)
    assert there.on([_device("0")]) == {B}
    assert there.devices(A) == frozenset()


def test_an_engine_whose_device_nobody_knows_may_be_on_any_of_its_node() -> None:
    there = _placed(a={_device("0")}, b={NOWHERE}, c={_device("1")}, d={_device("0", "m")})
    assert there.on([_device("0")]) == {A, B}
    assert there.on([NOWHERE]) == {A, B, C}


def test_a_group_is_all_that_share_devices_however_indirectly() -> None:
    there = _placed(
        a={_device("0")}, b={_device("0"), _device("1")}, c={_device("1"), _device("2")}, d={_device("3")}
    )
    assert _group(there, A) == {A, B, C}
    assert _group(there, D) == {D}


def test_who_is_not_followed_is_met_and_makes_no_one_group_of_its_node() -> None:
    there = _placed(a={_device("0")}, b={NOWHERE}, c={_device("1")})
    assert _group(there, A) == {A, B, C}
    assert _group(there, A, leaves=frozenset({B})) == {A, B}


def test_everybody_is_asked_about_once() -> None:
    there = _placed(a={_device("0")}, b={_device("0")}, c={_device("0")})
    asked: list[EngineKey] = []

    def follow(key: EngineKey) -> bool:
        asked.append(key)
        return True

    there.walk([A], follow)
    assert sorted(asked) == [A, B, C]
